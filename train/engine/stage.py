"""The contract between a method and the engine: a stage is a handful of pure functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax

Tree = Any
Context = dict[str, Tree]
"""What earlier stages selected, by stage name; constant for the stage that reads it."""


def _unchanged(batch: Tree, key: Array, context: Context) -> Tree:
    return batch


class Limit(NamedTuple):
    """Largest value of a metric, and what it measures, in words."""

    largest: float
    meaning: str


@dataclass(frozen=True)
class Stage:
    """One training: teacher, student, a de-biasing head, a policy.

    All functions are pure, see one seed and one arm, and know of devices only through the
    named mean over the axis of `train.engine.parallel`.

    Attributes:
        name: what the stage is called in metrics, checkpoints and in `Context`.
        epochs: how many passes over its data.
        data: which of the run's data sets it trains on.
        batch: rows a step, over all devices.
        init: `(key, batch, hyper, context) -> state`.
        step: `(state, batch, key) -> (state, metrics)`; metrics are scalars by name. A fault in
            `total` or `gradient_norm` is laid to the terms that have it too, if some have.
        evaluate: `(state, batch) -> sums`; additive over batches and devices. A row counts
            as often as `batch["row"]` says, 0 for padding; the data set `valid` must have it, and
            holds ones there as a rule.
        summarize: `(sums) -> metrics`; must hold `"score"`, larger is better, by which the
            engine keeps the best epoch's selection.
        select: `(state) -> tree` what is kept of the best epoch and handed to later stages.
        prepare: `(batch, key, context) -> batch`, the work that all arms share: a frozen
            teacher's targets, masks. The key is the epoch's, the same for all its steps.
        refresh: `(state, data, key, context, epoch) -> state`, before the first epoch and after
            each, or None; it may see the whole of the run's data. `epoch` counts those behind,
            and is the same for all seeds and arms, so that a `lax.cond` on it stays one.
        refresh_needs_all: whether `refresh` works on every row that it trains on, so that these
            cannot be streamed; else a sample of them will do.
        hyper: tree of arrays with a leading axis of arms, traced scalars for each arm; None
            if the stage has no arms.
        validate_every: epochs from one look at the validation split to the next.
        limits: metric -> `Limit` of what a step may report; more stops the run as a metric that is
            not finite does.
    """

    name: str
    epochs: int
    data: str
    batch: int
    init: Callable[[Array, Tree, Tree, Context], Tree]
    step: Callable[[Tree, Tree, Array], tuple[Tree, dict[str, Array]]]
    evaluate: Callable[[Tree, Tree], Tree]
    summarize: Callable[[Tree], dict[str, Array]]
    select: Callable[[Tree], Tree]
    prepare: Callable[[Tree, Array, Context], Tree] = _unchanged
    refresh: Callable[[Tree, Tree, Array, Context, Array], Tree] | None = None
    refresh_needs_all: bool = True
    hyper: Tree = None
    validate_every: int = 1
    limits: Mapping[str, Limit] = field(default_factory=dict)


def stacked(arms: Mapping[str, Tree]) -> Tree:
    """Hyper-parameters of arms by name as `Stage.hyper` has them, float32."""
    return jax.tree.map(lambda *leaves: np.asarray(leaves, np.float32), *arms.values())


Lanes = Callable[[Callable[..., Tree], tuple[int | None, ...]], Callable[..., Tree]]
"""Turns a function of one seed (or arm) into one of all of them."""


def vectorized(
    function: Callable[..., Tree], in_axes: tuple[int | None, ...]
) -> Callable[..., Tree]:
    """All lanes at once: `vmap`. What does not depend on the lane is computed once."""
    return jax.vmap(function, in_axes)


def looped(function: Callable[..., Tree], in_axes: tuple[int | None, ...]) -> Callable[..., Tree]:
    """One lane after the other, inside the same program: `lax.map`.

    On a CPU, where one lane already fills the cores, this keeps each lane's arrays in cache
    and its matrix products unbatched.
    """

    def all_lanes(*args: Tree) -> Tree:
        mapped = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]

        def one(own: list[Tree]) -> Tree:
            lanes = iter(own)
            return function(
                *(next(lanes) if axis == 0 else a for a, axis in zip(args, in_axes, strict=True))
            )

        return lax.map(one, mapped)

    return all_lanes


def lanes_for(name: str) -> Lanes:
    """How seeds and arms share a device; `auto` is side by side except on CPU."""
    if name == "auto":
        name = "map" if jax.default_backend() == "cpu" else "vmap"
    return {"map": looped, "vmap": vectorized}[name]
