"""Arrays of an `.npz`: what is read, and one line for every way in which one can be wrong."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.weights import read_weights
from corrkd_jax.errors import InputError
from tests.data import files

ARRAYS = {
    "a": np.arange(6, dtype=">f4").reshape(2, 3),
    "b/c": np.array([True, False]),
    "text": np.array(["añ", "b"]),
    "none": np.zeros((0, 4), np.int64),
    "one": np.array(2.5),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "bytes": np.array([b"ab", b"c"]),
}


def _member(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """A member whose header is a text, without data."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


def _archive(path: Path, *members: tuple[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path: Path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    found = read_arrays(tmp_path / "x.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable


def test_members_are_mapped_on_request(tmp_path: Path):
    np.savez(tmp_path / "x.npz", **ARRAYS)
    found = read_arrays(tmp_path / "x.npz", lambda name: name != "text")
    assert {name for name, x in found.items() if isinstance(x, np.memmap)} == {
        *("a", "b/c", "one", "fortran", "bytes")
    }
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    np.savez_compressed(tmp_path / "x.npz", **ARRAYS)
    found = read_arrays(tmp_path / "x.npz", lambda name: True)
    assert not any(isinstance(x, np.memmap) for x in found.values())


def _encrypted(path: Path) -> None:
    np.savez(path, a=np.arange(3))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def _later_version(path: Path) -> None:
    np.savez(path, a=np.arange(3))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)


def _other_value(path: Path) -> None:
    np.savez(path, a=np.arange(3))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") - 1] ^= 1
    path.write_bytes(data)


def _same_place(path: Path) -> None:
    """Both members of the directory lead to the first, as in bombs of overlapping members."""
    np.savez(path, a=np.arange(300), b=np.arange(300))
    data = path.read_bytes()
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[16:20] = struct.pack("<I", data.index(b"PK\x03\x04", 4))
    second_entry = bytearray(data[second:end])
    second_entry[42:46] = bytes(4)
    body = data[: data.index(b"PK\x03\x04", 4)]
    path.write_bytes(body + data[first:second] + bytes(second_entry) + bytes(tail))


def _of(*members: tuple[str, bytes], packed: int = zipfile.ZIP_STORED):
    return lambda path: _archive(path, *members, packed=packed)


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
EMPTY = HUGE.replace("(1000000", "(0, 1000000")
BAD = {
    # the three that came out as tracebacks
    "a header of half a token": (_of(("a.npy", _header("{'descr': '<f8', (\n"))), "a whole"),
    "a version of zip": (_later_version, "NotImplementedError"),
    "an encrypted member": (_encrypted, "a.npy: is encrypted"),
    "a header of another size": (_of(("a.npy", _header(HUGE))), "not as long as its shape"),
    "the same, packed": (_of(("a.npy", _header(HUGE)), packed=8), "not as long as its shape"),
    "an empty array of many": (_of(("a.npy", _header(EMPTY))), "too large for an array without"),
    "a negative shape": (_of(("a.npy", _header(EMPTY.replace("(0, ", "(-1, ")))), "not possible"),
    "a member of zeros": (
        _of(("a.npy", _header(HUGE) + bytes(10**6)), packed=zipfile.ZIP_DEFLATED),
        "not as long as its shape",
    ),
    "packed by bzip2": (_of(("a.npy", _member(np.zeros(9))), packed=zipfile.ZIP_BZIP2), "deflate"),
    "a bit that is another": (_other_value, "Bad CRC-32"),
    "members that overlap": (_same_place, "verlap"),
    "two of one name": (_of(("a.npy", _member(np.ones(1))), ("a.npy", b"")), "two members of this"),
    "objects": (_of(("a.npy", _header(HUGE.replace("<f8", "|O")))), "holds object, neither"),
    "records": (_of(("a.npy", _member(np.zeros(2, [("x", "f4")])))), "neither numbers nor strings"),
    "a version of arrays": (_of(("a.npy", _header(HUGE, b"\x09\x00"))), "format is not that"),
    "a boolean of 2": (
        _of(("a.npy", _member(np.array([2], np.uint8)).replace(b"|u1", b"|b1"))),
        "holds values that are no bool",
    ),
    "a letter beyond Unicode": (
        _of(("a.npy", _member(np.array([2**31], np.uint32)).replace(b"<u4", b"<U1"))),
        "holds values that are no <U1",
    ),
    "a name of two lines": (_of(("a\nb.npy", b"x")), "whole"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", BAD)
def test_one_line_for_what_is_wrong(tmp_path: Path, name: str):
    write, said = BAD[name]
    path = tmp_path / "x.npz"
    write(path)
    tracemalloc.start()
    try:
        for read in (read_arrays, read_weights, msa.read):
            with pytest.raises(InputError, match=rf"^[^\n]*x\.npz: not .*{said}[^\n]*$"):
                read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24


def test_a_checked_field_of_ones_own_file_has_a_checksum(tmp_path: Path):
    """Features are mapped and trusted; ids, masks and labels are compared with their checksums."""
    source = files.save(tmp_path / "x.pkl", files.mmsa_aligned())
    path = tmp_path / "x.npz"
    msa.write_npz(msa.read(source), path)
    whole = path.read_bytes()
    for member in ("train/text_valid", "train/ids", "train/scores", "tasks"):
        data = bytearray(whole)
        with zipfile.ZipFile(path) as archive:
            at = archive.getinfo(f"{member}.npy").header_offset
        data[at + 30 + len(member) + 4 + 20 + 128] ^= 1
        (tmp_path / "y.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"y\.npz: not a whole .*Bad CRC-32"):
            msa.read(tmp_path / "y.npz")


@pytest.mark.parametrize("value", [1e300, -1e39, float("inf")])
def test_a_score_that_is_finite_in_the_file_alone(tmp_path: Path, value: float):
    """Scores become float32; what is beyond it would be infinite without a word."""
    content = files.mmsa_aligned()
    content["train"]["regression_labels"][0] = value
    with pytest.raises(InputError, match="train: regression_labels: 1 labels are not finite"):
        msa.read(files.save(tmp_path / "x.pkl", content))


@pytest.mark.parametrize("value", [0.5, -1, 3e9])
def test_a_class_that_is_no_number_of_a_class(tmp_path: Path, value: float):
    content = files.mmsa_aligned()
    path = tmp_path / "x.npz"
    msa.write_npz(msa.read(files.save(tmp_path / "x.pkl", content)), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["train/classes"] = arrays["train/classes"].astype(float)
    np.savez(path, **arrays)
    assert msa.read(path).train.classes.dtype == np.int32
    arrays["train/classes"].flat[0] = value
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"train: class.*must be whole numbers from 0"):
        msa.read(path)
