"""Arrays of MATLAB's files: what SciPy wrote comes back, and damage is told in one line."""

import struct
from pathlib import Path

import numpy as np
import pytest
from scipy import io

from corrkd_jax.data.matlab import read_matlab
from corrkd_jax.errors import InputError

ARRAYS = {
    "X": np.random.default_rng(0).integers(0, 256, (5, 4, 3, 7), dtype=np.uint8),
    "y": np.arange(1.0, 8.0)[:, None],
    "z": np.array([[-3, 70_000]], np.int32),
    "f": np.float32([[1.5, -2.5, 0.25]]),
    "none": np.zeros((0, 3)),
}


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_writes(tmp_path: Path, packed: bool):
    others = {"cell": np.array(["a", 1], object), "text": "abc", "complex": np.ones((1, 2)) * 1j}
    path = tmp_path / "x.mat"
    io.savemat(path, {**others, **ARRAYS}, do_compression=packed)
    found = read_matlab(path, (*ARRAYS, "absent"))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(io.loadmat(path)[name], found[name])
    for name in others:
        with pytest.raises(InputError, match=rf"x\.mat: not a whole .*{name}: is no array of real"):
            read_matlab(path, (name,))


@pytest.mark.parametrize("packed", [False, True])
def test_cut_off(tmp_path: Path, packed: bool):
    path = tmp_path / "x.mat"
    io.savemat(path, {"X": ARRAYS["X"]}, do_compression=packed)
    whole = path.read_bytes()
    for end in (20, 128, 131, 140, 160, 200, len(whole) - 9):
        path.write_bytes(whole[:end])
        if end == 128:
            assert read_matlab(path, ("X",)) == {}  # a file without a variable
            continue
        with pytest.raises(InputError, match=r"^[^\n]*x\.mat: not a whole \.mat file of version 5"):
            read_matlab(path, ("X",))


def test_an_array_that_is_larger_than_the_file(tmp_path: Path):
    path = tmp_path / "x.mat"
    io.savemat(path, {"X": ARRAYS["X"]})
    data = bytearray(path.read_bytes())
    for at, said in ((132, "announced at byte"), (188, "a part of 4,000,000,000 bytes")):
        changed = bytearray(data)
        changed[at : at + 4] = struct.pack("<I", 4_000_000_000)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=said):
            read_matlab(path, ("X",))
    changed = bytearray(data)
    changed[160:164] = struct.pack("<i", 10**9)
    path.write_bytes(changed)
    with pytest.raises(InputError, match="X: 420 values for the shape"):
        read_matlab(path, ("X",))
