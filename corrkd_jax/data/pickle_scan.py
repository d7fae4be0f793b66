"""What a pickle asks for, read off its opcodes before any of them is obeyed.

Python's unpickler allocates first and reads later: nine bytes may name a frame of an exabyte, and
five a place in the memo for which it makes 13 GB of room.
"""

import mmap
import pickle
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

# Opcodes that ask for nothing beyond themselves, with their arguments, as many as follow each other
_PLAIN = re.compile(
    rb"(?:[(012NQRabd}elo\]s)u\x81\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98]++"
    rb"|[Kqh\x80\x82].|[M\x83]..|[Jj\x84].{4}|G.{8}"
    rb"|[FILSVPg][^\n]*+\n|[ci][^\n]*+\n[^\n]*+\n)*+",
    re.DOTALL,
)
_TUPLES = frozenset(b"t\x85\x86\x87")
_FRAME, _LONG_PUT, _PUT, _STOP, _LONG4 = b"\x95rp.\x8b"
# opcode -> bytes of the length that its argument begins with
_SIZED = {
    **dict.fromkeys(b"UC\x8a\x8c", 1),
    **dict.fromkeys(b"TBX\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x95\x96", 8),
}
_LONGEST_NUMBER = 255
_SAFE_TUPLES = 20_000
_BYTES_A_TUPLE = 256


def scan(path: Path) -> int:
    """Refuse a pickle whose opcodes ask for more than its bytes explain.

    Args:
        path: a pickle of protocol 0 to 5, not empty.

    Returns:
        Number of its tuples.

    Raises:
        OSError: the file cannot be read.
        pickle.UnpicklingError: a length exceeds what is left of the file, a place in the memo
            exceeds the bytes before it, a number has more than 255 bytes, an opcode is unknown, or
            the file ends before the pickle does.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return scan_at(data, 0)[0]


def mentions(path: Path, text: bytes) -> bool:
    """Whether some bytes occur in a file.

    Args:
        path: a file that is not empty.
        text: the bytes.

    Returns:
        Whether they do, anywhere.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(text) >= 0


def scan_at(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    """`scan` of a pickle that begins at a byte of a file.

    Args:
        data: the file.
        at: where the pickle begins.

    Returns:
        Number of its tuples, and where it ends.

    Raises:
        pickle.UnpicklingError: as `scan`.
    """
    end, tuples = len(data), 0
    while True:
        at = _PLAIN.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing as well
        if at >= end:
            raise pickle.UnpicklingError("pickle data was truncated")
        opcode = data[at]
        if opcode in _TUPLES:
            tuples += 1
            at += 1
        elif opcode in _SIZED:
            start = at + 1 + _SIZED[opcode]
            size = int.from_bytes(data[at + 1 : start], "little")
            if size > end - start:
                raise pickle.UnpicklingError(
                    f"byte {at} announces {size:,} bytes; {max(end - start, 0):,} are there"
                )
            if opcode == _LONG4 and size > _LONGEST_NUMBER:
                raise pickle.UnpicklingError(f"byte {at} begins a number of {size:,} bytes")
            # what is in a frame is read like the rest
            at = start if opcode == _FRAME else start + size
        elif opcode == _LONG_PUT:
            _check_place(int.from_bytes(data[at + 1 : at + 5], "little"), at)
            at += 5
        elif opcode == _PUT:
            line = data[at + 1 : at + 24].partition(b"\n")[0]
            if not line.isdigit():
                raise pickle.UnpicklingError(f"byte {at} names no place in the memo")
            _check_place(int(line), at)
            at += 2 + len(line)
        elif opcode == _STOP:
            return tuples, at + 1
        else:
            raise pickle.UnpicklingError(f"byte {at}, {opcode:#04x}, begins no whole opcode")


def _check_place(place: int, at: int) -> None:
    """Refuse a place in the memo that no pickle had reached at byte `at`: each takes some bytes."""
    if place > at:
        raise pickle.UnpicklingError(f"byte {at} asks for place {place:,} in the memo")


def with_stack(tuples: int, function: Callable[[], Result]) -> Result:
    """Result of a function that may hash as many tuples inside each other.

    Python hashes a tuple in a tuple by recursion in C, without a limit: 200,000 of them, a byte
    each in a pickle, end the process.

    Args:
        tuples: as many, at most.
        function: without arguments.

    Returns:
        What it returns; an exception passes through.
    """
    if tuples <= _SAFE_TUPLES:
        return function()
    before = threading.stack_size(max(2**24, -(-_BYTES_A_TUPLE * tuples // 2**16) * 2**16))
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result()
    finally:
        threading.stack_size(before)
