"""A data-free distillation of seconds, from a random teacher."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from configs.dfkd import HOSTS, DfkdConfig, KdciConfig, StudentConfig
from corrkd_jax.data.image_set import ImageSet
from corrkd_jax.models.backbones import named
from train.datafree import program as dfkd
from train.datafree.arms import arms
from train.datafree.inputs import Loaded
from train.engine.parallel import Layout
from train.images import pretrained

CLASSES, SIDE, BATCH = 3, 8, 16
ONE = Layout("batch", 1)
KEY = jax.random.key(0)


def config(host, **changes):
    """A run of seconds."""
    settings = HOSTS[host].synthesis
    small = dataclasses.replace(
        settings,
        steps=3 if host in ("fast", "cmi", "deepinv") else 1,
        student_steps=2,
        latent=4,
        widths=(4, 4, 4),
        warmup=1 if host == "fast" else 0,
        reset=1 if host == "fast" else 0,
        bank=32,
        bank_draw=16,
        jitter=min(settings.jitter, 1),
        select=40,
    )
    return DfkdConfig(
        host=host,
        synthesis=dataclasses.replace(small, **changes),
        compensation=KdciConfig(prototypes=4, width=5, first=0, every=1, ramp=0, images=64),
        optimizer=StudentConfig(
            batch_size=BATCH,
            epochs=3,
            steps=4,
            temperature=2.0,
            learning_rate=0.05,
            clip_norm=5.0,
        ),
        student="mlp4",
        seeds=1,
    )


def images(rows, labelled=True):
    """Noise."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (rows, SIDE, SIDE, 1), dtype=np.uint8)
    labels = (np.arange(rows) % CLASSES).astype(np.int32) if labelled else None
    return ImageSet(pixels, labels, tuple("abc") if labelled else (), "test images")


def loaded():
    """A random teacher, labelled test images, a pool."""
    network = named.build("mlp8", CLASSES, SIDE).network
    variables = network.init(KEY, jnp.zeros((1, SIDE, SIDE, 1)))
    variables = jax.tree.map(lambda x: 3 * np.asarray(x), variables)
    teacher = pretrained.Pretrained("mlp8", CLASSES, SIDE, 1, variables)
    return Loaded(None, images(30), images(80, labelled=False), teacher)


def owner_of(config, loaded, layout=ONE):
    """The stage of a configuration."""
    return dfkd.build("digits", config, loaded, layout)[-1]


def state_and_view(owner, loaded):
    """A state before the first epoch, and what its host may ask."""
    context = {"teacher": loaded.teacher.variables}
    hyper = next(iter(arms(owner.config, owner.prototypes).values()))
    state = owner.init(KEY, {}, hyper, context)
    return state, owner.view(state, context["teacher"])
