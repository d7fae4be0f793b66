"""DeepInversion (arXiv:1912.08795): images themselves are optimised until a teacher is sure."""

import jax
import jax.numpy as jnp
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.losses.batch import gather
from train.datafree.hosts.descent import Group, Outcome, descend
from train.datafree.hosts.host import Host, Terms, named, weighted
from train.datafree.hosts.networks import Networks, View
from train.engine import parallel
from train.engine.stage import Tree

TERMS = ("class_prior", "bn", "adversarial", "variation", "norm")


def host(config: DfkdConfig, networks: Networks) -> Host:
    """The host; it has no state of its own."""
    return Host(lambda key, teacher: {}, call=call, losses=named(config, TERMS))


def call(state: Tree, view: View, key: Array, data: Tree) -> tuple[Tree, Array, Terms]:
    """A batch of images from noise; the last iterate is taken, as in the published code."""
    settings, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    count = settings.batch_size or view.config.optimizer.batch_size
    classes, noise, steps = jax.random.split(key, 3)
    targets = parallel.own_rows(view.draw_classes(classes, count), axis_name)
    shape = (count, networks.side, networks.side, networks.channels)
    images = settings.start_mean + settings.start_deviation * jax.random.normal(noise, shape)
    lowest, highest = networks.normalized(jnp.zeros(())), networks.normalized(jnp.ones(()))

    def valid(parameters: dict[str, Tree]) -> dict[str, Tree]:
        return {"images": jnp.clip(parameters["images"], lowest, highest)}

    def loss(parameters: dict[str, Tree], key: Array) -> Outcome:
        images = parameters["images"]
        shown = jittered(key, images, settings.jitter) if settings.jitter else images
        answers = view.inspect(shown)
        terms = {
            "class_prior": synthesis.class_prior(answers.logits, targets, axis_name=axis_name),
            "bn": view.bn_distance(answers.statistics),
            "variation": synthesis.total_variation_l1(
                images, settings.diagonals, axis_name=axis_name
            ),
            "norm": synthesis.image_norm(images, axis_name=axis_name),
        }
        if settings.adversarial:
            student = view.ask_student(shown).logits
            terms["adversarial"] = synthesis.adversarial_js(
                student,
                answers.logits,
                settings.adversarial_temperature,
                settings.reverse,
                axis_name=axis_name,
            )
        return Outcome((), terms := weighted(view, terms), terms)

    start = valid({"images": parallel.own_rows(images, axis_name)})
    betas = (settings.beta1, settings.beta2)
    groups = {"images": Group(start["images"], settings.learning_rate, betas, sharded=True)}
    end = descend(loss, groups, steps, settings.steps, axis_name, clip=valid)
    return state, gather(networks.to_bytes(end.parameters["images"]), axis_name), end.last


def jittered(key: Array, images: Array, reach: int) -> Array:
    """The whole batch rolled by up to `reach` pixels, and mirrored every other time."""
    shift, flip = jax.random.split(key)
    by = jax.random.randint(shift, (2,), -reach, reach + 1)
    images = jnp.roll(images, by, (1, 2))
    return jnp.where(jax.random.bernoulli(flip), images[:, :, ::-1], images)
