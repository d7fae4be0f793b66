"""Optimizers with a traced learning rate, so that rates can be arms of one program."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


def adam(clip: float, groups: tuple[str, ...]) -> optax.GradientTransformation:
    """Adam directions, each group of parameters clipped by its own global norm.

    Args:
        clip: largest norm of a group's gradient.
        groups: top-level keys of the parameter tree.

    Returns:
        A transformation without learning rate; `descend` applies one.
    """
    each = {
        # one vector a group: an update of a few long loops instead of one a leaf
        name: optax.flatten(optax.chain(optax.clip_by_global_norm(clip), optax.scale_by_adam()))
        for name in groups
    }

    def group_of(path: tuple, _: Any) -> str:
        return path[0].key

    return optax.partition(each, lambda tree: jax.tree.map_with_path(group_of, tree))


def momentum(
    decay: float, clip: float = math.inf, kept: float = 0.9
) -> optax.GradientTransformation:
    """Directions of SGD as torch has it: gradient plus decay, accumulated.

    Args:
        decay: weight decay, part of the gradient and so of what is accumulated.
        clip: largest global norm of the gradient before that.
        kept: share of the accumulated direction that a step keeps.

    Returns:
        A transformation without learning rate; `descend` applies one.
    """
    steps = [] if math.isinf(clip) else [optax.clip_by_global_norm(clip)]
    return optax.chain(*steps, optax.add_decayed_weights(decay), optax.trace(kept))


def descend(
    params: Any,
    direction: Any,
    rate: Array,
    decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
) -> Any:
    """`params - rate * (direction + decay * params)`, leaf by leaf.

    Args:
        params: tree of parameters.
        direction: of the same form.
        rate: learning rate.
        decay: weight decay, apart from the gradient.
        factors: multiples of the rate by the name of a part, wherever in the tree it stands; 1
            for all others.
    """
    factors = factors or {}

    def step(path: tuple, p: Array, d: Array) -> Array:
        own = math.prod(factors.get(getattr(key, "key", None), 1.0) for key in path)
        return p - own * rate * (d + decay * p)

    return jax.tree.map_with_path(step, params, direction)


def schedule(kind: str, step: Array, total: int, lowest: float = 0.0) -> Array:
    """Factor on the learning rate at a step counted from 0.

    `"constant"`; `"cosine"`, to `lowest`; `"steps"`, a tenth from 40 % and a hundredth from 80 %
    on.
    """
    if kind == "constant":
        return jnp.ones(())
    if kind == "cosine":
        return lowest + (1.0 - lowest) * 0.5 * (1.0 + jnp.cos(jnp.pi * step / total))
    if kind == "steps":
        # in whole numbers: four fifths of ten are a little more than eight in float32
        return jnp.where(5 * step < 2 * total, 1.0, jnp.where(5 * step < 4 * total, 0.1, 0.01))
    raise ValueError(f"schedule is 'constant', 'cosine' or 'steps', not {kind!r}")
