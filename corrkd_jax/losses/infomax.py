"""Bounds on the mutual information of modalities, and of modalities and their fusion.

They are those of MMIM (arXiv:2109.00412) as its published code computes them. MMIM's total is
`task + a sum contrast - b (sum likelihood + sum entropy)`. Likelihood and entropy are summed over
text with vision and text with audio, the contrast over all three vectors; a = b = 0.1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from corrkd_jax.losses.batch import counted_rows, gather, normalize_rows, psum, row_weights
from corrkd_jax.losses.reduction import at_least_float32, reduce

_EPS = 1e-6


class ClassMemory(NamedTuple):
    """Projections of the previous batch, without a gradient.

    Attributes:
        projected: modality -> `[rows, width]`, rows of all shards.
        sign: `[rows]`, 1 for rows of the positive class, -1 for the negative one, 0 for others.
    """

    projected: dict[str, Array]
    sign: Array


def predictive_contrast(
    vector: Array,
    predicted: Array,
    *,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Contrastive predictive coding: how badly a prediction picks its vector out of the batch.

    Mean over i of `log sum_j exp(x_i . p_j) - x_i . p_i` with rows of length 1, without a
    temperature.

    Args:
        vector: x, `[batch, width]`.
        predicted: p, of the same shape; row i is of the same sample.
        weights: `[batch]`; a row of weight 2 counts as two, one of weight 0 for nothing, and may
            hold anything.
        axis_name: mapped axis over which the batch is sharded; j runs over all shards.

    Returns:
        Scalar, float32 at least; never below the logarithm of the number of rows minus 2.

    Raises:
        ValueError: the shapes differ.

    References:
        van den Oord et al., arXiv:1807.03748; MMIM, arXiv:2109.00412, eq. 11.
    """
    vector, predicted = at_least_float32(vector), at_least_float32(predicted)
    if vector.shape != predicted.shape:
        raise ValueError(f"vectors {vector.shape} and predictions {predicted.shape} must agree")
    vector, predicted = (normalize_rows(counted_rows(x, weights)) for x in (vector, predicted))
    columns = gather(row_weights(weights, len(vector), vector.dtype), axis_name)
    # a batch of padding alone still needs something to sum over
    columns = jnp.where(jnp.sum(columns) > 0, columns, 1.0)
    scores = vector @ gather(predicted, axis_name).T
    each = jax.nn.logsumexp(scores, axis=1, b=columns) - jnp.sum(vector * predicted, axis=1)
    return reduce(each, weights, axis_name=axis_name)


def gaussian_likelihood(
    mean: Array,
    log_variance: Array,
    vector: Array,
    *,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Log likelihood of a vector under a Gaussian that another modality predicts.

    Mean over the batch of `-sum_k (m_k - y_k)^2 / (2 exp(s_k))`. The published code leaves the term
    `-s_k / 2` out, so that ever larger variances raise the value towards 0; the same is done here.

    Args:
        mean: m, `[batch, width]`.
        log_variance: s, of the same shape.
        vector: y, of the same shape.
        weights: `[batch]`; a row of weight 0 counts for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded; the mean is global then.

    Returns:
        Scalar, at most 0, float32 at least; a training maximises it.

    References:
        MMIM, arXiv:2109.00412, eq. 5.
    """
    given = (mean, log_variance, vector)
    mean, log_variance, vector = (counted_rows(at_least_float32(x), weights) for x in given)
    each = -jnp.sum((mean - vector) ** 2 / 2 * jnp.exp(-log_variance), axis=-1)
    return reduce(each, weights, axis_name=axis_name)


def class_entropy(
    projected: Array,
    sign: Array,
    remembered: Array | None = None,
    remembered_sign: Array | None = None,
    *,
    axis_name: str | None = None,
) -> Array:
    """Entropy of a vector under one Gaussian for each class, up to constants.

    `(log det S+ + log det S-) / 4` with the covariances of the positive and of the negative rows,
    those of the previous batch included. 1e-6 on the diagonals keeps a class of too few rows
    finite; a class without rows has a gradient of 0.

    Args:
        projected: `[batch, width]`.
        sign: `[batch]`, 1, -1, or 0 for rows of neither class; those may hold anything.
        remembered: `[rows, width]` of the previous batch, rows of all shards, or None.
        remembered_sign: `[rows]`, the signs of `remembered`.
        axis_name: mapped axis over which the batch is sharded; covariances are global then.

    Returns:
        Scalar, float32 at least; a training maximises it.

    References:
        MMIM, arXiv:2109.00412, eq. 7.
    """
    rows = counted_rows(at_least_float32(projected), sign != 0)
    counts = [(sign == which).astype(rows.dtype) for which in (1, -1)]
    if remembered is not None:
        # every shard has all of these, and sums run over shards
        share = 1.0 / psum(jnp.ones(()), axis_name)
        rows = jnp.concatenate([rows, lax.stop_gradient(remembered)])
        past = [(remembered_sign == which) * share for which in (1, -1)]
        counts = [jnp.concatenate(both) for both in zip(counts, past, strict=True)]

    def log_determinant(count: Array) -> Array:
        total = jnp.maximum(psum(jnp.sum(count), axis_name), 1.0)
        centred = rows - psum(count @ rows, axis_name) / total
        covariance = psum((count[:, None] * centred).T @ centred, axis_name) / total
        return jnp.linalg.slogdet(covariance + _EPS * jnp.eye(rows.shape[1]))[1]

    positive, negative = map(log_determinant, counts)
    return 0.25 * (positive + negative)


def empty_memory(widths: Mapping[str, int], rows: int) -> ClassMemory:
    """Memory without rows, for the first batch.

    Args:
        widths: modality -> width of its projection.
        rows: number of rows of the whole batch, over all shards.

    Returns:
        `ClassMemory` of zeros.
    """
    return ClassMemory({name: jnp.zeros((rows, w)) for name, w in widths.items()}, jnp.zeros(rows))


def remember(
    projected: Mapping[str, Array], sign: Array, *, axis_name: str | None = None
) -> ClassMemory:
    """Memory that the next batch reads.

    Args:
        projected: modality -> `[batch, width]`.
        sign: `[batch]`, see `class_entropy`.
        axis_name: mapped axis over which the batch is sharded; rows of all shards are gathered.

    Returns:
        `ClassMemory`, float32 signs, without a gradient.
    """
    rows = {name: counted_rows(x, sign != 0) for name, x in projected.items()}
    found = ClassMemory(rows, jnp.asarray(sign, jnp.float32))
    return jax.tree.map(lambda x: lax.stop_gradient(gather(x, axis_name)), found)
