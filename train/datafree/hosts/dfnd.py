"""DFND (CVPR 2021): images of a pool of which the teacher is surest, and doubt about its labels."""

import jax.numpy as jnp
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.losses.selection import noise_matrix, noisy_nll, select_confident
from train.datafree.hosts.host import Host, Terms, distillation
from train.datafree.hosts.networks import View
from train.engine.predict import by_block
from train.engine.stage import Tree


def host(config: DfkdConfig, places: int) -> Host:
    """The host.

    Args:
        config: of the run.
        places: number of images that are taken of the pool, once.
    """

    def call(state: Tree, view: View, key: Array, data: Tree) -> tuple[Tree, Array, Terms]:
        images = data["pool"]["images"]
        block = view.config.optimizer.batch_size
        logits = by_block(
            lambda batch: view.ask_teacher(view.networks.read(batch))[0], images, block
        )
        return state, images[select_confident(logits, places)], {}

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
