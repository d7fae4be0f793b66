"""What substitution data hold: the teacher's answers, their classes, and a dictionary of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from configs.dfkd import KdciConfig
from corrkd_jax.causal import prototype_dictionary, random_dictionary
from train.datafree import ring
from train.datafree.arms import Hyper
from train.datafree.hosts.host import Host, latents
from train.datafree.hosts.networks import Dictionary, View
from train.engine.stage import Tree


class Examples(NamedTuple):
    """Where substitution data are found.

    Attributes:
        host: that makes them.
        state: its state.
        pool: images that are kept, or None.
        outside: rows of the pool of another domain, or None.
    """

    host: Host
    state: Tree
    pool: ring.Ring | None
    outside: Tree | None

    def draw(self, view: View, key: Array, count: int) -> Array:
        """Images as the student meets them, `[count, ...]`, normalised."""
        networks = view.networks
        if self.pool is not None:
            return networks.read(ring.draw(self.pool, key, count))
        images = self.host.draw(self.state, latents(key, count, networks))
        if not view.config.method.passes_over_pool:
            return images
        # half of what this host's student sees is of the pool
        real = self.outside["images"]
        real = networks.read(real[jax.random.randint(key, (count // 2,), 0, len(real))])
        return jnp.concatenate([images[: count - count // 2], real])


class Survey(NamedTuple):
    """What the teacher says of many images.

    Attributes:
        features: `[n, features]`, of the kind that is clustered.
        weights: `[n]`, 0 where there is no image.
        histogram: `[classes]`, shares of its classes.
    """

    features: Array
    weights: Array
    histogram: Array


def take_survey(view: View, key: Array, examples: Examples) -> Survey:
    """All kept images if they are not too many, else a draw; the same on every shard."""
    settings, networks = view.config.compensation, view.networks
    most, pool = settings.images, examples.pool
    whole = pool is not None and len(pool.rows) <= most
    most = len(pool.rows) if whole else most
    block = min(view.config.optimizer.batch_size, most)
    count = -(-most // block)
    position = jnp.arange(count * block)

    def look(at: tuple[Array, Array]) -> tuple[Array, Array]:
        position, key = at
        if whole:
            images = networks.read(pool.rows[position % most])
        else:
            images = examples.draw(view, key, block)
        logits, features = view.ask_teacher(images)
        answers = {
            "logits": logits,
            "softmax": jax.nn.softmax(logits),
            "penultimate": features,
        }
        return answers[settings.feature], jnp.argmax(logits, axis=-1)

    # not `by_block`: its padding, other rows than these, would change what k-means draws
    blocks = position.reshape(count, block), jax.random.split(key, count)
    features, classes = lax.map(look, blocks)
    weights = (position < (pool.filled if whole else most)).astype(jnp.float32)
    counts = jax.ops.segment_sum(weights, classes.reshape(-1), networks.classes)
    features = features.reshape(-1, features.shape[-1])
    return Survey(features, weights, counts / jnp.maximum(jnp.sum(counts), 1.0))


def build_dictionary(
    key: Array,
    survey: Survey,
    old: Dictionary,
    hyper: Hyper,
    settings: KdciConfig,
    first: Array,
    step: Array,
) -> Dictionary:
    """The arm's dictionary: of prototypes, or one of its controls.

    Args:
        key: random key.
        survey: of the substitution data.
        old: dictionary until now, whose prototypes keep their places.
        hyper: of the arm.
        settings: of the compensation.
        first: whether there was none before; the same for all seeds and arms.
        step: student steps taken.
    """
    components = settings.components or min(survey.features.shape[-1], 64)
    build_key, noise_key = jax.random.split(key)

    def build(start: Array | None) -> tuple[Array, Array]:
        return prototype_dictionary(
            build_key,
            survey.features,
            len(old.prior),
            components,
            survey.weights,
            start,
            variance=0.95 if components > 16 else 1.0,
        )

    confounders, prior = lax.cond(first, lambda: build(None), lambda: build(old.confounders))
    noise = jnp.where(first, random_dictionary(noise_key, confounders), old.confounders)
    populated = prior > 0
    flat = populated / jnp.maximum(jnp.sum(populated), 1)
    return Dictionary(
        jnp.where(hyper.random > 0, noise, confounders),
        jnp.where(hyper.flat > 0, flat, prior),
        jnp.where(first, step, old.since),
    )
