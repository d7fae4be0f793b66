"""MosaicKD (arXiv:2110.15094): images made of patches that pass for those of another domain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.models.generators import PatchCritic
from train.datafree.hosts.host import Host, Terms, named, shard_latents, weighted
from train.datafree.hosts.networks import Networks, View
from train.datafree.hosts.online import draw, improved
from train.engine import optimizer
from train.engine.stage import Tree

TERMS = ("adversarial", "align", "balance", "local")


class Dueling(NamedTuple):
    """A generator and the critic of its patches, under training.

    Attributes:
        generator: its variables.
        generator_optimizer: its Adam's state.
        critic: its variables.
        critic_optimizer: its Adam's state.
        turns: taken so far.
    """

    generator: Tree
    generator_optimizer: Tree
    critic: Tree
    critic_optimizer: Tree
    turns: Array


def host(config: DfkdConfig, networks: Networks, turns: int) -> Host:
    """The host; `turns` are those of the whole run, along which the rates fall."""
    critic = PatchCritic(axis_name=networks.axis_name)

    def init(key: Array, teacher: Tree) -> Dueling:
        keys = jax.random.split(key)
        image = jnp.zeros((2, networks.side, networks.side, networks.channels))
        generator = networks.generator.init(keys[0], jnp.zeros((2, *networks.latent)))
        variables = critic.init(keys[1], image)
        states = (optax.scale_by_adam().init(x["params"]) for x in (generator, variables))
        return Dueling(generator, next(states), variables, next(states), jnp.int32(0))

    def turn(state: Dueling, view: View, key: Array, real: Array) -> tuple[Dueling, Terms, None]:
        return *_turn(state, view, key, real, critic, turns), None

    return Host(
        init,
        turn=turn,
        draw=lambda state, latents: draw(networks, state.generator, latents),
        losses=(*named(config, TERMS), "critic"),
    )


def _turn(
    state: Dueling, view: View, key: Array, real: Array, critic: PatchCritic, turns: int
) -> tuple[Dueling, Terms]:
    """The critic's step on these images, then the generator's on the same latents."""
    settings, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    latents = shard_latents(key, view.config.optimizer.batch_size, networks)
    rate = settings.learning_rate * optimizer.schedule("cosine", state.turns, turns)
    fake = lax.stop_gradient(draw(networks, state.generator, latents))
    statistics = {k: v for k, v in state.critic.items() if k != "params"}

    def objective(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params, **statistics}
        mutable = list(statistics)
        of_fake, updates = critic.apply(variables, fake, train=True, mutable=mutable)
        of_real, updates = critic.apply(
            {"params": params, **updates}, real, train=True, mutable=mutable
        )
        loss = synthesis.patch_discriminator(of_fake, of_real, axis_name=axis_name)
        return settings.local * loss, updates

    step = optimizer.gradient_step(
        objective,
        state.critic["params"],
        optax.scale_by_adam(settings.beta1, settings.beta2),
        state.critic_optimizer,
        rate,
        axis_name=axis_name,
    )
    improved_critic = {"params": step.params, **step.extra}

    def terms_of(output: Array) -> tuple[Terms, None]:
        images = networks.from_generator(output)
        logits, _ = view.ask_teacher(images)
        patches, _ = critic.apply(improved_critic, images, train=True, mutable=list(statistics))
        terms = {
            "align": synthesis.mean_entropy(logits, axis_name=axis_name),
            "balance": synthesis.balance(logits, settings.log_base, axis_name=axis_name),
            "local": synthesis.patch_generator(patches, axis_name=axis_name),
        }
        if settings.adversarial:
            student = view.ask_student(images).logits
            terms["adversarial"] = synthesis.adversarial_kl(
                student, logits, settings.adversarial_temperature, axis_name=axis_name
            )
        return weighted(view, terms), None

    generator, generator_state, terms, _ = improved(
        view, state.generator, state.generator_optimizer, latents, terms_of, rate
    )
    state = Dueling(generator, generator_state, improved_critic, step.state, state.turns + 1)
    return state, {**terms, "critic": step.value}
