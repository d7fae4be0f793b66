"""Dictionaries of confounders, built from the training split alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import at_least_float32


def subject_dictionary(
    features: ArrayLike,
    subjects: ArrayLike,
    count: int,
    weights: ArrayLike | None = None,
    axis_name: str | Sequence[str] | None = None,
) -> tuple[Array, Array]:
    """Mean feature and share of every subject (arXiv:2403.05025, reconstructed).

    Args:
        features: `[n, features]`, one row an utterance of the training split.
        subjects: `[n]` integers in `[0, count)`, whose utterance it is.
        count: number of subjects, N.
        weights: `[n]`, 0 for padding; None counts every row once.
        axis_name: named axis over which the rows are sharded.

    Returns:
        Confounders `[count, features]` and prior `[count]`, which sums to one. A subject without
        a row has zeros in both and so takes no part in an expectation.

    Raises:
        ValueError: `features` and `subjects` do not fit.
    """
    features, subjects = at_least_float32(features), jnp.asarray(subjects)
    if features.ndim != 2 or subjects.shape != features.shape[:1]:
        raise ValueError(
            f"features {features.shape} and subjects {subjects.shape} do not fit: expected "
            "[n, features] and [n]"
        )
    ones = jnp.ones(subjects.shape, features.dtype)
    weights = ones if weights is None else jnp.asarray(weights, features.dtype)
    real = weights[:, None] > 0
    sums = jax.ops.segment_sum(jnp.where(real, features, 0) * weights[:, None], subjects, count)
    rows = jax.ops.segment_sum(weights, subjects, count)
    if axis_name is not None:
        sums, rows = jax.lax.psum((sums, rows), axis_name)
    total = jnp.sum(rows)
    return sums / jnp.where(rows > 0, rows, 1)[:, None], rows / jnp.where(total > 0, total, 1)
