"""CMI (arXiv:2105.08584): a new generator for every batch, told to make what is not there yet."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.losses.batch import gather
from corrkd_jax.models.backbones import ResNet
from corrkd_jax.models.descriptors import norm_descriptors, stage_descriptors
from corrkd_jax.models.generators import ProjectionHead
from train.datafree import ring
from train.datafree.contrast import contrast, remembered
from train.datafree.hosts.descent import Group, Outcome, descend
from train.datafree.hosts.host import Host, Terms, augmented, named, shard_latents, weighted
from train.datafree.hosts.networks import Networks, View
from train.engine import parallel
from train.engine.stage import Tree
from train.images.views import resized_crop

TERMS = ("class_prior", "bn", "adversarial", "contrast")
HEAD = ProjectionHead()


class Memory(NamedTuple):
    """What stays from call to call.

    Attributes:
        head: parameters of the projection.
        optimizer: its Adam's state.
        bank: descriptors of earlier images.
    """

    head: Tree
    optimizer: Tree
    bank: ring.Ring


def host(config: DfkdConfig, networks: Networks) -> Host:
    """The host."""

    def init(key: Array, teacher: Tree) -> Memory:
        shape = (2, networks.side, networks.side, networks.channels)
        rows = jax.eval_shape(lambda: describe(networks, teacher, jnp.zeros(shape)))
        head = HEAD.init(key, jnp.zeros(rows.shape))["params"]
        bank = ring.empty(config.synthesis.bank, (2 * rows.shape[-1],), jnp.bfloat16)
        return Memory(head, optax.scale_by_adam().init(head), bank)

    return Host(init, call=call, losses=named(config, TERMS))


def describe(networks: Networks, teacher: Tree, images: Array) -> Array:
    """Descriptors `[batch, features]`, of a ResNet-34 those of its stages as published."""
    network = networks.teacher
    if isinstance(network, ResNet) and network.depth == 34:
        return stage_descriptors(network, teacher, images)
    return norm_descriptors(network, teacher, images)


def call(memory: Memory, view: View, key: Array, data: Tree) -> tuple[Memory, Array, Terms]:
    """The images of least loss of a generator that begins anew."""
    settings, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    count = settings.batch_size or view.config.optimizer.batch_size
    classes, noise, fresh, steps = jax.random.split(key, 4)
    targets = jnp.sort(view.draw_classes(classes, count))
    targets = parallel.own_rows(targets, axis_name)
    start = shard_latents(noise, count, networks)
    variables = networks.generator.init(fresh, start)
    statistics = {k: v for k, v in variables.items() if k != "params"}

    def loss(parameters: dict[str, Tree], key: Array) -> Outcome:
        whole_key, crop_key, bank_key = jax.random.split(key, 3)
        pixels, _ = networks.generator.apply(
            {"params": parameters["generator"], **statistics},
            parameters["latents"],
            train=True,
            mutable=list(statistics),
        )
        shown = augmented(view, whole_key, pixels)
        answers = view.inspect(shown)
        terms = {
            "class_prior": synthesis.class_prior(answers.logits, targets, axis_name=axis_name),
            "bn": view.bn_distance(answers.statistics),
        }
        if settings.adversarial:
            student = view.ask_student(shown).logits
            terms["adversarial"] = synthesis.decision_adversarial(
                student, answers.logits, axis_name=axis_name
            )
        crop_key = jax.random.fold_in(crop_key, parallel.shard_index(axis_name))
        part = networks.normalized(
            resized_crop(crop_key, pixels, flip=view.config.optimizer.augment)
        )
        whole, local = (describe(networks, view.teacher, x) for x in (shown, part))
        if settings.contrast:
            terms["contrast"] = contrast(
                lambda x: HEAD.apply({"params": parameters["head"]}, x),
                local,
                whole,
                memory.bank,
                bank_key,
                settings.bank_draw,
                settings.contrast_temperature,
                axis_name,
            )
        return Outcome((pixels, remembered(local, whole)), weighted(view, terms))

    betas = (settings.beta1, settings.beta2)
    groups = {
        "generator": Group(dcgan_normal(fresh, variables["params"]), settings.learning_rate, betas),
        "latents": Group(start, settings.latent_learning_rate, betas, sharded=True),
        "head": Group(memory.head, settings.learning_rate, state=memory.optimizer),
    }
    end = descend(loss, groups, steps, settings.steps, axis_name)
    pixels, rows = end.best
    bank = ring.push(memory.bank, gather(rows, axis_name))
    images = gather(ring.quantize(pixels), axis_name)
    return Memory(end.parameters["head"], end.states["head"], bank), images, end.terms


def dcgan_normal(key: Array, params: Tree) -> Tree:
    """Parameters drawn as DCGAN's: weights N(0, 0.02^2), scales N(1, 0.02^2), no biases."""
    leaves, structure = jax.tree.flatten_with_path(params)
    drawn = []
    for number, (path, x) in enumerate(leaves):
        noise = 0.02 * jax.random.normal(jax.random.fold_in(key, number), x.shape)
        means = {"kernel": 0.0, "scale": 1.0}
        name = path[-1].key
        drawn.append(means[name] + noise if name in means else jnp.zeros_like(x))
    return jax.tree.unflatten(structure, drawn)
