"""Arrays of an `.npz`, whoever wrote it, in no more memory than the file explains.

NumPy's own reader allocates what a member's header asks for and lets a dozen exceptions out of
damaged archives. Here a member must be as long as its header says before anything is allocated.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from corrkd_jax.data.file_kinds import NPZ, check_kind
from corrkd_jax.errors import InputError, reason

DEFLATE_RATIO = 1032
"""Largest factor by which deflate packs."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_ENCRYPTED = 1


def read_arrays(
    path: str | Path, mapped: Callable[[str], bool] = lambda name: False
) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`: booleans, numbers and strings.

    Args:
        path: the file.
        mapped: whether a member, by its name, is mapped from disk rather than loaded, where it is
            stored uncompressed. A mapped array is read-only, and is not compared with its checksum.

    Returns:
        Name -> array.

    Raises:
        InputError: the file is missing, of another kind, encrypted, packed by other means than
            deflate, damaged, or holds Python objects, records or members of one name.
    """
    path = Path(path)
    check_kind(path, "an .npz", NPZ.key)
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = [x for x in archive.infolist() if x.filename.endswith(".npy")]
            if sum(x.compress_size for x in members) > path.stat().st_size:
                raise ValueError("its members overlap")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"{name}: there are two members of this name")
                _check(member)
                stored = member.compress_type == zipfile.ZIP_STORED
                array = _map(path, file, member) if stored and mapped(name) else None
                arrays[name] = _load(archive, member) if array is None else array
    except Exception as error:
        # damaged archives make zipfile and NumPy raise nearly any exception
        raise InputError(
            f"{path}: not a whole .npz file of plain arrays ({reason(error)})"
        ) from error
    return arrays


def check_values(array: np.ndarray, name: str) -> None:
    """Refuse bytes that NumPy never writes: a boolean beyond 1, a letter beyond Unicode.

    NumPy takes them as they are, and the first to ask for their value fails or is misled.

    Args:
        array: as read from a file.
        name: for the message.

    Raises:
        ValueError: there is such a value.
    """
    if not array.size or array.dtype.kind not in "bU":
        return
    kind = np.uint8 if array.dtype == bool else np.dtype("u4").newbyteorder(array.dtype.byteorder)
    if np.ravel(array, "K").view(kind).max() > (1 if array.dtype == bool else 0x10FFFF):
        raise ValueError(f"{name}: holds values that are no {array.dtype}")


def check_empty(shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse the shape of an array without elements for which a reader might allocate many.

    Args:
        shape: of the array.
        itemsize: bytes of an element.

    Raises:
        ValueError: an axis is negative, or beside one of size 0 the others make more than 64 MiB.
    """
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} is not possible")
    if 0 in shape and math.prod(max(size, 1) for size in shape) * itemsize > 2**26:
        raise ValueError(f"shape {shape} is too large for an array without elements")


def _check(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{member.filename}: is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename}: is packed by other means than deflate")
    if member.file_size > DEFLATE_RATIO * member.compress_size:
        raise ValueError(f"{member.filename}: cannot be as long as it says")


def _header(stream: BinaryIO, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of a member, which is as long as they say."""
    start = stream.tell()
    read = _HEADERS.get(np.lib.format.read_magic(stream))
    if read is None:
        raise ValueError(f"{member.filename}: its format is not that of plain arrays")
    shape, fortran, dtype = read(stream)
    if dtype.kind not in "biufcSU":
        raise ValueError(f"{member.filename}: holds {dtype}, neither numbers nor strings")
    check_empty(shape, dtype.itemsize)
    if stream.tell() - start + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename}: is not as long as its shape {shape} says")
    return shape, fortran, dtype


def _map(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray | None:
    """A read-only memory map; None for an array without bytes, which cannot be mapped."""
    # The local header has name and extra fields of its own lengths, at bytes 26 to 29.
    file.seek(member.header_offset + 26)
    skip = np.frombuffer(file.read(4), "<u2").sum()
    file.seek(member.header_offset + 30 + int(skip))
    shape, fortran, dtype = _header(file, member)
    if 0 in shape or not dtype.itemsize:
        return None
    return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _load(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The array in memory, compared with the checksum of its member."""
    with archive.open(member) as stream:
        _header(stream, member)
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    check_values(array, member.filename)
    return array
