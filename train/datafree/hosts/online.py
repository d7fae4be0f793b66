"""DAFL, ZSKT, DFQ and DFAD: a generator that trains on, turn by turn with the student.

They differ in the terms of its loss alone, which `configs.dfkd` names, and in how wrong the
student is measured to be: by divergence, or by DFAD in absolute differences of logits.

DAFL's own code (arXiv:1904.01186) has no turns: `together` is its step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import reduce, synthesis
from train.datafree.hosts.host import (
    Host,
    Shown,
    Terms,
    distillation,
    named,
    shard_latents,
    total,
    weighted,
)
from train.datafree.hosts.networks import Networks, View
from train.engine import optimizer
from train.engine.stage import Tree

TERMS = ("class_prior", "activation", "balance", "bn", "adversarial")


class Generating(NamedTuple):
    """A generator under training."""

    generator: Tree
    optimizer: Tree


def host(config: DfkdConfig, networks: Networks, by_logits: bool = False) -> Host:
    """The host.

    Args:
        config: of the run.
        networks: whose answers it asks for.
        by_logits: differences of teacher and student are those of their logits, as in DFAD.
    """

    def init(key: Array, teacher: Tree) -> Generating:
        generator = networks.generator.init(key, jnp.zeros((2, *networks.latent)))
        return Generating(generator, optax.scale_by_adam().init(generator["params"]))

    in_turn = partial(turn, adversarial=synthesis.adversarial_l1 if by_logits else None)
    return Host(
        init,
        turn=together if config.synthesis.joint else in_turn,
        draw=lambda state, latents: draw(networks, state.generator, latents),
        loss=absolute if by_logits else distillation,
        losses=named(config, TERMS),
    )


def draw(networks: Networks, generator: Tree, latents: Array) -> Array:
    """Images of latents, normalised; by what the generator's batch norms remember."""
    return networks.from_generator(networks.generator.apply(generator, latents))


def turn(
    state: Generating,
    view: View,
    key: Array,
    real: Array,
    adversarial: Callable[..., Array] | None = None,
) -> tuple[Generating, Terms, None]:
    """The generator's steps, each on images of its own."""
    settings = view.config.synthesis
    if adversarial is None:
        temperature = settings.adversarial_temperature
        adversarial = partial(synthesis.adversarial_kl, temperature=temperature)

    def step(state: Generating, key: Array) -> tuple[Generating, Terms]:
        state, terms, _ = _step(state, view, key, adversarial)
        return state, terms

    state, terms = lax.scan(step, state, jax.random.split(key, settings.steps))
    return state, jax.tree.map(lambda x: x[-1], terms), None


def together(
    state: Generating, view: View, key: Array, real: Array
) -> tuple[Generating, Terms, Shown]:
    """The generator's half of a step that it shares with the student, as in DAFL's own code.

    There both losses are summed over one pass of one batch, and both optimizers step. The student
    sees the images detached and the generator's loss does not ask the student, so the sum's
    gradients are those of either loss alone: the student's half may follow, on these very images,
    of the generator before its step, and on what the teacher said of them.
    """
    return _step(state, view, key)


def _step(
    state: Generating, view: View, key: Array, adversarial: Callable[..., Array] | None = None
) -> tuple[Generating, Terms, Shown]:
    """One step of the generator, and the images that it was taken on."""
    settings, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    latents = shard_latents(key, view.config.optimizer.batch_size, networks)

    def terms_of(output: Array) -> tuple[Terms, Shown]:
        images = networks.from_generator(output)
        answers = view.inspect(images)
        terms = {
            "class_prior": synthesis.class_prior(answers.logits, axis_name=axis_name),
            "activation": synthesis.activation(answers.features, axis_name=axis_name),
            "balance": synthesis.balance(answers.logits, settings.log_base, axis_name=axis_name),
            "bn": view.bn_distance(answers.statistics),
        }
        if settings.adversarial and adversarial is not None:
            student = view.ask_student(images).logits
            terms["adversarial"] = adversarial(student, answers.logits, axis_name=axis_name)
        return weighted(view, terms), Shown(images, answers.logits)

    generator, adam, terms, shown = improved(
        view, state.generator, state.optimizer, latents, terms_of
    )
    return Generating(generator, adam), terms, shown


def improved(
    view: View,
    generator: Tree,
    state: Tree,
    latents: Array,
    terms_of: Callable[[Array], tuple[Terms, Tree]],
    rate: ArrayLike | None = None,
) -> tuple[Tree, Tree, Terms, Tree]:
    """One step of Adam of a generator.

    Args:
        view: of the networks.
        generator: its variables.
        state: Adam's.
        latents: this shard's.
        terms_of: what the generator makes -> weighted terms of the loss, and what is to be kept.
        rate: learning rate, None for the configured one.

    Returns:
        Variables and Adam's state after the step, the terms before it, and what is to be kept.
    """
    settings, networks = view.config.synthesis, view.networks
    statistics = {k: v for k, v in generator.items() if k != "params"}

    def objective(params: Tree) -> tuple[Array, tuple[Terms, Tree, Tree]]:
        output, updates = networks.generator.apply(
            {"params": params, **statistics}, latents, train=True, mutable=list(statistics)
        )
        terms, extra = terms_of(output)
        return total(terms), (terms, extra, updates)

    step = optimizer.gradient_step(
        objective,
        generator["params"],
        optax.scale_by_adam(settings.beta1, settings.beta2),
        state,
        jnp.asarray(settings.learning_rate if rate is None else rate),
        axis_name=networks.axis_name,
    )
    terms, extra, updates = step.extra
    return {"params": step.params, **updates}, step.state, terms, extra


def absolute(
    logits: Array, teacher: Array, extra: Tree, temperature: float, axis_name: str | None
) -> Terms:
    """DFAD's distillation: mean absolute difference of logits."""
    return {"kd": reduce(jnp.abs(logits - lax.stop_gradient(teacher)), axis_name=axis_name)}
