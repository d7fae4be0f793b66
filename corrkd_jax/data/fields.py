"""Fields of a file as checked arrays and strings, each with a refusal in one line.

`where` is always file and split, `key` the field, as the messages name them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from corrkd_jax.errors import InputError, few

EMOTIONS = ("neutral", "happy", "sad", "angry")
"""Tasks of IEMOCAP's four binary emotions, in the order of its files."""

_CHUNK_BYTES = 64 * 2**20


def take(fields: dict[str, Any], key: str, where: str) -> Any:
    """Field, removed from the others.

    Args:
        fields: key -> value.
        key: name of the field.
        where: file and split, for messages.

    Returns:
        The value.

    Raises:
        InputError: there is no such field; the message lists those that there are.
    """
    if key not in fields:
        found = few(sorted(map(str, fields)), 16)
        raise InputError(f"{where}: no key {key!r}; the split must have it (found: {found})")
    return fields.pop(key)


def numbers(value: Any, where: str, key: str) -> np.ndarray:
    """Array of real numbers, in its own dtype and without a copy where possible.

    Args:
        value: anything that NumPy can read.
        where: file and split, for messages.
        key: field, for messages.

    Returns:
        Array of floats, integers or booleans; a memory map stays one.

    Raises:
        InputError: it is no array of numbers, or its rows differ in size.
    """
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
    """Refuse an array that is not `[n, time, features]`, or is empty.

    Args:
        array: features of a modality.
        where: file and split, for messages.
        key: field, for messages.

    Raises:
        InputError: another number of axes, or an axis of size 0.
    """
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
    """Refuse a field whose number of rows is not that of the features.

    Args:
        count: number of rows of the field.
        n: number of rows of text, or of the first modality that the file has.
        where: file and split, for messages.
        key: field, for messages.

    Raises:
        InputError: the numbers differ.
    """
    if count != n:
        raise InputError(
            f"{where}: {key}: {count} rows, but the features have {n}; every field needs one per "
            "sample"
        )


def check_finite(array: np.ndarray, where: str, key: str) -> None:
    """Refuse labels that are not finite.

    Args:
        array: labels.
        where: file and split, for messages.
        key: field, for messages.

    Raises:
        InputError: a label is NaN or infinite, or would be as float32, which labels become.
    """
    with np.errstate(over="ignore"):  # scores become float32, where a large one is infinite
        bad = array.size - np.count_nonzero(np.isfinite(array.astype(np.float32)))
    if bad:
        raise InputError(
            f"{where}: {key}: {bad} labels are not finite; correct or remove those samples"
        )


def label_field(fields: dict[str, Any], key: str, n: int, where: str) -> np.ndarray:
    """Field of labels as finite numbers.

    Args:
        fields: key -> value.
        key: name of the field.
        n: number of rows of the features.
        where: file and split, for messages.

    Returns:
        `[n, tasks]`; one task, or four for class labels of emotions.

    Raises:
        InputError: another shape, or labels that are not finite numbers.
    """
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


def score_field(fields: dict[str, Any], n: int, where: str) -> np.ndarray:
    """`regression_labels` as sentiment scores.

    Args:
        fields: key -> value.
        n: number of rows of the features.
        where: file and split, for messages.

    Returns:
        `[n]` float32.

    Raises:
        InputError: as `label_field`.
    """
    return label_field(fields, "regression_labels", n, where)[:, 0].astype(np.float32)


def class_field(fields: dict[str, Any], n: int, where: str) -> np.ndarray:
    """`classification_labels` as class numbers.

    Args:
        fields: key -> value.
        n: number of rows of the features.
        where: file and split, for messages.

    Returns:
        `[n, tasks]` int32.

    Raises:
        InputError: as `label_field`, or a number that is not whole or negative.
    """
    numbers = label_field(fields, "classification_labels", n, where)
    with np.errstate(invalid="ignore"):  # a number too large for int32 is another one then
        classes = numbers.astype(np.int32)
    if np.any(classes != numbers) or classes.min() < 0:
        raise InputError(
            f"{where}: classification_labels: class labels must be whole numbers from 0; "
            "correct them or remove the field"
        )
    return classes


def string(value: Any) -> str:
    """Text from a file as `str`, with UTF-8 restored that a Python 2 pickle yields as latin-1.

    Args:
        value: a string, bytes, or anything with a `str`.

    Returns:
        The text.
    """
    if isinstance(value, bytes):
        value = value.decode("latin1")
    text = str(value)
    try:
        return text if text.isascii() else text.encode("latin1").decode("utf8")
    except UnicodeError:
        return text


def strings(values: Any, n: int, where: str, key: str) -> tuple[str, ...]:
    """Field of one string per sample; MulT's ids (video, start, end) are joined as MMSA's are.

    Args:
        values: list, tuple or array of strings, or of parts of an id.
        n: number of rows of the features.
        where: file and split, for messages.
        key: field, for messages.

    Returns:
        n strings.

    Raises:
        InputError: it is no list, or has another number of rows.
    """
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
    """Slices of rows of some tens of megabytes each, so that temporaries stay small.

    Args:
        array: array of any shape.

    Yields:
        Slices that cover all rows in order.
    """
    rows = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def pad(
    sequences: Sequence[np.ndarray], frames: int, where: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of any length as one array; a longer one keeps its first frames.

    Args:
        sequences: `[time, features]` each; one of shape `[0, 0]` becomes all padding.
        frames: number of frames of the result.
        where: file and split, for messages.
        key: field, for messages.

    Returns:
        `[n, frames, features]` float32, zeros on padding, and `[n, frames]` bool, True where a
        frame is of the sequence.

    Raises:
        InputError: the sequences differ in their number of features.
    """
    sizes = sorted({sequence.shape[1] for sequence in sequences if any(sequence.shape)})
    if len(sizes) != 1 or not sizes[0]:
        raise InputError(f"{where}: {key}: rows have {sizes} features; one size is needed")
    padded = np.zeros((len(sequences), frames, sizes[0]), np.float32)
    with np.errstate(over="ignore"):
        for target, sequence in zip(padded, sequences, strict=True):
            if len(sequence):
                target[: len(sequence)] = sequence[:frames]
    lengths = np.array([len(sequence) for sequence in sequences])
    return padded, np.arange(frames) < lengths[:, None]
