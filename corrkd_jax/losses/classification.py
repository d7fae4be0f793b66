"""Supervised classification losses."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import Axis, Reduction, at_least_float32, reduce


def cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: Axis = None,
) -> jax.Array:
    """Softmax cross-entropy with integer labels, weighted and aware of shards.

    The softmax runs over the last axis, so several heads at once (`[batch, heads, classes]` with
    labels `[batch, heads]`, as the four binary emotions of IEMOCAP) need no loop. The per-example
    loss is optax's; this adds the weights and the reduction.

    Args:
        logits: `[..., classes]`, unnormalised; half precision is promoted to float32.
        labels: Integers `[...]` in `[0, classes)`. Rows of weight 0 may carry any label.
        weights: Weight of each example, a prefix of `[...]`; see `reduce`. Logits of rows of
            weight 0 must be finite.
        reduction: `"mean"` over all weighted positions, `"sum"`, or `"none"`.
        axis_name: Named axis over which the batch is sharded; see `reduce`.

    Returns:
        A scalar, or `[...]` for `"none"`; at least float32, in nats.

    Raises:
        ValueError: If `labels` does not have the shape of `logits` without its last axis, is not
            an integer array, or if `weights` or `reduction` is refused by `reduce`.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    values = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    return reduce(values, weights, reduction, axis_name)


def check_labels(logits: jax.Array, labels: jax.Array) -> None:
    """Refuse labels that are not one integer for each row of `logits`.

    Args:
        logits: `[..., classes]`.
        labels: Array to check.

    Raises:
        ValueError: If they are not integers `[...]`.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}: "
            f"expected {logits.shape[:-1]}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
