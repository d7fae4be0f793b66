"""DFND (CVPR 2021): images of a pool of which the teacher is surest, and doubt about its labels."""

import jax.numpy as jnp
from jax import Array, lax

from configs.dfkd import DfkdConfig
from corrkd_jax.losses.selection import noise_matrix, noisy_nll, select_confident
from train.datafree.hosts.host import Host, Terms, distillation
from train.datafree.hosts.networks import View
from train.engine.stage import Tree


def host(config: DfkdConfig, select: int) -> Host:
    """The host; `select` images are taken once."""

    def call(own: Tree, view: View, key: Array, data: Tree) -> tuple[Tree, Array, Terms]:
        images = data["pool"]["images"]
        return own, images[select_confident(_answers(view, images), select)], {}

    def loss(
        logits: Array, teacher: Array, extra: Tree, temperature: float, axis_name: str | None
    ) -> Terms:
        labels = jnp.argmax(teacher, axis=-1)
        noise = noise_matrix(extra["noise"], config.synthesis.teacher_accuracy)
        terms = distillation(logits, teacher, extra, temperature, axis_name)
        return {**terms, "noisy": noisy_nll(logits, labels, noise, axis_name=axis_name)}

    return Host(
        lambda key, teacher: {},
        call=call,
        loss=loss,
        extra=lambda classes: {"noise": jnp.zeros((classes, classes - 1))},
    )


def _answers(view: View, images: Array) -> Array:
    """The teacher's logits for a whole pool, `[pool, classes]`, a block at a time."""
    count = len(images)
    block = min(view.config.optimizer.batch_size, count)
    blocks = -(-count // block)
    position = jnp.minimum(jnp.arange(blocks * block), count - 1).reshape(blocks, block)

    def answer(index: Array) -> Array:
        return view.ask_teacher(view.networks.read(images[index]))[0]

    logits = lax.map(answer, position)
    return logits.reshape(blocks * block, -1)[:count]
