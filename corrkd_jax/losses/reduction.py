"""Reduction of per-example losses to a scalar.

A mean over a batch that is padded, or sharded over devices, is easy to get subtly wrong. The
padding must not enter the denominator. A mean of per-device means is not the mean of the batch
when the devices hold different numbers of real rows. `reduce` settles both.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Axis = str | Sequence[str] | None
"""Named axis, or axes, over which a batch is sharded; None: the batch is whole."""

Reduction = Literal["mean", "sum", "none"]
"""Reductions of per-example values; see `reduce`."""


def at_least_float32(array: ArrayLike) -> jax.Array:
    """Array with integers and half-precision floats promoted to float32; wider floats stay.

    Losses stay in float32 even where a network computes in bfloat16: a log-softmax in bfloat16 has
    two or three correct digits.

    Args:
        array: Numbers of any shape and dtype.

    Returns:
        The same values, float32 or (under `jax_enable_x64`) float64.
    """
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def reduce(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: Axis = None,
) -> jax.Array:
    """Weighted reduction of per-example loss values, over a batch and over devices.

    `"mean"` is `sum(w * v) / sum(w)`; both sums run over the batch and, with `axis_name`,
    over all shards, so every shard returns the value that the whole batch would have on one device.
    The mean over shards (`jax.lax.pmean`) of the shards' gradients with respect to replicated
    parameters is then the gradient of that global value, however many real rows each shard has;
    this holds under `pmap`, `vmap` and `shard_map`.

    Args:
        values: Per-example values, `[batch, ...]`.
        weights: Non-negative weight of each example, numbers or booleans. Its shape is a prefix of
            the shape of `values`: `[batch]` weighs whole examples. `None` weighs everything 1.
            Values at weight 0 are dropped before they are multiplied, so they may be anything;
            their *gradient* is exactly zero only if what they were computed from is finite.
        reduction: `"mean"` (0 when all weights are 0), `"sum"` (`sum(w * v)`), or `"none"`
            (`w * v`, with the shape of `values`).
        axis_name: Named axis, or axes, over which the batch is sharded. `"none"` needs no
            communication and ignores it.

    Returns:
        A scalar, or for `"none"` an array of the shape of `values`; at least float32.

    Raises:
        ValueError: If `reduction` is unknown, or the shape of `weights` is not a prefix of the
            shape of `values`.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    values = at_least_float32(values)
    if weights is None:
        weights = jnp.ones_like(values)
    else:
        weights = jnp.asarray(weights)
        if weights.shape != values.shape[: weights.ndim]:
            raise ValueError(
                f"weights of shape {weights.shape} do not fit values of shape {values.shape}: "
                "the first must be a prefix of the second"
            )
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
        weights = jnp.broadcast_to(weights, values.shape).astype(values.dtype)
    weighted = jnp.where(weights > 0, values, 0) * weights
    if reduction == "none":
        return weighted
    total = jnp.sum(weighted)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    if reduction == "sum":
        return total
    count = jnp.sum(weights)
    if axis_name is not None:
        count = jax.lax.psum(count, axis_name)
    # An empty batch divides by 1 rather than by a tiny number, whose reciprocal would overflow in
    # the gradient.
    return total / jnp.where(count > 0, count, 1)
