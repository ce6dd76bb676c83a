# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What the site does with our pages and docstrings: formulas become MathML, which browsers draw."""

import pathlib
import re
import textwrap
from typing import Any

import griffe
import latex2mathml.converter
from mkdocs.structure.files import File

RESULTS = pathlib.Path(__file__).parent.parent / "benchmarks" / "results"


def mathml(source: str, display: str) -> str:
  r"""A TeX formula as MathML; nothing has to be fetched to draw it.

  Browsers break no line inside a formula. So what a `\quad` parts is drawn apart, and `site.css`
  puts it on lines of its own where the page is narrow.
  """
  convert = lambda part: latex2mathml.converter.convert(" ".join(part.split()), display=display)
  if display != "block":  # Markdown takes a line that starts with <math> for a block of its own
    return f"<span>{convert(source)}</span>"
  parts = "".join(convert(part) for part in re.split(r"\\q?quad", source))
  return f'<div class="formula">{parts}</div>'


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **kwargs: Any) -> str:
  """A fenced block of the language `math`."""
  del language, css_class, options, md, kwargs
  return mathml(source, "block")


def on_files(files: Any, config: Any, **kwargs: Any) -> Any:
  """The plots of the benchmarks are taken along."""
  del kwargs
  for path in sorted(RESULTS.glob("*.svg")):
    files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
  return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
  """What else lies beside docs/ is in the source, not on the site: its link goes."""
  del kwargs
  up = "../" * page.file.src_uri.count("/")
  outside = re.escape(f"{up}../")
  markdown = re.sub(rf"(!\[[^\]]*\]\(){outside}benchmarks/results/", rf"\1{up}figures/", markdown)
  return re.sub(rf"\[([^\[\]]+)\]\({outside}[^)]*\)", r"\1", markdown)


def readable(docstring: str) -> str:
  """Formulas and tables of reStructuredText as Markdown."""
  lines, out, i = docstring.split("\n"), [], 0
  while i < len(lines):
    line = lines[i]
    if line.lstrip().startswith(".. math::"):
      indent = len(line) - len(line.lstrip())
      block = [line.lstrip().removeprefix(".. math::")]
      while i + 1 < len(lines) and (
        len(lines[i + 1]) - len(lines[i + 1].lstrip()) > indent and lines[i + 1].strip()
      ):
        i += 1
        block.append(lines[i])
      out += ["", " " * indent + mathml("\n".join(block), "block"), ""]
    elif re.fullmatch(r" *=+( +=+)+", line):
      rule, table = line, []
      while i + 1 < len(lines) and lines[i + 1].strip():
        i += 1
        table.append(lines[i])
      out += ["", *_table(rule, table), ""]
    else:
      out.append(line)
    i += 1
  text = "\n".join(out)
  text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # as its parser says
  return re.sub(r":math:`([^`]+)`", lambda m: mathml(m[1], "inline"), text)


def _table(rule: str, rows: list[str]) -> list[str]:
  """A simple table: its columns are where the rule has signs."""
  spans = [match.span() for match in re.finditer(r"=+", rule)]
  cells = [
    [row[a : None if k + 1 == len(spans) else b].strip() for k, (a, b) in enumerate(spans)]
    for row in rows
    if not re.fullmatch(r" *=+( +=+)+", row)
  ]
  merged: list[list[str]] = []
  for row in cells:
    if merged and not row[0]:  # goes on from the line above
      merged[-1] = [f"{a} {b}".strip() for a, b in zip(merged[-1], row, strict=True)]
    else:
      merged.append(row)
  lines = ["| " + " | ".join(row) + " |" for row in merged]
  return [lines[0], "|" + "---|" * len(spans), *lines[1:]]


class Docstrings(griffe.Extension):
  """Hands `readable` docstrings to the API pages."""

  def on_instance(self, *, node: Any, obj: griffe.Object, **kwargs: Any) -> None:
    """Called for every module, class, function and attribute."""
    del node, kwargs
    if obj.docstring:
      obj.docstring.value = readable(textwrap.dedent(obj.docstring.value))
