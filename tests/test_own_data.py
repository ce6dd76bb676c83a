# Copyright 2026 The gq_optax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's own arrays: what is taken, and what is said when something is wrong."""

import numpy as np
import pytest

from gq_optax.trial import own_data


def own(**changes):
  x = np.arange(24, dtype=np.float64).reshape(8, 3)
  arrays = {"x_train": x, "y_train": np.arange(8) % 2, "x_test": x[:4], "y_test": np.arange(4) % 2}
  return {key: value for key, value in (arrays | changes).items() if value is not None}


def test_own_arrays(tmp_path):
  np.savez(tmp_path / "own.npz", **own())
  found = own_data.load_npz(tmp_path / "own.npz")
  assert found.x_train.dtype == found.x_test.dtype == np.float32
  assert found.y_train.dtype == found.y_test.dtype == np.int64
  assert found.x_validation is found.kinds_test is None
  for name, value in own().items():
    np.testing.assert_array_equal(getattr(found, name), value)
  images = np.arange(48, dtype=np.uint8).reshape(8, 3, 2)
  np.savez(tmp_path / "images.npz", **own(x_train=images, x_test=images))
  with pytest.raises(ValueError, match=r"y_test must have shape \(8,\)"):
    own_data.load_npz(tmp_path / "images.npz")


def test_what_may_be_left_out_and_what_may_be_added(tmp_path):
  np.savez(tmp_path / "own.npz", **own(x_test=None, y_test=None))
  found = own_data.load_npz(str(tmp_path / "own.npz"))
  assert found.x_test is found.y_test is found.x_validation is found.kinds_train is None
  names = np.array(["scratch", "dent"])
  more = {"x_validation": np.ones((2, 3)), "y_validation": np.arange(2)}
  kinds = {"kinds_train": names[np.arange(8) % 2], "kinds_test": names[[0, 0, 1, 1]]}
  np.savez(tmp_path / "own.npz", **own(**more, **kinds, kinds_validation=names))
  found = own_data.load_npz(tmp_path / "own.npz")
  assert found.x_validation.dtype == np.float32
  assert found.kinds_test.tolist() == ["scratch", "scratch", "dent", "dent"]
  np.savez(tmp_path / "own.npz", **own(kinds_test=np.arange(4)))
  assert own_data.load_npz(tmp_path / "own.npz").kinds_test.tolist() == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"x_train": None}, r"must hold x_train, but y_train, x_test, y_test was found"),
    ({"y_test": None}, "x_test and y_test or neither, but only x_test was found"),
    (
      {"x_train": np.ones(8)},
      r"x_train must have shape \[n, \.\.\.\].*\(8,\) was found\. With .*:, None",
    ),
    ({"x_train": np.ones((0, 3)), "y_train": np.ones(0, int)}, r"x_train .*\(0, 3\) was found"),
    ({"x_train": np.full((8, 3), "a")}, "x_train must be real numbers, but <U1"),
    ({"x_train": np.ones((8, 3), complex)}, "x_train must be real numbers, but complex128"),
    ({"x_train": np.full((8, 3), None)}, r"be numbers, but Python objects .* Take x.astype"),
    ({"y_train": np.full(8, None)}, r"be integers, but Python objects .* np.unique"),
    ({"kinds_test": np.full(4, None)}, r"or strings, but Python objects .* kinds.astype\(str\)"),
    ({"x_train": np.full((8, 3), np.nan)}, "x_train must be finite .* 24 values"),
    ({"x_train": np.full((8, 3), 1e300)}, "x_train must be finite in float32"),
    (
      {"x_train": np.where(np.arange(24).reshape(8, 3) == 16, np.nan, 0.0)},
      "but 1 value is not, first in row 5, column 1. Fill or leave out",
    ),
    ({"y_train": np.eye(8, dtype=int)}, r"One-hot rows become classes by y_train.argmax\(1\)"),
    ({"x_test": np.full((4, 3), np.inf)}, "x_test must be finite"),
    ({"y_train": np.zeros((8, 1), int)}, r"y_train must have shape \(8,\) .*\(8, 1\) was found"),
    ({"y_train": np.zeros(7, int)}, r"y_train must have shape \(8,\) .*\(7,\) was found"),
    ({"y_train": np.arange(8) % 2.0}, "y_train must be integers, but float64 was found; classes, "),
    ({"y_train": np.arange(8) % 2 > 0}, "y_train must be integers, but bool was .* return_inverse"),
    ({"y_train": np.full(8, "a")}, "y_train must be integers, but <U1 was found; .* np.unique"),
    ({"y_train": np.arange(8) / 3}, r"that are none .* np.digitize\(y_train, \[low, high\]\)"),
    ({"y_train": np.arange(8) - 1}, "y_train must be at least 0, but -1 was found; .* np.unique"),
    ({"y_train": np.zeros(8, int)}, "y_train must hold more than one class, but only 0"),
    ({"y_train": np.arange(8) % 2 + 1}, "every class from 0 to its largest, 2, but 2 classes"),
    ({"x_test": np.ones((4, 2))}, r"x_test must be like x_train, float32 .*\(4, 2\) was found"),
    ({"x_test": np.ones((4, 3), np.uint8)}, "x_test must be like x_train, .* uint8"),
    ({"y_test": np.full(4, 2)}, "y_test must hold classes of y_train only, but 2"),
    ({"x_validation": np.ones((2, 3))}, "x_validation and y_validation or neither, but only x_v"),
    ({"weights": np.ones(8)}, "must hold no other arrays than x_train, .*, but weights was found"),
    ({"kinds_train": np.arange(8)}, "kinds_train and kinds_test, or for the test split alone, but"),
    ({"kinds_validation": np.arange(2)}, "kinds_validation must come with x_validation"),
    ({"kinds_test": np.arange(3)}, r"kinds_test must be integers or strings of shape \(4,\)"),
    ({"kinds_test": np.ones(4)}, r"kinds_test must be integers or strings .* float64 of shape"),
  ],
)
def test_bad_arrays_are_told_in_one_line(tmp_path, changes, message):
  np.savez(tmp_path / "own.npz", **own(**changes))
  with pytest.raises(ValueError, match=message) as caught:
    own_data.load_npz(tmp_path / "own.npz")
  assert "\n" not in str(caught.value)


def test_bad_files_are_told_in_one_line(tmp_path):
  with pytest.raises(FileNotFoundError, match="path must be an .npz file, but nothing was found"):
    own_data.load_npz(tmp_path / "none.npz")
  np.save(tmp_path / "one.npy", np.ones(3))
  with pytest.raises(ValueError, match="but a single array was found"):
    own_data.load_npz(tmp_path / "one.npy")
  for content in (b"", b"not an archive", b"PK\x03\x04 cut off"):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match="NumPy cannot read it"):
      own_data.load_npz(tmp_path / "bad.npz")
  np.savez(tmp_path / "cut.npz", **own())
  content = bytearray((tmp_path / "cut.npz").read_bytes())
  place = content.index(np.float64(23).tobytes())
  content[place : place + 4] = b"oops"
  (tmp_path / "cut.npz").write_bytes(content)
  with pytest.raises(ValueError, match=r"x_train in .*cut\.npz must be readable"):
    own_data.load_npz(tmp_path / "cut.npz")
