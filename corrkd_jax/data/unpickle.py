"""Unpickling of untrusted files, without running what they ask for.

The published multimodal sets are pickles, many of them written by Python 2. A pickle is a program:
it may name any importable function and call it. `load` knows the handful of names that NumPy arrays
and plain containers need, and refuses every other name before anything of it is imported.

The names of NumPy stand for replacements from this module. NumPy's own trust what they are given. A
forged dtype, or `numpy.ndarray` called on raw bytes with an object dtype, makes it follow pointers
that the file chose.

A pickle may also ask for memory: a place in the memo, a frame, a string or copies of an array, each
in a few bytes. `pickle_scan` looks for the former before anything is read, a budget counts the
latter. Both are a small multiple of the file's size.
"""

import collections
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray

from corrkd_jax.data.arrays import check_empty, check_values
from corrkd_jax.data.file_kinds import PICKLE, check_kind
from corrkd_jax.data.pickle_scan import mentions, scan, with_stack
from corrkd_jax.errors import InputError, reason

_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("builtins", kind.__name__): kind for kind in (list, tuple, dict, set, frozenset)},
}


class _RefusedGlobal(Exception):
    """Carries `module.name` of a refused global out of the unpickler."""


class _Budget:
    """Bytes that what a file builds may take besides its own, which a small multiple covers."""

    def __init__(self, size: int):
        self.left = 16 * size + 2**20

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("the pickle asks for more memory than its size explains")


class _Function:
    """A function under the name that a pickle gives it; the pickle cannot set anything on it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class _Dtype:
    """Stands for `numpy.dtype`: numbers, strings and objects, in a byte order."""

    __slots__ = ("plain",)

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.plain = np.dtype(code) if isinstance(code, str) else None
        if self.plain is None or self.plain.kind not in "biufcSUO":
            raise ValueError(f"arrays of dtype {code!r} are not supported")

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags): the code has told
        # the size, and the rest is what a forger would set.
        self.plain = self.plain.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array under construction; `_plain` turns it into an ordinary one."""

    __slots__ = ()

    budget: _Budget
    """Of the file; each file has a class of its own."""

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, data = state[-4:]
        check_empty(shape, dtype.plain.itemsize)
        self.budget.spend(math.prod(shape) * dtype.plain.itemsize)
        # NumPy checks the number of bytes, but reads beyond a list that is too short.
        if dtype.plain.hasobject and (type(data) is not list or len(data) != math.prod(shape)):
            raise ValueError("an array of objects does not hold as many as its shape says")
        super().__setstate__((1, shape, dtype.plain, fortran, data))
        check_values(self, "an array")


def _scalar(budget: _Budget, dtype: _Dtype, data: bytes | str) -> np.generic:
    budget.spend(dtype.plain.itemsize)
    value = multiarray.scalar(dtype.plain, data)
    check_values(np.asarray(value), "a number")
    return value


def _from_buffer(
    budget: _Budget,
    buffer: bytes | bytearray,
    dtype: _Dtype,
    shape: tuple,
    order: str,
    axes: tuple | None = None,
) -> np.ndarray:
    """The array of a protocol 5 pickle."""
    if not isinstance(buffer, bytes | bytearray | memoryview):
        raise ValueError("an array's buffer must be bytes")  # an array could move under us
    check_empty(shape, dtype.plain.itemsize)
    budget.spend(len(buffer))  # several arrays may share it, and whoever reads them copies
    flat = np.frombuffer(buffer, dtype.plain)
    check_values(flat, "an array")
    if order == "K":
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as protocols 0 to 2 of Python 3 write them; other encodings could make them longer."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding!r} are not supported")
    return text.encode("latin1")


def _bytes(data: bytes | str = b"", encoding: str = "latin1") -> bytes:
    if not isinstance(data, bytes | str):
        raise ValueError("bytes must be made of bytes")  # a number would ask for as many
    return _latin1(data, encoding) if isinstance(data, str) else data


def _copy(make: Callable, budget: _Budget) -> Callable:
    """Function that makes a container of its first argument, whose items are paid for again."""

    def copy(*arguments: Any) -> Any:
        size = 1 if make in (_latin1, _bytes) else 8
        budget.spend(sum(size * len(x) for x in arguments[:1]))
        return make(*arguments)

    return copy


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, size: int):
        super().__init__(file, encoding="latin1")
        # What is handed out must not lead back here: a circle would keep all arrays alive.
        self.budget = budget = _Budget(size)
        array = type("_Array", (_Array,), {"__slots__": (), "budget": budget})
        self.copied = lambda make: _Function(_copy(make, budget))
        # An empty array that waits for its state, which is all that pickled arrays ask for.
        self.reconstruct = lambda *_: multiarray._reconstruct(array, (0,), b"b")

    def find_class(self, module: str, name: str) -> Any:
        current = "builtins" if module == "__builtin__" else module
        if current.startswith("numpy.core."):
            current = "numpy._core." + current.removeprefix("numpy.core.")
        match current, name:
            case "numpy", "ndarray":
                return "numpy.ndarray"  # only ever an argument of _reconstruct
            case "numpy", "dtype":
                return _Function(_Dtype)
            case "numpy._core.multiarray", "_reconstruct":
                return _Function(self.reconstruct)
            case "numpy._core.multiarray", "scalar":
                return _Function(partial(_scalar, self.budget))
            case "numpy._core.numeric", "_frombuffer":
                return _Function(partial(_from_buffer, self.budget))
            case "_codecs", "encode":
                return self.copied(_latin1)
            case "builtins", "bytes":
                return self.copied(_bytes)
            case "builtins", "bytearray":
                return self.copied(lambda *data: bytearray(_bytes(*data)))
            case "builtins", "complex":
                return _Function(lambda *parts: complex(*map(float, parts)))
        if (current, name) not in _CONTAINERS:
            raise _RefusedGlobal(f"{module}.{name}")
        return self.copied(_CONTAINERS[current, name])


def load(path: str | Path) -> object:
    """Object from a pickle of NumPy arrays, strings, numbers and plain containers.

    Byte strings of Python 2 (`str`) become `str` with one character a byte (latin-1). It is the
    only reading under which both dictionary keys and the raw bytes of Python 2 arrays survive.
    Python 3 strings and bytes are not affected. UTF-8 text from Python 2 therefore needs
    `value.encode("latin1").decode("utf8")`.

    Args:
        path: a pickle of protocol 0 to 5.

    Returns:
        The object in the file. Arrays hold booleans, numbers, strings or objects; some may be
        read-only.

    Raises:
        InputError: the file is missing, a folder, empty, truncated, no pickle, holds structured
            arrays, or names a global outside the list; nothing of that name has been imported or
            called.
    """
    path = Path(path)
    check_kind(path, "a pickle", PICKLE.key)
    try:
        tuples = scan(path)
        with path.open("rb") as file:
            unpickler = _Unpickler(file, path.stat().st_size)
            return with_stack(tuples, lambda: _plain(unpickler.load(), {}))
    except _RefusedGlobal as refused:
        raise InputError(
            f"{path}: refused: the pickle asks for {refused}, and only NumPy arrays and plain "
            "containers are loaded; save the data as such"
        ) from None
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and mentions(path, b"joblib.numpy_pickle"):
            raise InputError(
                f"{path}: is a file of joblib, which keeps arrays in a form of its own; if you "
                "trust it, convert it once: pickle.dump(joblib.load(IN), open(OUT, 'wb'), 4)"
            ) from None
        # Arbitrary bytes can make the unpickler raise nearly any exception.
        raise InputError(
            f"{path}: not a whole pickle file ({reason(error)}); it may be truncated or of another "
            "format"
        ) from error


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """`value` with NumPy's own arrays and dtypes in the place of this module's.

    Args:
        value: what the unpickler made.
        seen: id -> (original, result) of the containers met so far. It keeps the originals alive,
            so that no id is used twice, and keeps the walk linear where a file shares its parts.
    """
    if isinstance(value, _Dtype):
        return value.plain
    if not isinstance(value, _Array | list | tuple | dict | set | frozenset):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, set | frozenset):
        seen[id(value)] = value, value
        _plain(tuple(value), seen)
        return value
    if isinstance(value, tuple):
        result = tuple(_plain(item, seen) for item in value)
        seen[id(value)] = value, result
        return result
    result = value.view(np.ndarray) if isinstance(value, _Array) else value
    seen[id(value)] = value, result
    if isinstance(result, dict):
        # Keys hold no array, but like all the rest they must not be nested without end.
        _plain(tuple(result), seen)
        for key, item in result.items():
            result[key] = _plain(item, seen)
    elif isinstance(result, list):
        result[:] = [_plain(item, seen) for item in result]
    elif result.dtype == object:
        for index, item in np.ndenumerate(result):
            result[index] = _plain(item, seen)
    return result
