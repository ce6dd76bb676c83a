# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""What people have is read as it is, and what is wrong with it is one clear line."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gq_optax.trial import kinds, rows, sight, splits


def write(tmp_path, text, name="parts.csv"):
  (tmp_path / name).write_text(text)
  return tmp_path / name


TABLE = "size,colour,day,defect\n1,red,mon,yes\n2,blue,tue,no\n3,red,mon,no\n4,green,tue,yes\n"


def test_a_table_with_categories_and_labels_in_words(tmp_path):
  found = rows.read(write(tmp_path, TABLE), "defect", kind="day")
  assert found.classes == ["no", "yes"]
  assert found.labels.tolist() == [1, 0, 0, 1]
  assert found.columns == ["size", "colour=blue", "colour=green", "colour=red"]
  np.testing.assert_array_equal(found.x[0], [1, 0, 0, 1])
  assert found.kinds.tolist() == ["mon", "tue", "mon", "tue"]
  new = pd.DataFrame({"colour": ["blue", "unknown"], "size": [7, 8]})
  x, _ = rows.encode(new, found.encoding["categories"])
  np.testing.assert_array_equal(x, [[7, 1, 0, 0], [8, 0, 0, 0]])


def test_other_separators_and_columns_left_out(tmp_path):
  path = write(tmp_path, TABLE.replace(",", ";"))
  found = rows.read(path, "defect", group="day", leave_out=("colour",))
  assert found.columns == ["size"]
  assert found.groups.tolist() == ["mon", "tue", "mon", "tue"]


@pytest.mark.parametrize(
  ("text", "label", "message"),
  [
    (TABLE, None, r"label must name the column .*--label COLUMN, one of size, colour, day, defect"),
    (TABLE, "defekt", "label must be one of size, colour, day, defect, but 'defekt' was found"),
    ("a,y\n1,0\n,1\n", "y", r"column 'a' must have no gaps, but 1 .* row 1 \(line 3\).*fillna"),
    ("a,y\n1,0\n2,\n", "y", r"column 'y' must have no gaps"),
    ("a,y\n2024-01-02,0\n2024-01-03,1\n", "y", r"column 'a' .*dates were found.*--leave-out a"),
    ("a,y\n1,0.5\n2,0.25\n", "y", r"must name classes, but numbers such as 0.5 .*np.digitize"),
    ("a,y\n1,x\n2,x\n", "y", "must hold more than one class, but only x was found"),
    (
      "a,y\n1,x;z\n2,x\n3,z\n4,z;x\n",
      "y",
      r"one label a row, but several .*'x;z'.* a trial for each",
    ),
    ("a,y\n" + "".join(f"{i},id{i}\n" for i in range(60)), "y", "60 values were found in 60 rows"),
    ("a,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(200)), "y", "at most 100 categories"),
    ("y\n1\n2\n", "y", "must have a column beside the label"),
    ("a,y\n", "y", "must hold rows"),
  ],
)
def test_a_bad_table_is_one_clear_line(tmp_path, text, label, message):
  with pytest.raises(ValueError, match=message):
    rows.read(write(tmp_path, text), label)


def test_a_folder_of_images(tmp_path):
  for name, size in (("ok/1.png", (8, 6)), ("ok/2.png", (8, 6)), ("fault/x.png", (5, 6))):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("L", size, 7).save(tmp_path / name)
  found = rows.read(tmp_path, None)
  assert found.classes == ["fault", "ok"]
  assert found.names == ["fault/x.png", "ok/1.png", "ok/2.png"]
  assert found.x.shape == (3, 6, 8)
  assert found.x.dtype == np.uint8
  assert found.notes == ["All images were brought to 8 x 6 pixels."]
  with pytest.raises(ValueError, match="one folder of images for each class, but 0 folders with 0"):
    rows.read(tmp_path / "ok", None)
  with pytest.raises(FileNotFoundError, match="nothing was found at"):
    rows.read(tmp_path / "other", None)


def npz(tmp_path, **arrays):
  x = np.arange(40.0).reshape(20, 2)
  y = np.array(["ok", "bad"])[np.arange(20) % 2]
  np.savez(tmp_path / "a.npz", **({"x_train": x, "y_train": y} | arrays))
  return tmp_path / "a.npz"


def test_arrays(tmp_path):
  path = npz(tmp_path, x_test=np.ones((4, 2)), y_test=np.array(["ok", "bad"] * 2))
  found = rows.read(path, None)
  assert found.classes == ["bad", "ok"]
  assert found.test.sum() == 4
  assert found.names[-1] == "test 3"


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"y_train": np.eye(20)[:, :2]}, r"One-hot|several labels"),
    (
      {"y_train": np.ones((20, 3))},
      "Rows with several labels are no classes: make a trial for each",
    ),
    ({"y_train": np.array([None] * 20)}, "Python objects were found"),
    ({"x_train": np.full((20, 2), np.nan)}, "first in row 0, column 0"),
    ({"other": np.ones(3)}, "no other arrays than .* other was found"),
    ({"x_test": np.ones((4, 3)), "y_test": np.array(["ok"] * 4)}, "x_test must be like x_train"),
  ],
)
def test_bad_arrays_are_one_clear_line(tmp_path, arrays, message):
  with pytest.raises(ValueError, match=message):
    rows.read(npz(tmp_path, **arrays), None)


def test_a_series_is_seen():
  rng, time = np.random.default_rng(0), np.arange(32)
  table = rng.normal(size=(200, 32))
  series = np.sin(time / rng.uniform(2, 4, (200, 1))) + 0.2 * table
  make = lambda x: rows.Rows(x, np.zeros(200, int), ["a"], [], [f"c{i}" for i in range(32)])
  assert rows.looks_like_series(make(series))
  assert not rows.looks_like_series(make(table))
  assert not rows.looks_like_series(make(table + 3 * rng.normal(size=(200, 1))))  # all alike


def test_copies_and_groups_stay_in_one_fold():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 40, (400, 1)).astype(np.float32)
  labels, groups = np.arange(400) % 2, np.arange(400) // 2
  clusters = splits.together(x, None)
  found, folds = splits.deal(labels, clusters, None)
  assert all(len(set(folds[x[:, 0] == v])) == 1 for v in np.unique(x))
  for split in found:
    assert not set(clusters[split.inner]) & set(clusters[split.validation])
    assert not set(split.train) & set(split.test)
  _, folds = splits.deal(labels, splits.together(np.arange(400.0)[:, None], groups), None)
  assert (folds[::2] == folds[1::2]).all()
  tied = splits.together(x, groups)  # copies tie groups together
  assert len(set(tied)) < 20
  with pytest.raises(ValueError, match="must be at least 5, so that folds can be dealt, but 1 was"):
    splits.deal(labels, np.zeros(400, int), None)


def test_every_row_is_tested_once_and_never_chooses_its_rate():
  labels = np.repeat([0, 1], [90, 10])
  found, folds = splits.deal(labels, np.arange(100), None)
  assert np.concatenate([s.test for s in found]).tolist() != []
  assert sorted(np.concatenate([s.test for s in found])) == list(range(100))
  for fold, split in enumerate(found):
    assert (folds[split.test] == fold).all()
    assert sorted([*split.inner, *split.validation]) == split.train.tolist()
    assert 2 <= labels[split.test].sum() <= 3
  test = np.arange(100) >= 80
  found, folds = splits.deal(labels, np.arange(100), test)
  assert found[-1].test.tolist() == list(range(80, 100))
  assert found[-1].train.tolist() == list(range(80))
  assert (folds[80:] == -1).all()


def seen(counts, seeds=5):
  labels = np.repeat(np.arange(len(counts)), counts)
  own = rows.Rows(
    np.zeros((len(labels), 1)), labels, ["ok", "defect", "dent"][: len(counts)], [], []
  )
  return sight.look(own, np.arange(len(labels)), seeds, 10)


def test_what_can_be_seen():
  assert "Balanced, 1.1 : 1: nothing is rare by label." in seen([110, 100]).says
  found = seen([400, 40])
  assert "rarest class is defect: about 30 rows to train on, 40 tested" in found.says[1]
  assert "could show a difference of about" in found.says[2]
  assert found.missing == []
  few = seen([400, 3], seeds=2).missing
  assert few[0] == "3 of defect are tested, and a verdict needs at least 10 rows of a class"
  assert few[1].startswith("2 seeds say too little")
  assert seen([400, 300, 3]).missing == []  # two classes allow a verdict


def test_names_are_read_for_the_rows_that_they_are_of(tmp_path):
  frame = pd.DataFrame({
    "row": ["3", "0", "1", "2"],
    "label": ["fault"] * 3 + ["ok"],
    "kind": [" dropout", "", "", ""],
  })  # fmt: skip
  path, labels = tmp_path / "rows.csv", ["fault", "fault", "ok", "fault"]
  frame.to_csv(path, index=False)
  assert kinds.read(path, ["0", "1", "2", "3"], labels).tolist() == ["", "", "", "dropout"]
  with pytest.raises(ValueError, match="same rows, train 0 to train 1, but 4 .* without --kinds"):
    kinds.read(path, ["train 0", "train 1"], labels[:2])
  with pytest.raises(ValueError, match="row 2 is 'ok' in it and 'fault' in the data"):
    kinds.read(path, ["0", "1", "2", "3"], ["fault"] * 4)
  frame.assign(kind="").to_csv(path, index=False)
  with pytest.raises(ValueError, match="it is empty"):
    kinds.read(path, ["0", "1", "2", "3"], labels)
  frame[:0].to_csv(path, index=False)
  with pytest.raises(ValueError, match="same rows, 0 to 3, but 0 rows were found"):
    kinds.read(path, ["0", "1", "2", "3"], labels)


def hidden(named=32):
  """A kind among faults, named in most that are trained on; a fifth of the rows is tested alone."""
  rng = np.random.default_rng(0)
  words = np.repeat(["fault", "ok"], 300)
  alike = np.arange(600) % 6 == 0
  true = alike & (words == "fault")
  features = rng.normal(size=(600, 30)) + 4 * alike[:, None] * (np.arange(30) < 3)
  folds = np.where(np.arange(600) % 5 == 4, -1, np.arange(600) // 5 % 4)
  told = np.where(true & (folds >= 0), "dropout", "")
  told[np.flatnonzero(told != "")[named:]] = ""
  return told, words, features, folds, true


def test_rows_that_nobody_named_get_the_kind_that_they_resemble():
  told, words, features, folds, true = hidden()
  found = kinds.spread(told, words, features, folds)
  assert (found.unseen == (told == "")).all()
  of_kind = found.kinds == "dropout"
  assert of_kind[true & found.unseen].mean() > 0.9
  assert true[of_kind].mean() > 0.8
  assert (found.kinds[words == "ok"] == "ok").all()
  assert of_kind[folds < 0].any()
  more = int((of_kind & found.unseen).sum())
  assert found.notes == [
    f"32 rows are named dropout of fault; {more} more resemble them. A model that did not see them"
    " recognises 32 of the 32."
  ]


def test_a_kind_of_few_rows_stays_with_them():
  told, words, features, folds, _ = hidden(named=4)
  found = kinds.spread(told, words, features, np.maximum(folds, 0))
  assert ((found.kinds == "dropout") == (told == "dropout")).all()
  assert "they are too few, or too much like the rest of fault" in found.notes[0]
  assert "Keep rows apart as x_test" in found.notes[1]


def test_a_kind_that_features_do_not_tell_stays_with_its_rows():
  told, words, _, folds, _ = hidden()
  more = []
  for seed in range(20):
    features = np.random.default_rng(seed).normal(size=(600, 30))
    more.append((kinds.spread(told, words, features, folds).kinds == "dropout").sum() > 32)
  assert np.sum(more) <= 3
