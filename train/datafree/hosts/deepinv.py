"""DeepInversion (arXiv:1912.08795): images themselves are optimised until a teacher is sure."""

import jax
import jax.numpy as jnp
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.losses.batch import gather
from train.datafree.hosts.descent import Group, Made, descend
from train.datafree.hosts.host import Host, Terms, named, weighted
from train.datafree.hosts.networks import Networks, View
from train.engine import parallel
from train.engine.stage import Tree

TERMS = ("class_prior", "bn", "adversarial", "variation", "norm")


def host(config: DfkdConfig, networks: Networks) -> Host:
    """The host; it has no state of its own."""
    return Host(lambda key, teacher: {}, call=call, losses=named(config, TERMS))


def call(own: Tree, view: View, key: Array, data: Tree) -> tuple[Tree, Array, Terms]:
    """A batch of images from noise; the last iterate is taken, as in the published code."""
    chosen, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    count = chosen.batch_size or view.config.optimizer.batch_size
    classes, noise, steps = jax.random.split(key, 3)
    targets = parallel.own_rows(view.draw_classes(classes, count), axis_name)
    shape = (count, networks.side, networks.side, networks.channels)
    images = chosen.start_mean + chosen.start_deviation * jax.random.normal(noise, shape)
    lowest, highest = networks.normalized(jnp.zeros(())), networks.normalized(jnp.ones(()))

    def valid(parameters: dict[str, Tree]) -> dict[str, Tree]:
        return {"images": jnp.clip(parameters["images"], lowest, highest)}

    def loss(parameters: dict[str, Tree], key: Array) -> Made:
        images = parameters["images"]
        seen = jittered(key, images, chosen.jitter) if chosen.jitter else images
        said = view.inspect(seen)
        terms = {
            "class_prior": synthesis.class_prior(said.logits, targets, axis_name=axis_name),
            "bn": view.bn_distance(said.statistics),
            "variation": synthesis.total_variation_l1(
                images, chosen.diagonals, axis_name=axis_name
            ),
            "norm": synthesis.image_norm(images, axis_name=axis_name),
        }
        if chosen.adversarial:
            student = view.ask_student(seen).logits
            terms["adversarial"] = synthesis.adversarial_js(
                student,
                said.logits,
                chosen.adversarial_temperature,
                chosen.reverse,
                axis_name=axis_name,
            )
        return Made((), terms := weighted(view, terms), terms)

    start = valid({"images": parallel.own_rows(images, axis_name)})
    betas = (chosen.beta1, chosen.beta2)
    groups = {"images": Group(start["images"], chosen.learning_rate, betas, own=True)}
    end = descend(loss, groups, steps, chosen.steps, axis_name, clip=valid)
    return own, gather(networks.to_bytes(end.parameters["images"]), axis_name), end.last


def jittered(key: Array, images: Array, reach: int) -> Array:
    """The whole batch rolled by up to `reach` pixels, and mirrored every other time."""
    shift, flip = jax.random.split(key)
    by = jax.random.randint(shift, (2,), -reach, reach + 1)
    images = jnp.roll(images, by, (1, 2))
    return jnp.where(jax.random.bernoulli(flip), images[:, :, ::-1], images)
