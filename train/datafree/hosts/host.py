"""What a data-free method is to the student: a way to come by images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import kd
from train.datafree.hosts.networks import Networks, View
from train.engine import parallel
from train.engine.stage import Tree
from train.images.views import crop_and_flip

Terms = dict[str, Array]
"""Terms of a loss by name, weighted, so that their sum is the loss."""


class Shown(NamedTuple):
    """What a student learns from.

    Attributes:
        images: normalised.
        logits: what the teacher says of them.
    """

    images: Array
    logits: Array


StudentLoss = Callable[[Array, Array, Tree, float, str | None], Terms]
"""`(student logits, teacher logits, extra, temperature, axis_name) -> terms`."""


def distillation(
    logits: Array, teacher: Array, extra: Tree, temperature: float, axis_name: str | None
) -> Terms:
    """Plain distillation."""
    return {"kd": kd(logits, teacher, temperature, axis_name=axis_name)}


class Host(NamedTuple):
    """Pure functions of the host's state.

    Every key is the same on all shards of a batch.

    Attributes:
        init: `(key, teacher) -> state`; the teacher's variables tell shapes.
        call: of hosts whose images are kept: `(state, view, key, data) -> (state, images,
            losses)`, once an epoch: the whole batch as bytes, and the terms at its end.
        turn: of hosts that make new images for every step: `(state, view, key, real) -> (state,
            losses, shown)`, the generator's steps before the student's; `real` are this shard's
            of a batch of the pool, normalised, or the batch's rows where there is no pool.
            `shown` is what the student is to learn from in a single step, None to `draw` for it.
        draw: of the same hosts: `(state, latents) -> images`, normalised.
        loss: of the student.
        extra: `(classes) -> parameters` that `loss` trains beside the student, by Adam.
        losses: names of what `call` and `turn` return.
    """

    init: Callable[[Array, Tree], Tree]
    call: Callable[[Tree, View, Array, Tree], tuple[Tree, Array, Terms]] | None = None
    turn: Callable[[Tree, View, Array, Array], tuple[Tree, Terms, Shown | None]] | None = None
    draw: Callable[[Tree, Array], Array] | None = None
    loss: StudentLoss = distillation
    extra: Callable[[int], Tree] = lambda classes: {}
    losses: tuple[str, ...] = ()


def latents(key: Array, count: int, networks: Networks) -> Array:
    """Normal draws for a whole batch, `[count, ...]` as the generator takes them."""
    return jax.random.normal(key, (count, *networks.latent))


def shard_latents(key: Array, count: int, networks: Networks) -> Array:
    """This shard's block of `latents`."""
    return parallel.own_rows(latents(key, count, networks), networks.axis_name)


def augmented(view: View, key: Array, pixels: Array) -> Array:
    """Images in [0, 1] as teachers and students are shown them: cropped, mirrored, normalised."""
    networks = view.networks
    if view.config.optimizer.augment:
        key = jax.random.fold_in(key, parallel.shard_index(networks.axis_name))
        pixels = crop_and_flip(key, pixels)
    return networks.normalized(pixels)


def named(config: DfkdConfig, terms: Sequence[str]) -> tuple[str, ...]:
    """Those of some terms whose weights are not zero."""
    return tuple(name for name in terms if getattr(config.synthesis, name))


def weighted(view: View, terms: Terms) -> Terms:
    """Terms times their weights of the configuration, of the same names; weight 0 drops a term."""
    weights = view.config.synthesis
    return {name: getattr(weights, name) * x for name, x in terms.items() if getattr(weights, name)}


def total(terms: Terms) -> Array:
    """The loss itself."""
    return sum(terms.values(), jnp.zeros(()))
