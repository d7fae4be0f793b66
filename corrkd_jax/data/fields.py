"""Raw values of a file to checked arrays and strings, each with its refusal in one line.

`where` is always file and split, `key` the field, as the messages name them.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.errors import InputError

EMOTIONS = ("neutral", "happy", "sad", "angry")

_CHUNK_BYTES = 64 * 2**20


def take(fields: dict[str, Any], key: str, where: str) -> Any:
    """Remove and return a field, or say which ones there are."""
    if key not in fields:
        found = ", ".join(sorted(map(str, fields))[:16]) or "none"
        raise InputError(f"{where}: no key {key!r}; the split must have it (found: {found})")
    return fields.pop(key)


def numbers(value: Any, where: str, key: str) -> np.ndarray:
    """`value` as an array of real numbers, in its own dtype and without a copy where possible."""
    try:
        array = np.asanyarray(value)  # keeps a memory map what it is
        if array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        array = np.asarray("")
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: {key}: not an array of numbers with rows of equal size; pad them or check "
            "the file"
        )
    return array


def check_features(array: np.ndarray, where: str, key: str) -> None:
    """Refuse what is not `[n, time, features]` with something in it."""
    if array.ndim != 3:
        raise InputError(
            f"{where}: {key}: has {array.ndim} axes of sizes {array.shape}; expected 3, "
            "[samples, time, features]"
        )
    for size, letter in zip(array.shape, ("n", "T", "D"), strict=True):
        if size == 0:
            raise InputError(
                f"{where}: {key}: is empty, {letter} = 0 in [n, T, D] = {array.shape}; give data"
            )


def check_rows(count: int, n: int, where: str, key: str) -> None:
    """Refuse a field whose rows are not those of text."""
    if count != n:
        raise InputError(
            f"{where}: {key}: {count} rows, but text has {n}; every field needs one per sample"
        )


def check_finite(array: np.ndarray, where: str, key: str) -> None:
    """Refuse labels that are not finite."""
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise InputError(
            f"{where}: {key}: {bad} labels are not finite; correct or remove those samples"
        )


def label_field(fields: dict[str, Any], key: str, n: int, where: str) -> np.ndarray:
    """A label field as finite numbers [n, tasks]."""
    labels = numbers(fields[key], where, key)
    if labels.ndim == 0 or labels.size == 0:
        raise InputError(f"{where}: {key}: shape {labels.shape}; one label per sample is needed")
    check_rows(len(labels), n, where, key)
    labels = labels.reshape(n, -1)
    if labels.shape[1] != 1 and not (
        key == "classification_labels" and labels.shape[1] == len(EMOTIONS)
    ):
        raise InputError(
            f"{where}: {key}: {labels.shape[1]} values per sample; one is needed (four class "
            "labels for IEMOCAP)"
        )
    check_finite(labels, where, key)
    return labels


def string(value: Any) -> str:
    """Text from a file as `str`; also undoes UTF-8 that a Python 2 pickle yields as latin-1."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    text = str(value)
    try:
        return text if text.isascii() else text.encode("latin1").decode("utf8")
    except UnicodeError:
        return text


def strings(values: Any, n: int, where: str, key: str) -> tuple[str, ...]:
    """A field of one string per sample; MulT's ids (video, start, end) are joined as MMSA's are."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {key}: is no list; one string per sample is needed")
    check_rows(len(values), n, where, key)
    return tuple(
        "$_$".join(map(string, value)) if isinstance(value, list | tuple) else string(value)
        for value in values
    )


def row_chunks(array: np.ndarray) -> Iterator[slice]:
    """Slices of rows that take some tens of megabytes each, so that temporaries stay small."""
    rows = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def pad(sequences: Sequence[np.ndarray], frames: int, where: str, key: str) -> np.ndarray:
    """Sequences [time, features] of any length as one array [n, frames, features] float32.

    A longer sequence keeps its first frames. One of shape [0, 0] is all padding.
    """
    sizes = sorted({sequence.shape[1] for sequence in sequences if sequence.shape[1]})
    if len(sizes) != 1:
        raise InputError(f"{where}: {key}: rows have {sizes} features; one size is needed")
    padded = np.zeros((len(sequences), frames, sizes[0]), np.float32)
    with np.errstate(over="ignore"):
        for target, sequence in zip(padded, sequences, strict=True):
            if len(sequence):
                target[: len(sequence)] = sequence[:frames]
    return padded


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`, none of them of Python objects.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole .npz file of plain arrays ({reason})") from error
