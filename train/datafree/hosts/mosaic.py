"""MosaicKD (arXiv:2110.15094): images made of patches that pass for those of another domain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from configs.dfkd import DfkdConfig
from corrkd_jax.losses import synthesis
from corrkd_jax.models.generators import PatchCritic
from train.datafree.hosts.host import Host, Terms, named, own_latents, weighted
from train.datafree.hosts.networks import Networks, View
from train.datafree.hosts.online import draw, improved
from train.engine import optimizer, parallel
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
        judge = critic.init(keys[1], image)
        states = (optax.scale_by_adam().init(x["params"]) for x in (generator, judge))
        return Dueling(generator, next(states), judge, next(states), jnp.int32(0))

    def turn(own: Dueling, view: View, key: Array, real: Array) -> tuple[Dueling, Terms, None]:
        return *_turn(own, view, key, real, critic, turns), None

    return Host(
        init,
        turn=turn,
        draw=lambda own, latents: draw(networks, own.generator, latents),
        losses=(*named(config, TERMS), "critic"),
    )


def _turn(
    own: Dueling, view: View, key: Array, real: Array, critic: PatchCritic, turns: int
) -> tuple[Dueling, Terms]:
    """The critic's step on these images, then the generator's on the same latents."""
    chosen, networks = view.config.synthesis, view.networks
    axis_name = networks.axis_name
    latents = own_latents(key, view.config.optimizer.batch_size, networks)
    rate = chosen.learning_rate * optimizer.schedule("cosine", own.turns, turns)
    fake = lax.stop_gradient(draw(networks, own.generator, latents))
    statistics = {k: v for k, v in own.critic.items() if k != "params"}

    def objective(params: Tree) -> tuple[Array, Tree]:
        variables = {"params": params, **statistics}
        mutable = list(statistics)
        of_fake, updates = critic.apply(variables, fake, train=True, mutable=mutable)
        of_real, updates = critic.apply(
            {"params": params, **updates}, real, train=True, mutable=mutable
        )
        loss = synthesis.patch_discriminator(of_fake, of_real, axis_name=axis_name)
        return chosen.local * loss, updates

    params = own.critic["params"]
    (loss, updates), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    gradient = parallel.mean(gradient, axis_name)
    tx = optax.scale_by_adam(chosen.beta1, chosen.beta2)
    direction, critic_state = tx.update(gradient, own.critic_optimizer)
    judge = {"params": optimizer.descend(params, direction, rate), **updates}

    def terms_of(made: Array) -> tuple[Terms, None]:
        images = networks.from_generator(made)
        logits, _ = view.ask_teacher(images)
        patches, _ = critic.apply(judge, images, train=True, mutable=list(statistics))
        terms = {
            "align": synthesis.mean_entropy(logits, axis_name=axis_name),
            "balance": synthesis.balance(logits, chosen.log_base, axis_name=axis_name),
            "local": synthesis.patch_generator(patches, axis_name=axis_name),
        }
        if chosen.adversarial:
            student = view.ask_student(images).logits
            terms["adversarial"] = synthesis.adversarial_kl(
                student, logits, chosen.adversarial_temperature, axis_name=axis_name
            )
        return weighted(view, terms), None

    generator, state, terms, _ = improved(
        view, own.generator, own.generator_optimizer, latents, terms_of, rate
    )
    own = Dueling(generator, state, judge, critic_state, own.turns + 1)
    return own, {**terms, "critic": loss}
