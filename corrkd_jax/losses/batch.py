"""Helpers of losses that couple a batch: pairs, rows of other shards, rows that do not count.

A batch may lie whole on one device, or be sharded over a mapped axis (`axis_name`). Every loss
built from these helpers returns, on every shard, the value of the whole batch. The mean over
shards of its gradients is then the gradient of that value.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from corrkd_jax.losses.reduction import Axis, at_least_float32

_EPS = 1e-12


def psum(x: Array, axis_name: Axis) -> Array:
    """Sum over the shards of a batch.

    Args:
        x: array of any shape, a shard's share of the sum.
        axis_name: mapped axis, or axes, over which the batch is sharded, or None.

    Returns:
        Array like `x`, the same on every shard; `x` itself if `axis_name` is None.
    """
    return x if axis_name is None else lax.psum(x, axis_name)


def gather(x: Array, axis_name: str | None) -> Array:
    """Rows of all shards, in shard order.

    Args:
        x: `[batch, ...]`, rows of this shard.
        axis_name: mapped axis over which the batch is sharded, or None.

    Returns:
        `[global_batch, ...]`, the same on every shard; `x` itself if `axis_name` is None.
    """
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)


def normalize_rows(x: Array) -> Array:
    """Rows scaled to length one, with the epsilon inside the root; a zero row stays zero.

    The gradient of a zero row is zero as well. It would otherwise be a million times the incoming
    gradient.

    Args:
        x: `[..., features]`, floating point.

    Returns:
        Array like `x`.
    """
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jnp.where(square > 0, lax.rsqrt(square + _EPS), 0)


def counted_rows(x: ArrayLike, weights: ArrayLike | None) -> Array:
    """Rows with those of weight 0 set to zero, so that NaN in padding meets no gradient.

    Args:
        x: `[batch, ...]`, of any dtype.
        weights: `[batch]` row weights, or None for ones.

    Returns:
        Array like `x`.
    """
    x = jnp.asarray(x)
    if weights is None:
        return x
    counted = jnp.asarray(weights) > 0
    return jnp.where(counted.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def student_and_teacher(
    student: ArrayLike, teacher: ArrayLike, weights: ArrayLike | None
) -> tuple[Array, Array]:
    """Student and teacher rows in the form that a distillation loss takes them.

    Args:
        student: `[batch, ...]`.
        teacher: `[batch, ...]`.
        weights: `[batch]` row weights, or None for ones.

    Returns:
        Both arrays, float32 at least, with rows of weight 0 set to zero; no gradient flows into the
        teacher.

    Raises:
        ValueError: the shapes differ.
    """
    student = at_least_float32(student)
    teacher = at_least_float32(lax.stop_gradient(teacher))
    if student.shape != teacher.shape:
        raise ValueError(f"student {student.shape} and teacher {teacher.shape} must agree in shape")
    return counted_rows(student, weights), counted_rows(teacher, weights)


def row_weights(weights: ArrayLike | None, batch: int, dtype: DTypeLike) -> Array:
    """Row weights as constants.

    Args:
        weights: `[batch]`, or None for ones.
        batch: number of rows.
        dtype: float type of the result.

    Returns:
        `[batch]`, without a gradient.
    """
    if weights is None:
        return jnp.ones((batch,), dtype)
    return lax.stop_gradient(jnp.asarray(weights)).astype(dtype)


def off_diagonal(
    weights: ArrayLike | None, batch: int, dtype: DTypeLike, axis_name: str | None
) -> Array:
    """Weights of all ordered pairs of different rows.

    Args:
        weights: `[batch]` row weights, or None for ones.
        batch: number of rows on this shard.
        dtype: float type of the result.
        axis_name: mapped axis over which the batch is sharded, or None.

    Returns:
        `[batch, global_batch]` with `w_i w_j`, zero where i and j are the same row.
    """
    rows = row_weights(weights, batch, dtype)
    columns = gather(rows, axis_name)
    same = own_columns(batch, axis_name)[:, None] == jnp.arange(columns.shape[0])
    return jnp.where(same, 0.0, rows[:, None] * columns)


def own_columns(batch: int, axis_name: str | None) -> Array:
    """Positions of this shard's rows among the rows of all shards.

    Args:
        batch: number of rows on this shard.
        axis_name: mapped axis over which the batch is sharded, or None.

    Returns:
        `[batch]` integers.
    """
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    return first + jnp.arange(batch)
