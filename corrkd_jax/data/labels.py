"""Labels of the task loss, from those that a file holds."""

import numpy as np

from corrkd_jax.data.dataset import Split
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
