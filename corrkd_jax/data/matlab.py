"""Arrays of MATLAB's files of version 5.

SciPy reads more of the format, and ends the process on damaged files. Arrays of plain numbers take
four elements each: flags, sides, a name and values (MathWorks, "MAT-File Format", 2019).
"""

import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from corrkd_jax.data.arrays import DEFLATE_RATIO
from corrkd_jax.data.file_kinds import MATLAB, check_kind
from corrkd_jax.errors import InputError, reason

_FILE_HEADER = 128
_TAG = 8
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_STORED = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
"""Type of an element -> NumPy's code; MATLAB stores values in the smallest type that holds them."""
_CLASSES = {6: "d", 7: "f", 8: "b", 9: "B", 10: "h", 11: "H", 12: "i", 13: "I", 14: "q", 15: "Q"}
"""Class of an array of numbers -> NumPy's code."""


def read_matlab(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of real numbers, by the names of their variables.

    Args:
        path: the file.
        names: of the variables; others are passed over.

    Returns:
        Name -> array, in the file's order of axes, of those that are there.

    Raises:
        InputError: the file is missing, of another kind or version, or damaged, or one of these
            variables is no array of real numbers.
    """
    key = check_kind(path, "a .mat of version 5", MATLAB.key)
    try:
        if key != MATLAB.key:
            raise ValueError("it does not begin as one")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return dict(_variables(data, names))
    except Exception as error:
        # damaged files lead struct, zlib and NumPy to nearly any exception
        raise InputError(f"{path}: not a whole .mat file of version 5 ({reason(error)})") from error


def _variables(data: mmap.mmap, names: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}[data[_FILE_HEADER - 4 : _FILE_HEADER]]
    at = _FILE_HEADER
    while at < len(data):
        kind, size = struct.unpack(f"{order}II", data[at : at + _TAG])
        at += _TAG
        if size > len(data) - at:
            raise ValueError(
                f"{size:,} bytes are announced at byte {at}; {len(data) - at:,} follow"
            )
        body = data[at : at + size]
        at += size
        if kind == _COMPRESSED:
            kind, body = _unpacked(body, order)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} is no variable")
        parts = _elements(body, order)
        (_, flags), (_, sides), (_, name) = next(parts), next(parts), next(parts)
        if name.decode("latin1") in names:
            yield name.decode("latin1"), _array(name, flags, sides, next(parts), order)


def _unpacked(body: bytes, order: str) -> tuple[int, bytes]:
    """Type and content of a compressed element."""
    packer = zlib.decompressobj()
    kind, size = struct.unpack(f"{order}II", packer.decompress(body, _TAG))
    if size > DEFLATE_RATIO * len(body):
        raise ValueError(f"{len(body):,} bytes cannot be unpacked to {size:,}")
    content = packer.decompress(packer.unconsumed_tail, size)
    if len(content) < size:
        raise ValueError("a compressed array is cut off")
    return kind, content


def _elements(body: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each element of an array."""
    at = 0
    while at < len(body):
        kind, size = struct.unpack_from(f"{order}II", body, at)
        at += _TAG
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, body[at - 4 : at][:size]
            continue
        if size > len(body) - at:
            raise ValueError(f"a part of {size:,} bytes is announced; {len(body) - at:,} follow")
        yield kind, body[at : at + size]
        at += -(-size // 8) * 8


def _array(
    name: bytes, flags: bytes, sides: bytes, values: tuple[int, bytes], order: str
) -> np.ndarray:
    (word,) = struct.unpack_from(f"{order}I", flags)
    kind, content = values
    if word & 0xFF not in _CLASSES or word & _COMPLEX or kind not in _STORED:
        raise ValueError(f"{name.decode('latin1')}: is no array of real numbers")
    shape = np.frombuffer(sides, f"{order}i4").tolist()
    stored = np.frombuffer(content, f"{order}{_STORED[kind]}")
    if min(shape, default=0) < 0 or math.prod(shape) != len(stored):
        raise ValueError(f"{name.decode('latin1')}: {len(stored)} values for the shape {shape}")
    return stored.astype(_CLASSES[word & 0xFF], copy=False).reshape(shape, order="F")
