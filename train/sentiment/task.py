"""What the labels of a run mean, and how logits become predictions and scores."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError


@dataclass(frozen=True)
class Task:
    """Labels of a run.

    Attributes:
        mode: `binary`, `ternary`, `seven`, `classes`, `single` or `score`, see
            `corrkd_jax.data.msa.labels`.
        classes: K, outputs a task: classes that the network tells apart, 1 for a score.
        names: the tasks; one for sentiment, four for IEMOCAP.
    """

    mode: str
    classes: int
    names: tuple[str, ...]

    @property
    def has_scores(self) -> bool:
        """True where the truth is a real sentiment score."""
        return self.mode not in ("classes", "single")

    @property
    def metric_classes(self) -> int:
        """Classes that the headline F1 tells apart: negative and positive, or all."""
        return 2 if self.has_scores else self.classes


def make_task(dataset: msa.Dataset, mode: str) -> Task:
    """Task of a data set in a label mode.

    Raises:
        InputError: the file lacks the labels of the mode, the training labels are one class,
            or another split holds a class that training never shows.
    """
    labels, weights, classes = msa.labels(dataset.train, mode, dataset.source)
    msa.check_classes(labels, weights, dataset.source, "train")
    for name in ("valid", "test"):
        _, _, seen = msa.labels(getattr(dataset, name), mode, dataset.source)
        if seen > classes:
            raise InputError(
                f"{dataset.source}: {name}: class {seen - 1} occurs, but train has only "
                f"classes 0 to {classes - 1}; fix the labels or choose another --data.labels"
            )
    names = {"classes": dataset.tasks, "single": ("emotion",)}
    return Task(mode, classes, names.get(mode, ("sentiment",)))


def check_known(dataset: msa.Dataset, task: Task) -> None:
    """Refuse a file whose labels a network for this task cannot give.

    Raises:
        InputError: names the file, the split and the class, or the tasks.
    """
    if task.mode == "classes" and dataset.tasks != task.names:
        raise InputError(
            f"{dataset.source}: labels are of {', '.join(dataset.tasks)}; {', '.join(task.names)} "
            "is needed"
        )
    for name, split in dataset.splits.items():
        _, _, seen = msa.labels(split, task.mode, dataset.source)
        if seen > task.classes:
            raise InputError(
                f"{dataset.source}: {name}: class {seen - 1} occurs, but the network tells "
                f"classes 0 to {task.classes - 1} apart"
            )


def targets(split: msa.Split, task: Task, source: str) -> tuple[np.ndarray, np.ndarray]:
    """True classes of the headline metric and their weights, both `[n, tasks]`.

    Sentiment is judged as positive against negative, scores of exactly zero left out.
    """
    truth, weights, _ = msa.labels(split, "binary" if task.has_scores else task.mode, source)
    return truth, weights


def predicted_classes(logits: Array, mode: str) -> Array:
    """Predicted class of the headline metric, `[..., K] -> [...]` int32.

    In mode `ternary` the neutral logit is ignored; in the modes `seven` and `score` the sign of
    the expected or predicted score decides.
    """
    if mode in ("binary", "classes", "single"):
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return (scores(logits, mode) > 0).astype(jnp.int32)


def scores(logits: Array, mode: str) -> Array:
    """Real sentiment of a prediction, `[..., K] -> [...]` float32.

    Modes `binary` and `ternary`: the probability of positive minus that of negative, in
    [-1, 1], zero where both are equal. Mode `seven`: the expected score, in [-3, 3]. Mode
    `score`: the output itself, limited to [-3, 3].
    """
    if mode == "score":
        return jnp.clip(logits[..., 0].astype(jnp.float32), -3.0, 3.0)
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    if mode == "seven":
        return probabilities @ jnp.arange(-3.0, 4.0)
    return probabilities[..., -1] - probabilities[..., 0]
