"""Losses on shared and private codes of modalities (MISA, arXiv:2005.03545).

There is one for the likeness of distributions, one for the orthogonality of subspaces and one for
reconstruction, each of two modalities. `subspace_terms` sums them over all modalities.
"""

import functools
from itertools import combinations
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.lax import Precision

from corrkd_jax.losses.batch import counted_rows, psum, row_weights
from corrkd_jax.losses.reduction import at_least_float32, reduce

_EPS = 1e-12


class SubspaceTerms(NamedTuple):
    """Scalars; MISA adds `alpha difference + beta similarity + gamma reconstruction` to its task.

    MMSA's `(alpha, beta, gamma)` are (0.1, 0.3, 1) for MOSI and (0.3, 0.8, 1) for MOSEI.

    Attributes:
        difference: overlap of the subspaces of codes, L_diff.
        similarity: discrepancy of shared codes between modalities, L_sim.
        reconstruction: squared error of the reconstructed projections, L_recon.
    """

    difference: Array
    similarity: Array
    reconstruction: Array


def central_moment_discrepancy(
    x: Array,
    y: Array,
    moments: int = 5,
    *,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Central moment discrepancy of two distributions, coordinate by coordinate.

    `|E x - E y| + sum_{k=2..moments} |E (x - E x)^k - E (y - E y)^k|` with norms over features and
    expectations over the batch. There is no scaling by the interval of the values, which for
    sigmoids is [0, 1].

    Args:
        x: `[batch, features]`.
        y: like `x`; rows need not correspond.
        moments: highest order, at least 1.
        weights: `[batch]`; rows of weight 0 count for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded; expectations are global then.

    Returns:
        Scalar, float32 at least. Each norm has 1e-12 inside its root: equal distributions give
        `1e-6 moments` rather than 0, with a gradient of 0.

    Raises:
        ValueError: the shapes differ.

    References:
        Zellinger et al., arXiv:1702.08811; MISA, arXiv:2005.03545, L_sim.
    """
    x, y = _pair(x, y, weights)
    rows = row_weights(weights, len(x), x.dtype)
    count = psum(jnp.sum(rows), axis_name)

    def expectation(values: Array) -> Array:
        total = psum(jnp.sum(rows[:, None] * values, axis=0), axis_name)
        return total / jnp.where(count > 0, count, 1)

    def norm(difference: Array) -> Array:
        return jnp.sqrt(jnp.sum(difference**2) + _EPS)

    mean_x, mean_y = expectation(x), expectation(y)
    x, y = x - mean_x, y - mean_y
    total = norm(mean_x - mean_y)
    for order in range(2, moments + 1):
        total += norm(expectation(x**order) - expectation(y**order))
    return total


def difference(
    x: Array, y: Array, *, weights: Array | None = None, axis_name: str | None = None
) -> Array:
    """Overlap of the subspaces that two codes of the same samples span.

    `mean (X' Y)^2` over the `[features, features]` products. Rows are centred over the batch and
    then divided by `|row| + 1e-6`; that length is a constant to the gradient. X' Y is a sum over
    the batch, as published, and grows with it.

    Args:
        x: `[batch, features]`.
        y: `[batch, other features]`; row i is of the same sample as row i of `x`.
        weights: `[batch]`; a row of weight 2 counts as two, one of weight 0 for nothing, and may
            hold anything.
        axis_name: mapped axis over which the batch is sharded; means and products are global then.

    Returns:
        Scalar, float32 at least, the same for `x` and `y` exchanged; 0 where either does not vary.
        The gradient of a row that lies on the mean is 0; the published form gives a million times
        the incoming gradient.

    Raises:
        ValueError: the batches differ in size.

    References:
        MISA, arXiv:2005.03545, L_diff; lengths as constants: its public code.
    """
    if len(x) != len(y):
        raise ValueError(f"x {jnp.shape(x)} and y {jnp.shape(y)} must have rows of the same batch")
    rows = row_weights(weights, len(x), jnp.float32)
    count = psum(jnp.sum(rows), axis_name)

    def directions(codes: Array) -> Array:
        codes = counted_rows(at_least_float32(codes), weights)
        total = psum(jnp.sum(rows[:, None] * codes, axis=0), axis_name)
        codes = codes - total / jnp.where(count > 0, count, 1)
        length = jnp.linalg.norm(lax.stop_gradient(codes), axis=-1, keepdims=True)
        return codes * jnp.where(length > 0, 1 / (length + 1e-6), 0)

    weighted = rows[:, None] * directions(x)
    # accelerators would round the factors to ten bits or less
    products = jnp.matmul(weighted.T, directions(y), precision=Precision.HIGHEST)
    return jnp.mean(psum(products, axis_name) ** 2)


def reconstruction(
    reconstructed: Array,
    original: Array,
    *,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> Array:
    """Mean squared error over rows and features; the gradient reaches the original too.

    Args:
        reconstructed: `[batch, ...]`.
        original: like `reconstructed`.
        weights: `[batch]`; rows of weight 0 count for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least; 0 if no row has weight.

    Raises:
        ValueError: the shapes differ.

    References:
        MISA, arXiv:2005.03545, L_recon.
    """
    reconstructed, original = _pair(reconstructed, original, weights)
    return reduce((reconstructed - original) ** 2, weights, axis_name=axis_name)


def subspace_terms(
    projected: Array,
    private: Array,
    shared: Array,
    reconstructed: Array,
    *,
    moments: int = 5,
    weights: Array | None = None,
    axis_name: str | None = None,
) -> SubspaceTerms:
    """All three terms of MISA over its modalities, whose order does not matter.

    Args:
        projected: `[batch, modalities, features]`, the vectors to reconstruct; at least two
            modalities.
        private: like `projected`, each modality's private code.
        shared: like `projected`, each modality's code in the common space.
        reconstructed: like `projected`, computed from the sum of both codes.
        moments: highest order of `central_moment_discrepancy`.
        weights: `[batch]`; rows of weight 0 count for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        `SubspaceTerms`. `difference` is the sum over private and shared of each modality and over
        the pairs of privates; `similarity` the mean discrepancy over the pairs of shareds;
        `reconstruction` the mean error.
    """
    overlap = functools.partial(difference, weights=weights, axis_name=axis_name)
    discrepancy = functools.partial(
        central_moment_discrepancy, moments=moments, weights=weights, axis_name=axis_name
    )
    modalities = range(private.shape[1])
    pairs = list(combinations(modalities, 2))
    overlaps = [overlap(private[:, m], shared[:, m]) for m in modalities]
    overlaps += [overlap(private[:, m], private[:, n]) for m, n in pairs]
    discrepancies = [discrepancy(shared[:, m], shared[:, n]) for m, n in pairs]
    return SubspaceTerms(
        difference=functools.reduce(add, overlaps),
        similarity=functools.reduce(add, discrepancies) / len(pairs),
        reconstruction=reconstruction(
            reconstructed, projected, weights=weights, axis_name=axis_name
        ),
    )


def _pair(x: Array, y: Array, weights: Array | None) -> tuple[Array, Array]:
    """Both float32 at least, rows of weight 0 turned to zeros."""
    x, y = at_least_float32(x), at_least_float32(y)
    if x.shape != y.shape:
        raise ValueError(f"{x.shape} and {y.shape} must agree in shape")
    return counted_rows(x, weights), counted_rows(y, weights)
