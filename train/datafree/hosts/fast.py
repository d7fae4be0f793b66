"""Fast (arXiv:2112.06253): a generator that learns to be a good start for a few descents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.losses.batch import gather
from train.datafree import ring
from train.datafree.hosts.descent import Descent, Group, Outcome, descend
from train.datafree.hosts.host import Host, Terms, augmented, named, shard_latents, weighted
from train.datafree.hosts.networks import Networks, View
from train.engine import parallel
from train.engine.stage import Tree

TERMS = ("class_prior", "bn", "adversarial")
REPTILE_FACTOR = 67.0
"""Fast-Datafree's on CIFAR; for ImageNet it has 1."""


class Meta(NamedTuple):
    """What stays from call to call.

    Attributes:
        generator: variables of the generator that copies start from.
        optimizer: its Adam's state.
        statistics: of earlier images at the teacher's batch norms.
        calls: made so far.
    """

    generator: Tree
    optimizer: Tree
    statistics: Tree
    calls: Array


def host(config: DfkdConfig, networks: Networks) -> Host:
    """The host."""

    def init(key: Array, teacher: Tree) -> Meta:
        latent = jnp.zeros((2, *networks.latent))
        generator = networks.generator.init(key, latent)
        statistics = jax.tree.map(jnp.zeros_like, teacher.get("batch_stats", {}))
        state = optax.scale_by_adam().init(generator["params"])
        return Meta(generator, state, statistics, jnp.int32(0))

    return Host(init, call=call, losses=named(config, TERMS))


def call(meta: Meta, view: View, key: Array, data: Tree) -> tuple[Meta, Array, Terms]:
    """The images of least loss among a copy's few descents; then the generator learns from it."""
    settings, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    count = settings.batch_size or view.config.optimizer.batch_size
    classes, noise, fresh, steps = jax.random.split(key, 4)
    targets = parallel.own_rows(view.draw_classes(classes, count), axis_name)
    statistics = {k: v for k, v in meta.generator.items() if k != "params"}
    params = meta.generator["params"]
    if settings.reset:
        due = meta.calls == settings.warmup + settings.reset
        params = jax.tree.map(
            lambda new, old: jnp.where(due, new, old), first_layer_anew(fresh, params), params
        )

    def loss(parameters: dict[str, Tree], key: Array) -> Outcome:
        # a copy is normalised by its own batch, and what it remembers is thrown away with it
        pixels, _ = networks.generator.apply(
            {"params": parameters["copy"], **statistics},
            parameters["latents"],
            train=True,
            mutable=list(statistics),
        )
        shown = augmented(view, key, pixels)
        answers = view.inspect(shown)
        statistics_so_far = synthesis.blend_statistics(
            answers.statistics,
            meta.statistics,
            jnp.where(meta.calls > 0, settings.ema_decay, 0.0),
        )
        terms = {
            "class_prior": synthesis.class_prior(answers.logits, targets, axis_name=axis_name),
            "bn": view.bn_distance(statistics_so_far),
        }
        if settings.adversarial:
            student = view.ask_student(shown).logits
            terms["adversarial"] = jnp.where(
                meta.calls >= settings.warmup,
                synthesis.decision_adversarial(student, answers.logits, axis_name=axis_name),
                0.0,
            )
        return Outcome(pixels, weighted(view, terms), statistics_so_far)

    betas = (settings.beta1, settings.beta2)
    start = shard_latents(noise, count, networks)
    groups = {
        "copy": Group(params, settings.learning_rate, betas),
        "latents": Group(start, settings.latent_learning_rate, betas, sharded=True),
    }
    learned = ("copy",) if settings.meta == "fomaml" else ()
    end = descend(loss, groups, steps, settings.steps, axis_name, gradients_of=learned)
    gradient = meta_gradient(settings.meta, params, end)
    direction, state = optax.scale_by_adam(*betas).update(gradient, meta.optimizer)
    rate = settings.learning_rate * settings.steps
    params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    generator = {"params": params, **statistics}
    images = gather(ring.quantize(end.best), axis_name)
    return Meta(generator, state, end.last, meta.calls + 1), images, end.terms


def meta_gradient(method: str, weights: Tree, end: Descent) -> Tree:
    """What the weights learn from a copy's descents, for an optimizer of K times the copy's rate.

    The weights move so that the next copy starts nearer to its end (arXiv:2112.06253, sections 3.2
    and 3.3).

    Args:
        method: `fomaml`, first-order MAML (arXiv:1703.03400): the sum of the gradients that the
            copy met. As Fast-Datafree has it: at all K places from the copied weights on, the last
            one excepted, which no gradient was taken at. `reptile` (arXiv:1803.02999): the way
            back from where the copy ended, times `REPTILE_FACTOR`.
        weights: that were copied.
        end: of the descent of `copy`, with its gradients for `fomaml`.
    """
    if method == "fomaml":
        return end.gradients["copy"]
    ended = end.parameters["copy"]
    return jax.tree.map(lambda start, end: REPTILE_FACTOR * (start - end), weights, ended)


def first_layer_anew(key: Array, params: Tree) -> Tree:
    """The first linear layer and batch norm drawn again: weights N(0, 0.02^2), no biases."""
    kernel_key, scale_key = jax.random.split(key)
    if "project" not in params:
        return params
    project, norm = params["project"], params["norm"]
    kernel = 0.02 * jax.random.normal(kernel_key, project["kernel"].shape)
    scale = 0.02 * jax.random.normal(scale_key, norm["scale"].shape)
    return {
        **params,
        "project": {"kernel": kernel, "bias": jnp.zeros_like(project["bias"])},
        "norm": {"scale": scale, "bias": jnp.zeros_like(norm["bias"])},
    }
