"""Labels of the task loss, from those that a file holds."""

from typing import Any

import numpy as np

from corrkd_jax.data import fields as checked
from corrkd_jax.data.dataset import LABEL_KEYS, Split
from corrkd_jax.errors import InputError

LABEL_MODES = ("binary", "ternary", "seven", "classes", "single", "score")
"""Modes of `labels`."""


def labels(split: Split, mode: str, source: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels for the task loss: classes, or scores for regression.

    Args:
        split: any split.
        mode: "binary": score > 0 is class 1, and a score of 0 has weight 0; "ternary": negative,
            neutral, positive by the sign of the score; "seven": the score clipped to [-3, 3] and
            rounded half to even, plus 3; "classes": the class labels that the file holds; "single":
            which of the file's binary tasks is 1, as one task (IEMOCAP's emotions), where rows with
            none or several have weight 0; "score": the score itself, for regression.
        source: file, for messages.

    Returns:
        Classes `[n, tasks]` int32, weights `[n, tasks]` float32 in {0, 1}, and the number of
        classes (for "classes": the largest label of this split + 1, at least 2). For "score":
        scores `[n, 1]` float32, weights of one, and 1.

    Raises:
        InputError: the mode is unknown, or the file lacks the labels that it needs.
    """
    if mode not in LABEL_MODES:
        raise InputError(f"{source}: label mode {mode!r} is unknown; use {', '.join(LABEL_MODES)}")
    if mode in ("classes", "single"):
        if split.classes is None:
            raise InputError(
                f"{source}: no field classification_labels for label mode {mode!r}; use "
                "binary, ternary or seven"
            )
        classes = split.classes
        if mode == "classes":
            return classes, np.ones(classes.shape, np.float32), max(2, int(classes.max()) + 1)
        if classes.shape[1] < 2 or classes.max() > 1:
            raise InputError(
                f"{source}: label mode 'single' needs several binary tasks, such as IEMOCAP's four "
                "emotions; use classes"
            )
        weights = (classes.sum(axis=1, keepdims=True) == 1).astype(np.float32)
        return classes.argmax(axis=1)[:, None].astype(np.int32), weights, classes.shape[1]
    if split.scores is None:
        raise InputError(
            f"{source}: no field regression_labels (sentiment scores) for label mode {mode!r}; "
            "use classes"
        )
    scores = split.scores[:, None]
    weights = np.ones(scores.shape, np.float32)
    if mode == "score":
        return scores, weights, 1
    if mode == "binary":
        weights[scores == 0] = 0.0
        return (scores > 0).astype(np.int32), weights, 2
    if mode == "ternary":
        return np.sign(scores).astype(np.int32) + 1, weights, 3
    return np.rint(np.clip(scores, -3, 3)).astype(np.int32) + 3, weights, 7


def check_classes(classes: np.ndarray, weights: np.ndarray, source: str, split_name: str) -> None:
    """Refuse labels from which nothing can be learned; meant for the train split.

    Args:
        classes: `[n, tasks]` int32.
        weights: `[n, tasks]`; labels of weight 0 do not count.
        source: file, for the message.
        split_name: split, for the message.

    Raises:
        InputError: a task has fewer than two classes.
    """
    for task in range(classes.shape[1]):
        found = np.unique(classes[weights[:, task] > 0, task])
        if len(found) < 2:
            which = f" of task {task}" if classes.shape[1] > 1 else ""
            what = f"are one class ({found[0]})" if len(found) else "have weight 0"
            raise InputError(
                f"{source}: {split_name}: all labels{which} {what}; choose another label mode or "
                "check the file"
            )


def label_notes(split: Split, mode: str, source: str, name: str) -> list[str]:
    """What a label mode takes the labels of a split for; meant for the train split.

    Modes of sentiment take 0 for neutral, and "seven" takes the scale from -3 to 3. Scores of
    another scale are refused where the mode would change their meaning, and said elsewhere.

    Args:
        split: with the labels of the mode.
        mode: one of `LABEL_MODES`.
        source: file, for messages.
        name: split, for messages.

    Returns:
        Notes, one line each.

    Raises:
        InputError: no score is negative, or scores within -1 to 1 are to be seven classes; or as
            `labels`.
    """
    values, weights, count = labels(split, mode, source)
    n, unlabelled = len(weights), int(np.sum(weights == 0))
    notes = []
    if mode == "single" and unlabelled:
        notes.append(f"{unlabelled} of {n} rows of {name} are none or several tasks, no label")
    if mode in ("classes", "single"):
        there = np.unique(values)
        if absent := count - len(there):
            # a number may be very large
            first = np.setdiff1d(np.arange(min(count, len(there) + 8)), there)[:8]
            some = ", ".join(map(str, first)) + (", ..." if absent > 8 else "")
            notes.append(f"{count} classes, by the largest number; no row of {name} is of {some}")
    elif split.scores is not None:
        notes += _scale_notes(split.scores, mode, f"{source}: {name}")
    if mode == "binary" and unlabelled:
        notes.append(f"{unlabelled} of {n} scores of {name} are 0 and no label")
    both = split.scores is not None and split.classes is not None and split.classes.shape[1] == 1
    wrong = np.count_nonzero(_out_of_order(split.classes[:, 0], split.scores)) if both else 0
    if wrong:
        notes.append(
            f"classification_labels are not in the order of regression_labels in {wrong} of {n} "
            f"rows of {name}"
        )
    return [f"labels: {note}" for note in notes]


def _scale_notes(scores: np.ndarray, mode: str, where: str) -> list[str]:
    """Notes on the scale of scores, and the refusals of `label_notes`."""
    low, high = float(scores.min()), float(scores.max())
    if low >= 0 and high > 0:
        raise InputError(
            f"{where}: scores lie in {low:g} to {high:g}, but label mode {mode!r} takes 0 for "
            "neutral; subtract the neutral score, or name class numbers classification_labels and "
            "use classes"
        )
    if mode not in ("seven", "score"):
        return []
    if max(-low, high) <= 1:
        if mode == "seven":
            raise InputError(
                f"{where}: scores lie in {low:g} to {high:g}, but label mode 'seven' takes -3 to "
                "3; multiply them by 3, or use ternary"
            )
        return [f"scores lie in {low:g} to {high:g}; Acc-5 and Acc-7 are of -3 to 3"]
    if beyond := int(np.sum(np.abs(scores) > 3)):
        return [f"{beyond} of {len(scores)} scores lie beyond -3 to 3, the ends of this mode"]
    return []


def _out_of_order(classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[n] bool: rows whose class is not in the order of the scores, of two or three classes.

    More classes may be of anything, such as emotions.
    """
    wrong = np.zeros(len(scores), bool)
    numbers = np.unique(classes)
    for number in numbers[1:] if len(numbers) <= 3 else ():
        upper = classes >= number
        too_high = ~upper & (scores > scores[upper].min())
        too_low = upper & (scores < scores[~upper].max())
        wrong |= min(too_high, too_low, key=np.count_nonzero)
    return wrong


def second_labels(fields: dict[str, Any], where: str) -> str:
    """Take `labels`, MulT's field, out of an MMSA split, whose own label fields are read.

    Args:
        fields: MMSA's keys, with `labels` and at least one of `LABEL_KEYS`.
        where: file and split, for messages.

    Returns:
        A note on what `labels` holds.

    Raises:
        InputError: `labels` contradicts a field of its kind: other scores, the same class numbers
            elsewhere, or two or three classes that are not in the order of the scores.
    """
    own = " and ".join(key for key in LABEL_KEYS if key in fields)
    note = f"labels: not read, since {own} is there; it holds"
    try:
        second = checked.numbers(fields.pop("labels"), where, "labels").astype(np.float64)
    except InputError:
        return f"{note} no numbers"
    values = {
        key: checked.numbers(fields[key], where, key).astype(np.float64)
        for key in LABEL_KEYS
        if key in fields
    }
    if any(x.size != second.size for x in values.values()) or not second.size:
        return f"{note} an array of shape {second.shape}"
    second = second.ravel()
    scores, classes = (np.ravel(values[key]) if key in values else None for key in LABEL_KEYS)
    for key, value in values.items():
        if np.allclose(second, value.ravel()):
            return f"{note} the same as {key}"
    numbers = np.unique(second)
    whole = bool(np.all((numbers == np.rint(numbers)) & (numbers >= 0)))
    other, wrong = "", np.zeros(second.size, bool)
    if not whole and scores is not None:
        other, wrong = "regression_labels", ~np.isclose(second, scores)
    elif whole and classes is not None and set(numbers) <= set(classes):
        other, wrong = "classification_labels", second != classes
    elif whole and scores is not None:
        other, wrong = "regression_labels", _out_of_order(second, scores)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{where}: labels: contradicts {other} in {np.count_nonzero(wrong)} rows (row {row}: "
            f"{second[row]:g} and {values[other].ravel()[row]:g}); remove the wrong one"
        )
    kind = "class numbers" if whole else "scores"
    return f"{note} {kind} from {numbers[0]:g} to {numbers[-1]:g}"
