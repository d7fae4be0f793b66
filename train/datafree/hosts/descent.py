"""Descents by Adam inside a step: of images, of latents, of a copy of a generator."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from train.datafree.hosts.host import Terms, total
from train.engine import parallel
from train.engine.stage import Tree


class Group(NamedTuple):
    """Parameters that descend together.

    Attributes:
        parameters: a tree of arrays.
        rate: learning rate.
        betas: Adam's decays.
        own: they are this shard's alone, as its images are; else the same on all shards.
        state: Adam's, None to begin afresh.
    """

    parameters: Tree
    rate: Any
    betas: tuple[float, float] = (0.9, 0.999)
    own: bool = False
    state: Tree | None = None


class Made(NamedTuple):
    """What a loss makes on its way.

    Attributes:
        made: kept of the best step: images, and what belongs to them.
        terms: of the loss, weighted.
        last: kept of the last step, without gradient.
    """

    made: Tree
    terms: Terms
    last: Tree = ()


class Descent(NamedTuple):
    """The end of a descent.

    Attributes:
        parameters: of the groups, after the last step.
        states: Adam's, of the groups.
        made: of the step of least loss, before its descent.
        terms: at that step.
        last: of the last step.
        gradients: of the groups that were asked for, sums over the steps.
    """

    parameters: dict[str, Tree]
    states: dict[str, Tree]
    made: Tree
    terms: Terms
    last: Tree
    gradients: dict[str, Tree]


def descend(
    loss: Callable[[dict[str, Tree], Array], Made],
    groups: Mapping[str, Group],
    key: Array,
    steps: int,
    axis_name: str | None,
    clip: Callable[[dict[str, Tree]], dict[str, Tree]] = lambda parameters: parameters,
    gradients_of: tuple[str, ...] = (),
) -> Descent:
    """A fixed number of steps.

    Args:
        loss: `(parameters by group, key) -> made`; the same value on every shard of the batch.
        groups: by name.
        key: folded with each step's number.
        steps: at least one.
        axis_name: mapped axis of the shards.
        clip: what is done to the parameters after each step.
        gradients_of: groups whose gradients are added up.
    """
    tx = {name: optax.scale_by_adam(*group.betas) for name, group in groups.items()}

    def objective(parameters: dict[str, Tree], key: Array) -> tuple[Array, Made]:
        made = loss(parameters, key)
        return total(made.terms), made

    def one(name: str, x: Tree, state: Tree, gradient: Tree) -> tuple[Tree, Tree, Tree]:
        group = groups[name]
        if group.own:
            # the loss is the whole batch's on every shard, and each sends its gradient here
            count = parallel.shard_count(axis_name)
            gradient = jax.tree.map(lambda g: g / count, gradient)
        else:
            gradient = parallel.mean(gradient, axis_name)
        direction, state = tx[name].update(gradient, state)
        return jax.tree.map(lambda p, d: p - group.rate * d, x, direction), state, gradient

    def step(carry: tuple, number: Array) -> tuple[tuple, None]:
        parameters, states, best, chosen, _, sums = carry
        (value, made), gradients = jax.value_and_grad(objective, has_aux=True)(
            parameters, jax.random.fold_in(key, number)
        )
        moved = {name: one(name, parameters[name], states[name], gradients[name]) for name in tx}
        better = value < best
        chosen = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (made.made, made.terms), chosen
        )
        carry = (
            clip({name: x for name, (x, _, _) in moved.items()}),
            {name: state for name, (_, state, _) in moved.items()},
            jnp.minimum(value, best),
            chosen,
            made.last,
            {name: jax.tree.map(jnp.add, x, moved[name][2]) for name, x in sums.items()},
        )
        return carry, None

    parameters = {name: group.parameters for name, group in groups.items()}
    states = {
        name: tx[name].init(group.parameters) if group.state is None else group.state
        for name, group in groups.items()
    }
    shapes = jax.eval_shape(loss, parameters, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    chosen, sums = (zeros.made, zeros.terms), {name: parameters[name] for name in gradients_of}
    sums = jax.tree.map(jnp.zeros_like, sums)
    start = (parameters, states, jnp.array(jnp.inf), chosen, zeros.last, sums)
    end, _ = lax.scan(step, start, jnp.arange(steps))
    parameters, states, _, (made, terms), last, sums = end
    return Descent(parameters, states, made, terms, lax.stop_gradient(last), sums)
