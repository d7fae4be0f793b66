"""Optimizers with a traced learning rate, so that rates can be arms of one program."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from train.engine import parallel


def adam(clip_norm: float, groups: tuple[str, ...]) -> optax.GradientTransformation:
    """Adam directions, each group of parameters clipped by its own global norm.

    Args:
        clip_norm: largest norm of a group's gradient.
        groups: top-level keys of the parameter tree.

    Returns:
        A transformation without learning rate; `descend` applies one.
    """
    each: dict[Hashable, optax.GradientTransformation] = {
        # one vector a group: an update of a few long loops instead of one a leaf
        name: optax.flatten(
            optax.chain(optax.clip_by_global_norm(clip_norm), optax.scale_by_adam())
        )
        for name in groups
    }

    def group_of(path: tuple[Any, ...], _: Any) -> str:
        return path[0].key

    return optax.partition(each, lambda tree: jax.tree.map_with_path(group_of, tree))


def sgd(
    weight_decay: float, clip_norm: float = math.inf, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Directions of SGD as torch has it: gradient plus decay, accumulated.

    Args:
        weight_decay: part of the gradient and so of what is accumulated.
        clip_norm: largest global norm of the gradient before that.
        momentum: share of the accumulated direction that a step keeps.

    Returns:
        A transformation without learning rate; `descend` applies one.
    """
    steps = [] if math.isinf(clip_norm) else [optax.clip_by_global_norm(clip_norm)]
    return optax.chain(*steps, optax.add_decayed_weights(weight_decay), optax.trace(momentum))


def descend(
    params: Any,
    direction: Any,
    learning_rate: Any,
    weight_decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
) -> Any:
    """`params - learning_rate * (direction + weight_decay * params)`, leaf by leaf.

    Args:
        params: tree of parameters.
        direction: of the same form.
        learning_rate: traced or not.
        weight_decay: apart from the gradient.
        factors: multiples of the rate by the name of a part, wherever in the tree it stands; 1
            for all others.
    """
    factors = factors or {}

    def step(path: tuple[Any, ...], p: Array, d: Array) -> Array:
        factor = math.prod(factors.get(getattr(key, "key", ""), 1.0) for key in path)
        return p - factor * learning_rate * (d + weight_decay * p)

    return jax.tree.map_with_path(step, params, direction)


class Descent(NamedTuple):
    """A step of gradient descent.

    Attributes:
        params: after the step.
        state: of the transformation, after the step.
        value: of the objective before it.
        extra: what the objective gives beside its value.
        gradients: of the objective, over the whole batch.
    """

    params: Any
    state: Any
    value: Array
    extra: Any
    gradients: Any


def gradient_step(
    objective: Callable[[Any], tuple[Array, Any]],
    params: Any,
    tx: optax.GradientTransformation,
    state: Any,
    learning_rate: Any,
    *,
    weight_decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
    axis_name: str | None = None,
) -> Descent:
    """One step down the gradient of an objective.

    Args:
        objective: `(params) -> (value, extra)`; on every shard of a batch its value is the whole
            batch's.
        params: tree of parameters.
        tx: transformation of gradients, without a learning rate.
        state: of the transformation.
        learning_rate: traced or not.
        weight_decay: apart from the gradient.
        factors: multiples of the learning rate, see `descend`.
        axis_name: mapped axis over which batches are sharded, or None.
    """
    (value, extra), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    # every shard has the whole batch's value; the mean of the gradients is its gradient
    gradients = parallel.mean(gradients, axis_name)
    direction, state = tx.update(gradients, state, params)
    params = descend(params, direction, learning_rate, weight_decay, factors)
    return Descent(params, state, value, extra, gradients)


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
