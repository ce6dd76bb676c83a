# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What each page of the documentation shows: results, rows, columns, cells and plot.

† marks arms whose code is not kept; docs/evidence/protocol.md says where it is.
"""

# fmt: off

import functools
from typing import Any

import numpy as np

from benchmarks.harness.arms import AT_RANDOM, COMBINED, ORACLE, RECOMMENDED
from benchmarks.pages import plots
from benchmarks.pages.writer import (
  EQUAL,
  NOTHING,
  OPTIMIZERS,
  Cell,
  Exhibit,
  Row,
  Table,
  difference,
  gap,
  interval,
  percent,
  quality,
  ratio,
  read,
  same,
  show,
)

SGDM, FEATURES, OUTPUTS = "SGDM", *RECOMMENDED
POOLED, GROUPS = "group scarcity, features, pooled", "group scarcity, outputs"
SIZES = {f"B={b}": b for b in (256, 1024, 4096)}
KINDS = tuple(f"{d}hidden{s}" for d in ("", "mnist ") for s in (5, 6, 7))
Lines = dict[str, dict[str, list[plots.Point]]]
at = lambda size, *tasks: {task: (task, size) for task in tasks}
sizes = lambda task, *of: {f"{task}, B={b}": (task, b) for b in of}


def against(
  results: Any, base: Any, corner: str, columns: Any, rows: Any, cell: Any = quality, **options: Any
) -> Table:
  """Rows of arms; `base(column)` is the row that each is held against."""
  look = lambda arm, column: cell(results.get((*column, arm)), base(column), **options)
  return Table(corner, columns, rows, look)


def gap_cell(own: Row | None, other: Row | None) -> Cell:
  """The difference alone."""
  return difference(gap(own, other))


# Every arm on every task, small networks on SGD

TASKS = read("tasks", "task", "batch_size", "arm")
on_tasks = functools.partial(against, TASKS, lambda column: TASKS[(*column, SGDM)])
OTHERS = (SGDM, "Adam", "focal loss", "class weights", "logit adjustment", "JTT", "random groups")
ARMS = same(
  *OTHERS, POOLED, GROUPS, f"{GROUPS}; num_groups=46", f"{GROUPS}, Delta_rho",
  *(arm for name in RECOMMENDED for arm in (name, name + AT_RANDOM)), ORACLE)
NOISY = (
  *(f"LT100, {n}" for n in ("20 % noise", "40 % noise", "30 % asymmetric")), "hidden5, 20 % noise")
EVERY_TASK: dict[str, dict[str, tuple[str, int]]] = {
  **{
    f"{d}hidden, B={b}": at(b, *tasks) for b in (1024, 4096)
    for d, tasks in (("", KINDS[:3]), ("mnist ", KINDS[3:]))},
  "rare classes": sizes("LT100", *SIZES.values()),
  "nothing rare": sizes("balanced", *SIZES.values()), "wrong labels, B=1024": at(1024, *NOISY),
  "other data": {
    **sizes("CIFAR-10 LT100", 1024), **sizes("page_blocks0", 64, 512),
    "japanese_vowels †, B=64": ("japanese_vowels", 64)},
  "46 topics": sizes("Reuters", 128, 512, 2048)}


def part_of_way(arm: str, size: int) -> Cell:
  """How far an arm goes from SGDM to the oracle, over the hidden tasks where all three were run."""
  ready = [t for t in KINDS if all((t, size, a) in TASKS for a in (arm, SGDM, ORACLE))]
  if not ready:
    return NOTHING
  means = (np.mean([percent(TASKS[t, size, a]).mean() for t in ready]) for a in (SGDM, arm, ORACLE))
  low, own, high = means
  part, whole = float((own - low) / (high - low)), len(ready) == len(KINDS)
  few = "" if whole else f" ({len(ready)} task{'s' * (len(ready) > 1)})"
  return Cell(f"{part:+.2f}{few}", part if whole else None)


GONE = (
  "both", "features and last layer, pooled", "features and label, pooled", "two levels",
  "features, pooled, of a teacher")
WAYS = {
  **same(
    *OTHERS[1:], "group scarcity, features", POOLED, f"{POOLED}, Delta_rho", GROUPS,
    "group scarcity, last layer, pooled"),
  **{f"group scarcity, {name} †": f"group scarcity, {name}" for name in GONE},
  **same(FEATURES, FEATURES + AT_RANDOM)}
# Options of example scarcity, one at a time, over the seeds of both.
OPTIONS = {"hidden7": FEATURES, "mnist hidden6": FEATURES, "LT100": OUTPUTS}
option = lambda change, column: difference(
  gap(TASKS.get((*column, f"{OPTIONS[column[0]]}; {change}")), TASKS[(*column, OPTIONS[column[0]])])
)
CHANGES = same(
  *(
    f"{name}={value}"
    for name, values in {
      "bandwidth": (0.1, 0.15, 0.2, 0.3, 0.4), "exponent": (0.5, 1.5), "loss_exponent": (0, 0.5, 1),
      "max_weight": (10,), "neighbours": (2, 32)}.items() for value in values))
QUEUES = same(*(f"queue_size={n}" for n in (1, 256, 2048, 4096, 8192)))
PRICES = {"defaults": FEATURES} | {
  c: f"{FEATURES}; {c}"
  for c in ("exponent=0.5", "loss_exponent=0", "neighbours=16", "neighbours=32")}
price = lambda arm, column: (
  gap_cell(TASKS[(*column, arm)], TASKS[(*column, SGDM)]) if column
  else (NOTHING if (found := part_of_way(arm, 1024)).value is None else found))
# What was tried with group scarcity.
VARIED = {
  "num_groups": (4, 6, 8, 10, 12, 20, 40, 64), "queue_length": (1, 2, 5, 10, 20, 50),
  "exponent": (0, 0.5, 0.75, 1, 1.25, 1.5)}


def varied(option: str, column: tuple[str, str]) -> Cell:
  """The mean at each value of an option, all else as in the arm."""
  task, arm = column
  default = {"num_groups": 20 if arm == POOLED else 10, "queue_length": 5, "exponent": 1}[option]
  rows = {
    v: TASKS.get((task, 1024, arm if v == default else f"{arm}; {option}={v:g}"))
    for v in VARIED[option]}
  return Cell("; ".join(f"{v:g}: {percent(r).mean():.1f}" for v, r in rows.items() if r))


gone = lambda arm, *options: {f"{arm}; {o} †": f"{arm}; {o}" for o in options}
TRIED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
  "embedding": (
    ("LT100", "hidden5", "hidden6"),
    {
      **same(SGDM, GROUPS, POOLED, "group scarcity, last layer, pooled"),
      **{f"group scarcity, {name} †": f"group scarcity, {name}" for name in GONE},
      **same(
        "random groups; embedding=output gradients", "random groups; num_groups=20; pooling=0.5")},
  ),
  "confidence": (
    NOISY[:3],
    {
      **same(SGDM, "class weights", GROUPS),
      **gone(GROUPS, "temper=coherence", "temper=recurrence")}),
  "exponent": (
    ("LT100", "balanced", "CIFAR-10 LT100"),
    {
      **same(SGDM, GROUPS), **gone(GROUPS, "entropy_factor=4", "entropy_factor=8"),
      **same(
        f"{GROUPS}; ramp=0.5", f"{GROUPS}; ramp=1", "class weights", "class weights; ramp=1",
        "Delta_rho"), "Delta_rho, rho by groups †": "Delta_rho, rho by groups"})}

# On top of strong optimizers: held against the best plain one, chosen on validation

STRONG = read("optimizers", "task", "longer", "on", "weights")
TEN, PARTS = (
  read(name, "task", "batch_size", "on", "weights") for name in ("ten_seeds", "in_part"))
PEOPLE = read("people", "task", "on", "weights")
ON_KINDS, ON_CLASSES = (
  ("class weights", POOLED, FEATURES, ORACLE), ("class weights", GROUPS, OUTPUTS))
THREE, LONG = ("hidden5", "hidden7", "mnist hidden6"), ("Muon", "SGDM, one length")


def best(rows: Any, task: str, rest: int, weights: str = EQUAL) -> Row:
  """The optimizer that does best on validation with these weights."""
  there = [row for k, row in rows.items() if (*k[:2], k[3]) == (task, rest, weights)]
  return max(there, key=lambda row: row["validation"])


def strong_table(task: str, weights: tuple[str, ...], longer: int = 1) -> Table:
  """One task."""
  columns = {o: (task, longer, o) for o in OPTIMIZERS if (task, longer, o, EQUAL) in STRONG}
  return against(
    STRONG, lambda column: best(STRONG, *column[:2]), f"{task}: weights", columns,
    same(EQUAL, *weights), spread=False)


def way(rows: Any, tasks: tuple[str, ...], weights: str, column: tuple[str, int]) -> Cell:
  """The part of the way from the best plain optimizer to the best oracle."""
  optimizer, rest = column
  gain = lambda task, row: percent(row).mean() - percent(best(rows, task, rest)).mean()
  whole = sum(gain(t, best(rows, t, rest, ORACLE)) for t in tasks)
  own = sum(gain(t, rows[t, rest, optimizer, weights]) for t in tasks)
  return Cell(f"{own / whole:+.2f}", own / whole)


def on_muon(task: str, column: tuple[str, int]) -> Cell:
  """What an idea adds to Muon on a task, or on the mean of all."""
  idea, size = column
  tasks = KINDS if task == "mean over tasks" else (task,)
  if any((t, size, "Muon", idea) not in TEN for t in tasks):
    return NOTHING
  points = [
    percent(TEN[t, size, "Muon", idea]) - percent(TEN[t, size, "Muon", EQUAL]) for t in tasks]
  return difference(interval(np.mean(points, axis=0)))


def in_part(arm: tuple[str, str], column: tuple[tuple[str, ...], int]) -> Cell:
  """An arm held against Muon, as the mean over the tasks of a column."""
  rows, muon = ([PARTS[t, column[1], *a] for t in column[0]] for a in (arm, ("Muon", EQUAL)))
  mean = lambda of, figure="mean": np.mean([percent(row, figure) for row in of], axis=0)
  found = None if arm == ("Muon", EQUAL) else interval(mean(rows) - mean(muon))
  text = f"{mean(rows).mean():.1f}" + (f" ({show(found)})" if found else "")
  far = arm[0] == SGDM  # so far behind that in the plot the others would fall together
  return Cell(f"{text}, {mean(rows, 'worst').mean():.0f}", None if far else found)


IN_PART = {
  f"{name}, B={b}": (tasks, b)
  for name, tasks in (("a part", ("both5", "both6", "both7")), ("all", ("LT100",)))
  for b in (1024, 4096)}
ON_BOTH = (
  "logit adjustment", "class weights", *RECOMMENDED, *COMBINED,
  *(name + AT_RANDOM for name in COMBINED), ORACLE)
IDEAS = {f"{idea}, B={b}": (idea, b) for idea in (FEATURES, "Delta_rho") for b in (1024, 4096)}
short = lambda arm: arm.replace("logit adjustment and example scarcity", "both")
def group_table(rows: Any, task: str, by_class: bool = False) -> Table:
  """Every way held against the same optimizer alone."""
  look = {k: row["by_worst_class"] for k, row in rows.items() if by_class and k[0] == task} or rows
  ways = ("logit adjustment", "JTT", FEATURES, OUTPUTS, POOLED, ORACLE, "group DRO (oracle)")
  return against(
    look, lambda column: look[(*column, EQUAL)], f"{task}: mean over kinds, worst kind",
    {o: (task, o) for o in OPTIMIZERS[:3]}, same(EQUAL, "class weights", *ways), worst=".1f")


DEEP = read("real_networks", "on", "weights")
DEEP_ROWS, ON_DEEP = same(*(w for _, w in DEEP)), {o: (o,) for o in ("Muon", "SGDM")}


def deep_rate(weights: str, column: tuple[str]) -> Cell:
  """Validation after the short runs at each rate."""
  found = DEEP[(*column, weights)]["validation_by_rate"]
  return Cell("; ".join(f"{rate}: {100 * value:.1f}" for rate, value in found.items()))


# The paper

FIGURE6 = {w: read(f"figure6_{w}", "task", "batch_size", "arm") for w in ("fixed", "tuned")}
SGD_ARMS, ADAM_ARMS = (
  (name, f"{gq}, K=1", f"{gq}, K=B/64") for name, gq in (("SGDM", "GQ"), ("Adam", "GQ-Adam")))
# Read off the paper's Figure 6 (test accuracy, +-.2, MNIST +-.03), by batch size: SGDM, K=1,
# K=B/64. Its CIFAR-10 without dropout; what Reuters was trained with it leaves open.
PAPER: dict[str, dict[int, str]] = {
  "MNIST": {
    64: "99.4, 99.3, -", 128: "99.2, 99.3, 99.2", 256: "99.2, 99.2, 99.2", 512: "99.1, 99.1, 99.1",
  },
  "CIFAR-10": {
    64: "77.2, 78.5, -", 128: "76.6, 77.2, 77.8", 256: "75.6, 75.3, 76.1", 384: "73.7, 73.9, 75.5",
  },
  "Reuters-46": {
    64: "70.9, 71.3, -", 128: "72.3, 72.1, 71.7", 256: "70.8, 70.5, 71.7", 512: "69.3, 69.0, 70.3",
  }}
LINES = {
  f"{task}{', Adam' * (arms[0] == 'Adam')}, {w}": (w, task, arms)
  for task, arms in (*((t, SGD_ARMS) for t in PAPER), ("Reuters-46", ADAM_ARMS)) for w in FIGURE6
} | {f"{task}: the paper": ("", task, ()) for task in PAPER}
PLACES = {"B=64": 0, "B=128": 1, "B=256": 2, "B=512 (CIFAR-10: 384)": 3}


def figure6(key: tuple[str, str, tuple[str, ...]], place: int) -> Cell:
  """The first arm in percent, and the differences to it of K = 1 and K = B/64; or the paper's."""
  kind, task, arms = key
  size = list(PAPER[task])[place]
  if not kind:
    return Cell(PAPER[task][size])
  first, *others = (percent(FIGURE6[kind][task, size, arm], "accuracy") for arm in arms)
  gaps = [f"{(own - first).mean():+.1f}" for own in (others if size > 64 else others[:1])]
  return Cell(
    f"{first.mean():.1f} ± {first.std(ddof=1):.1f}, {', '.join(gaps)}",
    interval(others[1] - first) if size > 128 else None)


TAIL = read("long_tail", "task", "arm")


def long_tail(arm: str, column: str) -> Cell:
  """Every arm on a long tail."""
  own = TAIL["LT100", arm]
  return (
    Cell(f"{own['rate']:g}") if column == "rate"
    else quality(own, TAIL["LT100", SGDM], column, worst="", verdict=True))


# Safety

DIGITS = read("digits", "part", "what", "row")
CHAINS = same(*dict.fromkeys(row for part, _, row in DIGITS if part == "poison"))
POISONS = dict.fromkeys(what for part, what, _ in DIGITS if part == "poison")


def poison(chain: str, what: str) -> Cell:
  """The lowest accuracy under a poison, that at the end, and the median steps until it is back."""
  row = DIGITS["poison", what, chain]
  middle = float(np.median([np.inf if s is None else s for s in row["back"]]))
  back = "never" if np.isinf(middle) else f"{middle:.0f} steps"
  return Cell(f"{percent(row, 'lowest').mean():.1f}, {percent(row, 'end').mean():.1f}, {back}")


def courses() -> Lines:
  """Accuracy in the course of training."""
  course = lambda row: [(5.0 * (i + 1), 100 * v) for i, v in enumerate(row["course"])]
  return {p: {c: course(DIGITS["poison", p, c]) for c in CHAINS} for p in POISONS}


def labels(noise: float, column: tuple[str, str]) -> Cell:
  """What was won on wrong labels, or a figure of the diagnostics."""
  row, plain = (DIGITS["labels", noise, name] for name in (column[0], "plain"))
  if column[1] == "won":
    return difference(gap(row, plain, "accuracy"))
  return Cell(f"{np.mean(row[column[1]]):.2f}")


def dtype(name: str, column: str) -> Cell:
  """What a narrower queue costs."""
  row, full = (DIGITS["dtype", "float32", n] for n in (name, "float32"))
  if column == "accuracy":
    return Cell(f"{percent(row, column).mean():.2f}")
  if column == "against":
    return Cell("" if row is full else show(gap(row, full, "accuracy"), 2))
  return Cell(f"{100 * np.mean(full['errors'][name], axis=0)[int(column)]:.2f} %")


# Costs: a row a way or a network, and ratios to the plain step of the same run

GPU, CPU = (read(name, "part", "job", "row") for name in ("accelerator", "cpu"))
both = lambda way: f"{way}, equal / {way}, skewed"
GROUP_WAYS = {
  "plain again": "plain again", "with grad_queue, K=1": "plain, grad_queue K=1",
  **{way: both(way) for way in ("groups", "groups, donated", "whole step", "whole step, donated")},
  **same(
    "groups, an eighth at a time", "K masked passes", "optax.microbatching",
    "vmap(grad), group means")}
GROUP_MEMORY = {  # what is donated takes no other temporary memory
  k: v for k, v in GROUP_WAYS.items() if "again" not in k and "donated" not in k}
TABLED = {
  "weights": same(
    "groups of features, K=20, pooled", "groups of output gradients, K=10", "examples by features"),
  "groups": {"groups": both("groups"), "whole step": both("whole step"), **same("K masked passes")},
  "queue": same("adam", "queue", "queue in bfloat16"),
  "kmeans": same("group_scarcity.update", "kmeans", "example_scarcity.update"),
  "compile": same("queue", "queue, match", "queue, track", "queue of 64 groups")}


def timed(rows: Any, quartiles: bool, way: str, job: tuple[str, str]) -> Cell:
  """A ratio, or that of equal and of skewed groups; plotted is the first."""
  if way == "plain":  # what it is a ratio to
    row = next(row for (*key, _), row in rows.items() if tuple(key) == job)
    return Cell(f"{row['reference_ms']:.3g}, {row['device'].removeprefix('NVIDIA ').split()[0]}")
  found = [rows.get((*job, name)) for name in way.split(" / ")]
  cells = [ratio(row, quartiles=quartiles) for row in found]
  return NOTHING if found[0] is None else Cell(" / ".join(c.text for c in cells), cells[0].value)


def timed_table(rows: Any, part: str, ways: dict[str, str], quartiles: bool = False) -> Table:
  """One row a network, one column a way."""
  networks = {job: (p, job) for p, job, _ in rows if p == part}
  look = functools.partial(timed, rows, quartiles)
  return Table(f"{part}: ratio", ways, networks, lambda job, way: look(way, job))


NETWORKS = {job: (p, job) for p, job, _ in CPU if p == "groups"}
CPU_WEIGHTS = same(*dict.fromkeys(row for p, _, row in CPU if p == "weights"))
UPDATES = same(*dict.fromkeys(row for p, _, row in CPU if p == "queue"))
memory = lambda way, job: (
  NOTHING if (row := CPU.get((*job, way.split(" / ")[0]))) is None
  else Cell(f"{row['temp_bytes'] / 2**20:.0f}"))
BYTES = read("communication", "part", "row", "devices")


def bytes_table(part: str, corner: str, unit: int, digits: int, devices: tuple[int, ...]) -> Table:
  """What is sent or kept: one row a way, one column a number of devices."""
  value = lambda row, d: BYTES[part, row, d]["total"] / unit
  return Table(
    corner, {f"{d} device{'s' * (d > 1)}": d for d in devices},
    same(*dict.fromkeys(row for p, row, _ in BYTES if p == part)),
    lambda row, d: Cell(f"{value(row, d):,.{digits}f}", value(row, d) if d == 8 else None))


def start() -> Lines:
  """The picture of the first page: rare classes against batch size, plain and ours."""
  names = {
    "plain SGD with momentum": SGDM, "example scarcity, no class counts": OUTPUTS,
    "class weights, told the class counts": "class weights"}
  titles = {"mean recall over classes, %": "mean", "recall of the worst class, %": "worst"}
  mean = lambda arm, figure, b: float(percent(TASKS["LT100", b, arm], figure).mean())
  return {
    title: {
      label: [(float(b), mean(arm, figure, b)) for b in SIZES.values()]
      for label, arm in names.items()} for title, figure in titles.items()}


EX, GR, OP, RG, PAGE, SAFE, GG, COST, SCALE = (
  f"evidence/{page}.md"
  for page in (
    "example-scarcity", "group-scarcity", "optimizers", "real-groups", "paper", "safety",
    "group-gradients", "cost", "scale"))
POINTS, PART, PLAIN_STEP = "points, 95 % interval", "part of the way", "ratio to the plain step"
DRAWN = ("hidden, B=1024", "mnist hidden, B=1024", "rare classes")
ONE = {"reference": 1.0}


def exhibit(page: str, name: str, *tables: Table, tells: str = "", **plot: Any) -> Exhibit:
  """What a page shows under a name; drawn if the plot tells something."""
  return Exhibit(page, name, tables, tells, **plot)


show_tasks = lambda name, columns: exhibit(
  "evidence/all-tasks.md", name, on_tasks(f"{name}: mean, worst", columns, ARMS),
  tells=POINTS if name in DRAWN else "")
weighed = {k: v for k, v in ARMS.items() if "rho" not in k and k != SGDM and "dealt" not in k}
on_machine = lambda part, rows: Table(
  "ratio (quartiles)", {j: (p, j) for p, j, _ in CPU if p == part}, rows,
  functools.partial(timed, CPU, True))
ALL: list[Exhibit] = [
  *(show_tasks(name, columns) for name, columns in EVERY_TASK.items()),
  exhibit(
    "alternatives.md", "alternatives",
    on_tasks("B=1024", at(1024, "LT100", "hidden5", "hidden6"), weighed, gap_cell), tells=POINTS),
  exhibit(
    EX, "way", Table(PART, SIZES, same("JTT", POOLED, FEATURES), part_of_way), tells=PART,
    plot=plots.bars),
  exhibit(
    EX, "start", tells="batch size", plot=plots.lines, panels=start, options={"log_x": True}),
  exhibit(
    EX, "options",
    Table("changed option", {f"{t}, B=1024": (t, 1024) for t in OPTIONS}, CHANGES, option),
    tells=POINTS),
  exhibit(
    EX, "queue",
    *(
      Table("changed option", {f"{t}, B={b}": (t, b) for t in OPTIONS}, QUEUES, option)
      for b in (256, 1024)), tells=POINTS),
  exhibit(
    EX, "price",
    Table(
      "changed option",
      {"balanced, B=256": ("balanced", 256), "hidden tasks, B=1024: part of the way": None},
      PRICES, price)),
  exhibit(GR, "way", Table(PART, SIZES, WAYS, part_of_way), tells=PART, plot=plots.bars),
  exhibit(
    GR, "sensitivity",
    Table(
      "B=1024",
      {"LT100, outputs": ("LT100", GROUPS), "hidden5, features, pooled": ("hidden5", POOLED)},
      same(*VARIED), varied)),
  *(
    exhibit(GR, name, on_tasks("B=1024", at(1024, *tasks), rows, worst=""))
    for name, (tasks, rows) in TRIED.items()),
  exhibit(
    OP, "way",
    Table(
      f"{PART}: {', '.join(THREE)}", {o: (o, 1) for o in OPTIMIZERS}, same(EQUAL, *ON_KINDS),
      functools.partial(way, STRONG, THREE)), tells=PART, plot=plots.bars),
  *(exhibit(OP, task, strong_table(task, ON_KINDS)) for task in THREE[1:]),
  exhibit(
    OP, "six tasks",
    Table(
      f"{PART}, six tasks", {f"{o}, B={b}": (o, b) for b in (1024, 4096) for o in LONG},
      same(EQUAL, FEATURES, ORACLE), functools.partial(way, TEN, KINDS))),
  exhibit(
    OP, "LT100, ten seeds",
    against(
      TEN, lambda column: TEN[(*column[:2], "Muon", EQUAL)], "LT100",
      {f"{o}, B={b}": ("LT100", b, o) for o in ("SGDM", "Muon") for b in (1024, 4096)},
      same(EQUAL, "class weights", "logit adjustment", OUTPUTS, GROUPS), spread=False),
    tells=POINTS),
  exhibit(
    OP, "named in part",
    Table(
      "labels name", IN_PART,
      {
        SGDM: (SGDM, EQUAL), "Muon": ("Muon", EQUAL),
        **{short(arm): ("Muon", arm) for arm in ON_BOTH}}, in_part), tells=POINTS),
  exhibit(
    OP, "ideas",
    Table("difference to Muon", IDEAS, same(*KINDS, "mean over tasks"), on_muon), tells=POINTS),
  exhibit(
    OP, "longer", strong_table("LT100", ON_CLASSES, 4), strong_table("hidden7", ON_KINDS, 4)),
  *(
    exhibit(
      RG, f"{task}{' by class' * by_class}", group_table(PEOPLE, task, by_class),
      tells="" if by_class else POINTS)
    for task, by_class in (("adult", False), ("adult", True), ("celeba", False))),
  exhibit(
    "evidence/real-networks.md", "runs",
    against(
      DEEP, lambda column: DEEP[(*column, EQUAL)], "60 epochs: mean, worst class", ON_DEEP,
      DEEP_ROWS, spread=False, worst=".1f"),
    Table("15 epochs: validation by rate", ON_DEEP, DEEP_ROWS, deep_rate), tells=POINTS),
  exhibit(
    PAGE, "figure 6", Table("SGDM or Adam, K=1, K=B/64", PLACES, LINES, figure6),
    tells="K = B/64 against the first arm, points, 95 % interval"),
  exhibit(
    PAGE, "long tail",
    Table(
      "arm", {"mean over classes": "mean", "worst class": "worst", "learning rate": "rate"},
      same(*(arm for _, arm in TAIL)), long_tail), tells=POINTS),
  exhibit(
    SAFE, "poison", Table("lowest, end, back after", same(*POISONS), CHAINS, poison), tells="step",
    plot=plots.lines, panels=courses),
  exhibit(
    SAFE, "labels",
    *(
      Table("random labels", columns, {f"{100 * n:.0f} %": n for n in (0.0, 0.2, 0.4, 0.8)}, labels)
      for columns in (
        {f"won by {way}": (way, "won") for way in ("queue", "matched queue", "groups")}
        | {"queue: norm_ratio": ("queue", "norm_ratio")},
        {f"queue: {f}": ("queue", f) for f in ("cosine", "mean_weight", "agreement")}
        | {"groups: effective_examples": ("groups", "effective_examples")})), tells=POINTS),
  exhibit(
    SAFE, "dtype",
    Table(
      "queue",
      {
        "mean error of a weight": "0", "weights off by a tenth": "1", "accuracy": "accuracy",
        "against float32": "against"}, same("float32", "bfloat16", "float16"), dtype)),
  *(
    exhibit(
      "cost.md", part, timed_table(GPU, part, {"plain, ms": "plain", **TABLED[part]}),
      tells=PLAIN_STEP, options=ONE) for part in ("weights", "groups", "queue")),
  *(
    exhibit(COST, part, timed_table(GPU, part, TABLED[part], part != "compile"))
    for part in TABLED if part != "weights"),
  exhibit(
    COST, "weights on a CPU", on_machine("weights", CPU_WEIGHTS), tells="ratio to a plain gradient",
    options=ONE),
  exhibit(
    COST, "update on a CPU", on_machine("queue", UPDATES), tells="ratio to SGD", options=ONE),
  exhibit(
    GG, "time",
    Table("equal / skewed groups", NETWORKS, GROUP_WAYS, functools.partial(timed, CPU, False)),
    tells="ratio to a plain gradient", options={**ONE, "log": True}),
  exhibit(
    GG, "memory",
    Table("temporary memory, MiB", NETWORKS, {"plain": "plain", **GROUP_MEMORY}, memory)),
  exhibit(
    SCALE, "communication", bytes_table("sent", "KiB a step", 1024, 1, (1, 2, 4, 8)),
    tells="KiB a step, eight devices", plot=plots.bars),
  exhibit(
    SCALE, "plan",
    bytes_table("kept", "GiB of state, 1.01 billion parameters", 2**30, 2, (8, 32, 128))),
]
