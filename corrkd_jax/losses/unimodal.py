"""Labels of single modalities, derived from the multimodal one (Self-MM, arXiv:2102.04830).

Features of the whole training split and the current label of each modality are tables, one row a
sample, that a training state carries. A step takes its rows of the labels for the loss. Then
`update_tables` writes the step's features and new labels. The centres of the classes are functions
of the tables and need no place of their own.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from corrkd_jax.losses.batch import counted_rows, gather, row_weights
from corrkd_jax.losses.prototype import Prototypes, class_prototypes
from corrkd_jax.losses.reduction import at_least_float32, reduce

FUSION = "fusion"
"""Name of the multimodal branch beside those of the modalities."""

_EPS = 1e-8


class UnimodalTables(NamedTuple):
    """Features and labels of every training sample, by branch: `fusion` and the modalities.

    Attributes:
        features: name -> `[n, width]`, the feature that the sample had when it was last seen.
        labels: name -> `[n]`; that of `fusion` is the true one and stays.
    """

    features: dict[str, Array]
    labels: dict[str, Array]


def init_tables(scores: Array, widths: Mapping[str, int]) -> UnimodalTables:
    """Tables before the first step: every label is the multimodal one, every feature zero.

    Args:
        scores: `[n]`, multimodal scores of the training split.
        widths: name -> width of its feature; `fusion` must be among them.

    Returns:
        `UnimodalTables`, float32.

    Raises:
        ValueError: there is no `fusion`.
    """
    if FUSION not in widths:
        raise ValueError(f"widths must name {FUSION!r}, got {sorted(widths)}")
    scores = at_least_float32(scores)
    features = {name: jnp.zeros((len(scores), size), jnp.float32) for name, size in widths.items()}
    # copies, since one buffer cannot be donated under several names
    return UnimodalTables(features, {name: jnp.array(scores) for name in widths})


def multitask_l1(
    predictions: Mapping[str, Array],
    labels: Mapping[str, Array],
    *,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Absolute error of the fused prediction, and of each modality where its label differs.

    `mean |p - y| + sum_m mean tanh|y_m - y| |p_m - y_m|`. A modality that has the multimodal label
    learns nothing, so that all of them start at weight zero. Labels are constants.

    Args:
        predictions: name -> `[batch]` or `[batch, 1]`; `fusion` and the modalities.
        labels: name -> `[batch]`, with the same names.
        weights: `[batch]`; rows of weight 0 count for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least, in units of the scores; 0 if no row has weight.

    Raises:
        ValueError: the names differ, or a prediction is not one number a row.

    References:
        Self-MM, arXiv:2102.04830, as its public code has it.
    """
    if predictions.keys() != labels.keys():
        raise ValueError(f"predictions {sorted(predictions)} and labels {sorted(labels)} differ")
    labels = {
        name: counted_rows(at_least_float32(lax.stop_gradient(y)), weights)
        for name, y in labels.items()
    }
    true = labels[FUSION]
    errors = jnp.zeros_like(true)
    for name, y in labels.items():
        if predictions[name].size != y.size:
            raise ValueError(f"{name}: predictions {predictions[name].shape} for {len(y)} rows")
        predicted = counted_rows(at_least_float32(predictions[name]).reshape(-1), weights)
        scale = 1.0 if name == FUSION else jnp.tanh(jnp.abs(y - true))
        errors += scale * jnp.abs(predicted - y)
    return reduce(errors, weights, axis_name=axis_name)


def class_centers(features: Array, labels: Array, exclude_zero: bool = True) -> Prototypes:
    """Mean feature of the negative (row 0) and of the positive samples (row 1).

    Args:
        features: `[n, width]`.
        labels: `[n]` scores.
        exclude_zero: leave samples of label 0 out; else they are positive ones.

    Returns:
        `Prototypes` of two classes, float32 at least.
    """
    positive = labels > 0 if exclude_zero else labels >= 0
    counted = labels != 0 if exclude_zero else None
    return class_prototypes(features, positive.astype(jnp.int32), 2, weights=counted)


def relative_distance(features: Array, centers: Prototypes) -> Array:
    """Relative nearness to the positive centre, `(d_n - d_p) / (d_p + 1e-8)`.

    Args:
        features: `[batch, width]`.
        centers: of `class_centers`.

    Returns:
        `[batch]`, at least -1, without an upper bound and without a gradient; NaN where a class has
        no samples.
    """
    # no gradient passes here, so that the roots need no epsilon
    apart = lax.stop_gradient(at_least_float32(features)[:, None] - centers.centers)
    distances = jnp.linalg.norm(apart, axis=-1)
    distances = jnp.where(centers.present > 0, distances, jnp.nan)
    return (distances[:, 0] - distances[:, 1]) / (distances[:, 1] + _EPS)


def shifted_labels(true: Array, of_modality: Array, of_fusion: Array, limit: float) -> Array:
    """Labels that a modality's features speak for, given where the fused features stand.

    `(delta_m / (delta_f + 1e-8) y + y + delta_m - delta_f) / 2`, clipped to `[-limit, limit]`.

    Args:
        true: `[batch]`, multimodal labels y.
        of_modality: `[batch]`, relative distances delta_m.
        of_fusion: `[batch]`, relative distances delta_f.
        limit: largest score there is, 3 for MOSI and 1 for SIMS.

    Returns:
        `[batch]` scores.

    References:
        Self-MM, arXiv:2102.04830, as its public code has it.
    """
    ratio = of_modality / (of_fusion + _EPS)
    return jnp.clip(0.5 * (ratio * true + true + of_modality - of_fusion), -limit, limit)


def update_tables(
    tables: UnimodalTables,
    rows: Array,
    features: Mapping[str, Array],
    epoch: Array | int,
    *,
    limit: float = 3.0,
    exclude_zero: bool = True,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> UnimodalTables:
    """Tables after a step: its samples' new labels (from the second epoch on) and features.

    `y_m <- (n - 1) / (n + 1) y_m + 2 / (n + 1) y_new` in epoch n, with `y_new` of `shifted_labels`
    against the centres of all samples as the tables have them. Computing centres over all rows
    costs a tenth of a step of MOSEI's size. Labels stay where a centre is missing. A sample not
    seen yet counts with its zeros, as in the public code.

    Args:
        tables: tables of the whole training split, the same on every shard.
        rows: `[batch]` integers, the samples' places in the tables, each at most once.
        features: name -> `[batch, width]`, from the same step; constants.
        epoch: n, counted from 1; may be traced.
        limit: largest score there is.
        exclude_zero: see `class_centers`.
        weights: `[batch]`; rows of weight 0 leave the tables alone, and may hold anything.
        axis_name: mapped axis over which the batch is sharded; rows of all shards are gathered.

    Returns:
        `UnimodalTables`, the same on every shard.

    References:
        Self-MM, arXiv:2102.04830. As in its public code, centres are those of the end of the
        previous step: the tables as they come in.
    """
    counted = row_weights(weights, len(rows), jnp.float32) > 0
    size = len(tables.labels[FUSION])
    # out of range, where a scatter drops what does not count
    rows = gather(jnp.where(counted, rows, size), axis_name)
    features = {
        name: gather(lax.stop_gradient(at_least_float32(x)), axis_name)
        for name, x in features.items()
    }

    def delta(name: str) -> Array:
        centers = class_centers(tables.features[name], tables.labels[name], exclude_zero)
        return relative_distance(features[name], centers)

    of_fusion = delta(FUSION)
    true = tables.labels[FUSION].at[rows].get(mode="clip")
    old_share = (epoch - 1) / (epoch + 1)
    new_labels = dict(tables.labels)
    for name in tables.labels:
        if name != FUSION:
            old = tables.labels[name].at[rows].get(mode="clip")
            new = shifted_labels(true, delta(name), of_fusion, limit)
            new = old_share * old + (1 - old_share) * new
            kept = (epoch > 1) & jnp.isfinite(new)
            new = jnp.where(kept, new, old)
            new_labels[name] = tables.labels[name].at[rows].set(new, mode="drop")
    new_features = {
        name: table.at[rows].set(features[name], mode="drop")
        for name, table in tables.features.items()
    }
    return UnimodalTables(new_features, new_labels)
