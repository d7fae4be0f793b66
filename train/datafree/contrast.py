"""CMI's contrast of images being made with each other and with those made before."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from corrkd_jax.losses.synthesis import instance_contrastive
from train.datafree import ring


def remembered(local: Array, whole: Array) -> Array:
    """Rows of the memory: descriptors of crops and of the images that they are of, joined."""
    return jnp.concatenate([local, whole], axis=-1)


def contrast(
    project: Callable[[Array], Array],
    local: Array,
    whole: Array,
    memory: ring.Ring,
    key: Array,
    drawn: int = 4096,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> Array:
    """`losses.synthesis.instance_contrastive` of this batch and a draw of the memory.

    The memory holds what the teacher told of earlier images; today's head projects it, so that
    the head learns from it too.

    Args:
        project: the head, descriptors `[n, features]` -> rows of length one.
        local: `[batch, features]`, the teacher's descriptors of crops (`views.resized_crop`).
        whole: `[batch, features]`, of whole images (`views.crop_and_flip`).
        memory: of `remembered` rows, the same on every shard.
        key: the same on every shard.
        drawn: rows of the memory that take part.
        temperature: divisor of the inner products.
        axis_name: named axis over which the batch is sharded.
    """
    rows, weights = ring.draw_distinct(memory, key, drawn)
    # the memory may be of half the precision
    earlier_local, earlier_whole = jnp.split(rows.astype(local.dtype), 2, axis=-1)
    return instance_contrastive(
        project(local),
        project(whole),
        project(earlier_local),
        project(earlier_whole),
        temperature,
        cached_weights=weights,
        axis_name=axis_name,
    )
