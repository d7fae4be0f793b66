"""Test results of a run: predictions under every condition, and the tables made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from corrkd_jax import metrics
from corrkd_jax.data import masks, msa
from train.engine import predict as engine
from train.engine.stage import Lanes
from train.sentiment.task import Task, predicted_classes, scores, targets

RATIOS = tuple(round(0.1 * tenth, 1) for tenth in range(11))
"""Frame-drop ratios of the p-curve."""

COLUMNS = (*masks.SUBSET_NAMES[:6], "Avg", masks.SUBSET_NAMES[6])
"""Columns of the table; Avg is the mean of the six incomplete subsets."""


@dataclass(frozen=True)
class Row:
    """One model's logits on a split, for all its seeds.

    Attributes:
        name: as the table shows it.
        subsets: `[seeds, 7, n, tasks, classes]`, whole modalities missing.
        curve: `[seeds, ratios, n, tasks, classes]`, frames missing in all modalities.
    """

    name: str
    subsets: np.ndarray
    curve: np.ndarray


def predict(
    forward: Callable[[Any, Any, Any], Array],
    params: Any,
    rows: dict[str, Any],
    lanes: Lanes,
    depth: int,
    key: Array,
    block: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every model under every condition, one compiled call.

    Args:
        forward: `(params, inputs, valid) -> logits [n, tasks, classes]`.
        params: parameters with `depth` leading axes of models (seeds, arms).
        rows: a split as `train.sentiment.rows.Rows.take` gives it.
        lanes: how the models share the device.
        depth: number of leading axes.
        key: of the frame masks; the protocol's, never a run's.
        block: rows at a time.

    Returns:
        Logits `[..., 7, n, tasks, classes]` of the subsets and
        `[..., len(RATIOS), n, tasks, classes]` of the p-curve.
    """
    everything = masks.SUBSETS[-1]
    subset = jnp.asarray([*masks.SUBSETS, *[everything for _ in RATIOS]])
    ratio = jnp.asarray([*[0.0 for _ in masks.SUBSETS], *RATIOS])

    def of_batch(params: Any, batch: dict[str, Any]) -> Array:
        def of_condition(condition: tuple[Array, Array]) -> Array:
            keep = masks.frame_masks(key, batch["ids"], batch["valid"], condition[1])
            keep = masks.subset_masks(keep, condition[0])
            return forward(params, masks.drop(batch["inputs"], keep), batch["valid"])

        return jnp.moveaxis(lax.map(of_condition, (subset, ratio)), 0, 1)

    logits = engine.predict(of_batch, params, rows, depth=depth, lanes=lanes, block=block)
    logits = np.moveaxis(logits, depth + 1, depth)
    return tuple(np.split(logits, [len(masks.SUBSETS)], axis=depth))


@dataclass(frozen=True)
class Truth:
    """What a split's predictions are held against.

    Attributes:
        task: what the labels mean.
        classes: `[n, tasks]` true classes of the headline metric.
        weights: `[n, tasks]`, 0 where the headline leaves a row out.
        scores: `[n]` real sentiment, or None.
    """

    task: Task
    classes: np.ndarray
    weights: np.ndarray
    scores: np.ndarray | None


def truth_of(split: msa.Split, task: Task, source: str) -> Truth:
    """The truth of a split."""
    classes, weights = targets(split, task, source)
    return Truth(task, classes, weights, split.scores if task.has_scores else None)


def headline_f1(logits: np.ndarray, truth: Truth, legacy_order: bool = False) -> np.ndarray:
    """Weighted F1 of logits `[..., n, tasks, classes]`, as `[..., tasks]`.

    Args:
        logits: of any number of models and conditions.
        truth: of the same split.
        legacy_order: swap truth and prediction as MulT's script did (do not compare with it).
    """
    return np.asarray(_weighted_f1(confusions(logits, truth), legacy_order))


def headline_accuracy(logits: np.ndarray, truth: Truth) -> np.ndarray:
    """Accuracy of logits `[..., n, tasks, classes]`, as `[..., tasks]`."""
    return np.asarray(_accuracy(confusions(logits, truth)))


def confusions(logits: np.ndarray, truth: Truth) -> Array:
    """Counts `[..., tasks, classes, classes]` of logits `[..., n, tasks, classes]`."""
    task = truth.task
    return _confusions(logits, truth.classes, truth.weights, task.mode, task.metric_classes)


# compiled as a whole: one by one, the operations of each shape take longer to compile than to run
_weighted_f1 = jax.jit(metrics.weighted_f1, static_argnums=1)
_accuracy = jax.jit(metrics.accuracy)


@partial(jax.jit, static_argnums=(3, 4))
def _confusions(logits: Array, classes: Array, weights: Array, mode: str, count: int) -> Array:
    predicted = predicted_classes(logits, mode)
    flat = predicted.reshape(-1, *predicted.shape[-2:])

    def of_task(predicted: Array, true: Array, weights: Array) -> Array:
        return metrics.confusion(true, predicted, count, weights)

    of_tasks = jax.vmap(of_task, in_axes=(1, 1, 1))
    counts = jax.vmap(of_tasks, in_axes=(0, None, None))(flat, classes, weights)
    return counts.reshape(*predicted.shape[:-2], *counts.shape[1:])


def columns(f1: np.ndarray) -> np.ndarray:
    """Seven subset values `[..., 7]` -> the eight `COLUMNS`."""
    return np.concatenate(
        [f1[..., :6], f1[..., :6].mean(axis=-1, keepdims=True), f1[..., 6:]], axis=-1
    )


def floors(truth: Truth, legacy_order: bool = False) -> np.ndarray:
    """Weighted F1 of each constant prediction, `[tasks, classes]`.

    With truth and prediction swapped, the constant's own class has all the weight.
    """
    one_hot = np.eye(truth.task.metric_classes)[truth.classes]
    counts = (one_hot * truth.weights[..., None]).sum(axis=0)
    if legacy_order:
        shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1e-9)
        return 2 * shares / (1 + shares)
    return np.asarray(metrics.constant_floors(jnp.asarray(counts)).weighted_f1)


def sentiment_metrics(logits: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """Metrics of real scores for logits `[seeds, n, 1, classes]`, each `[seeds]`."""
    return _score_metrics(scores(jnp.asarray(logits[..., 0, :]), truth.task.mode), truth)


def sentiment_floors(truth: Truth) -> dict[str, dict[str, np.ndarray]]:
    """The same metrics of the two constant predictions, by name."""
    constants = {"always negative": -1.0, "always positive": 1.0}
    return {
        name: _score_metrics(jnp.full((1, len(truth.scores)), value), truth)
        for name, value in constants.items()
    }


def _score_metrics(predicted: Array, truth: Truth) -> dict[str, np.ndarray]:
    """Metrics of predicted scores `[seeds, n]`.

    Accuracies at seven and five levels and the absolute error need a prediction on the score's
    own scale, which only the modes `seven` and `score` give; elsewhere they are left out.
    """
    report = jax.vmap(lambda p: metrics.sentiment_report(truth.scores, p))(predicted)
    if truth.task.mode not in ("seven", "score"):
        report = {k: v for k, v in report.items() if k not in ("acc7", "acc5", "mae")}
    return {name: np.asarray(value) for name, value in report.items()}


def average(row: Row, truth: Truth) -> np.ndarray:
    """Avg column of a row, mean over tasks, `[seeds]`."""
    return columns(headline_f1(row.subsets, truth).mean(axis=-1))[:, 6]


def to_json(rows: Sequence[Row], truth: Truth) -> dict[str, Any]:
    """All figures of a run as plain lists, for `results.json`."""
    tables = {}
    for row in rows:
        f1 = np.moveaxis(headline_f1(row.subsets, truth), -1, 1)  # [seeds, tasks, 7]
        entry = {
            "f1": {
                name: {c: columns(f1[:, t])[:, i].tolist() for i, c in enumerate(COLUMNS)}
                for t, name in enumerate(truth.task.names)
            },
            "accuracy_lav": headline_accuracy(row.subsets[:, 6], truth).tolist(),
            "curve_f1": headline_f1(row.curve, truth).mean(axis=-1).tolist(),
        }
        if truth.scores is not None:
            per_subset = {
                name: {
                    k: v.tolist() for k, v in sentiment_metrics(row.subsets[:, i], truth).items()
                }
                for i, name in enumerate(masks.SUBSET_NAMES)
            }
            entry["sentiment"] = per_subset
        tables[row.name] = entry
    return {
        "rows": tables,
        "ratios": list(RATIOS),
        "constant_f1": floors(truth).tolist(),
        "n": len(truth.classes),
    }
