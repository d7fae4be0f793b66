"""Unpickling of untrusted files, without running what they ask for.

The published multimodal sets are pickles, many of them written by Python 2. A pickle is a program:
it may name any importable function and call it. `load` knows the handful of names that NumPy arrays
and plain containers need, and refuses every other name before anything of it is imported.

The names of NumPy stand for replacements from this module. NumPy's own trust what they are given. A
forged dtype, or `numpy.ndarray` called on raw bytes with an object dtype, makes it follow pointers
that the file chose.
"""

import _codecs
import collections
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray

from corrkd_jax.errors import InputError

_PLAIN_NAMES = {
    ("_codecs", "encode"): _codecs.encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "list"): list,
    ("builtins", "tuple"): tuple,
    ("builtins", "dict"): dict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): bytes,
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
}


class _RefusedGlobal(Exception):
    """Carries `module.name` of a refused global out of the unpickler."""


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

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, data = state[-4:]
        # NumPy checks the number of bytes, but reads beyond a list that is too short.
        if dtype.plain.hasobject and (type(data) is not list or len(data) != math.prod(shape)):
            raise ValueError("an array of objects does not hold as many as its shape says")
        super().__setstate__((1, shape, dtype.plain, fortran, data))


def _reconstruct(subtype: object, shape: object, code: object) -> np.ndarray:
    """An empty array that waits for its state, which is all that pickled arrays ask for."""
    return multiarray._reconstruct(_Array, (0,), b"b")


def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    return multiarray.scalar(dtype.plain, data)


def _from_buffer(
    buffer: bytes | bytearray, dtype: _Dtype, shape: tuple, order: str, axes: tuple | None = None
) -> np.ndarray:
    """The array of a protocol 5 pickle."""
    if not isinstance(buffer, bytes | bytearray | memoryview):
        raise ValueError("an array's buffer must be bytes")  # an array could move under us
    flat = np.frombuffer(buffer, dtype.plain)
    if order == "K":
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        current = "builtins" if module == "__builtin__" else module
        if current.startswith("numpy.core."):
            current = "numpy._core." + current.removeprefix("numpy.core.")
        # A pickle may set attributes on what it obtains. The plain names are C objects, which
        # refuse; the functions of this module are handed out in wrappers made for the occasion.
        match current, name:
            case "numpy", "ndarray":
                return "numpy.ndarray"  # only ever an argument of _reconstruct
            case "numpy", "dtype":
                return lambda *arguments: _Dtype(*arguments)
            case "numpy._core.multiarray", "_reconstruct":
                return lambda *arguments: _reconstruct(*arguments)
            case "numpy._core.multiarray", "scalar":
                return lambda *arguments: _scalar(*arguments)
            case "numpy._core.numeric", "_frombuffer":
                return lambda *arguments: _from_buffer(*arguments)
        if (current, name) not in _PLAIN_NAMES:
            raise _RefusedGlobal(f"{module}.{name}")
        return _PLAIN_NAMES[current, name]


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
    try:
        with path.open("rb") as file:
            if not file.peek(1):
                raise InputError(f"{path}: the file is empty; copy or download it again")
            return _plain(_Unpickler(file, encoding="latin1").load(), {})
    except InputError:
        raise
    except _RefusedGlobal as refused:
        if str(refused).startswith("joblib."):
            raise InputError(
                f"{path}: is a file of joblib, which keeps arrays in a form of its own; if you "
                "trust it, convert it once: pickle.dump(joblib.load(IN), open(OUT, 'wb'), 4)"
            ) from None
        raise InputError(
            f"{path}: refused: the pickle asks for {refused}, and only NumPy arrays and plain "
            "containers are loaded; save the data as such"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the file inside it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Arbitrary bytes can make the unpickler raise nearly any exception.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: not a whole pickle file ({reason}); it may be truncated or of another format"
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
    if not isinstance(value, _Array | list | tuple | dict):
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, tuple):
        result = tuple(_plain(item, seen) for item in value)
        seen[id(value)] = value, result
        return result
    result = value.view(np.ndarray) if isinstance(value, _Array) else value
    seen[id(value)] = value, result
    if isinstance(result, dict):
        for key, item in result.items():
            result[key] = _plain(item, seen)
    elif isinstance(result, list):
        result[:] = [_plain(item, seen) for item in result]
    elif result.dtype == object:
        for index, item in np.ndenumerate(result):
            result[index] = _plain(item, seen)
    return result
