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
        sharded: they are this shard's alone, as its images are; else the same on all shards.
        state: Adam's, None to begin afresh.
    """

    parameters: Tree
    rate: Any
    betas: tuple[float, float] = (0.9, 0.999)
    sharded: bool = False
    state: Tree | None = None


class Outcome(NamedTuple):
    """What a loss makes on its way.

    Attributes:
        best: what is kept of the best step: images, and what belongs to them.
        terms: of the loss, weighted.
        last: what is kept of the last step, without gradient.
    """

    best: Tree
    terms: Terms
    last: Tree = ()


class Descent(NamedTuple):
    """The end of a descent.

    Attributes:
        parameters: of the groups, after the last step.
        states: Adam's, of the groups.
        best: of the step of least loss, before its descent.
        terms: at that step.
        last: of the last step.
        gradients: of the groups that were asked for, sums over the steps.
    """

    parameters: dict[str, Tree]
    states: dict[str, Tree]
    best: Tree
    terms: Terms
    last: Tree
    gradients: dict[str, Tree]


def descend(
    loss: Callable[[dict[str, Tree], Array], Outcome],
    groups: Mapping[str, Group],
    key: Array,
    steps: int,
    axis_name: str | None,
    clip: Callable[[dict[str, Tree]], dict[str, Tree]] = lambda parameters: parameters,
    gradients_of: tuple[str, ...] = (),
) -> Descent:
    """A fixed number of steps.

    Args:
        loss: `(parameters by group, key) -> outcome`; the same value on every shard of the batch.
        groups: by name.
        key: folded with each step's number.
        steps: at least one.
        axis_name: mapped axis of the shards.
        clip: what is done to the parameters after each step.
        gradients_of: groups whose gradients are added up.
    """
    tx = {name: optax.scale_by_adam(*group.betas) for name, group in groups.items()}

    def objective(parameters: dict[str, Tree], key: Array) -> tuple[Array, Outcome]:
        outcome = loss(parameters, key)
        return total(outcome.terms), outcome

    def one(name: str, x: Tree, state: Tree, gradient: Tree) -> tuple[Tree, Tree, Tree]:
        group = groups[name]
        if group.sharded:
            # the loss is the whole batch's on every shard, and each sends its gradient here
            count = parallel.shard_count(axis_name)
            gradient = jax.tree.map(lambda g: g / count, gradient)
        else:
            gradient = parallel.mean(gradient, axis_name)
        direction, state = tx[name].update(gradient, state)
        return jax.tree.map(lambda p, d: p - group.rate * d, x, direction), state, gradient

    def step(carry: tuple, number: Array) -> tuple[tuple, None]:
        parameters, states, least, best, _, sums = carry
        (value, outcome), gradients = jax.value_and_grad(objective, has_aux=True)(
            parameters, jax.random.fold_in(key, number)
        )
        moved = {name: one(name, parameters[name], states[name], gradients[name]) for name in tx}
        better = value < least
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (outcome.best, outcome.terms), best
        )
        carry = (
            clip({name: x for name, (x, _, _) in moved.items()}),
            {name: state for name, (_, state, _) in moved.items()},
            jnp.minimum(value, least),
            best,
            outcome.last,
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
    sums = jax.tree.map(jnp.zeros_like, {name: parameters[name] for name in gradients_of})
    best = zeros.best, zeros.terms
    start = (parameters, states, jnp.array(jnp.inf), best, zeros.last, sums)
    end, _ = lax.scan(step, start, jnp.arange(steps))
    parameters, states, _, (best, terms), last, sums = end
    return Descent(parameters, states, best, terms, lax.stop_gradient(last), sums)
