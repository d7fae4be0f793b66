"""The networks of a data-free distillation, and what a host may ask of them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from configs.dfkd import DfkdConfig
from corrkd_jax.data.image_set import Normalization
from corrkd_jax.losses import synthesis
from corrkd_jax.models.backbones import BN_INPUTS, named
from corrkd_jax.models.compensated import Answer, Compensated
from train.datafree import ring
from train.engine.stage import Tree


class Dictionary(NamedTuple):
    """Confounders of one student; data, not parameters.

    Attributes:
        confounders: `[prototypes, size]`, Z.
        prior: `[prototypes]`, P(z); zeros before there is a dictionary.
        since: student steps taken when the first was built; -1 before.
    """

    confounders: Array
    prior: Array
    since: Array


class Teaching(NamedTuple):
    """What a teacher says of images.

    Attributes:
        logits: `[batch, classes]`.
        features: `[batch, width]`.
        statistics: mean and variance of the batch at the input of every batch norm, a tree like
            `batch_stats`.
    """

    logits: Array
    features: Array
    statistics: Tree


def normalized(images: Array, normalization: Normalization) -> Array:
    """Images in [0, 1] as networks see them."""
    return (images - jnp.asarray(normalization.mean)) / jnp.asarray(normalization.std)


def read_pixels(images: Array, normalization: Normalization, white: float = 255.0) -> Array:
    """Pixels `uint8` as networks see them; `white` is the one that means 1.0."""
    return normalized(images.astype(jnp.float32) / white, normalization)


@dataclass(frozen=True)
class Networks:
    """Modules, and the shapes they were built for.

    Attributes:
        teacher: an image classifier with batch norms; only ever asked, never changed.
        student: the student with its compensation.
        generator: of the host, or None.
        normalization: what the teacher was trained to see, which the student sees too.
        latent: shape of the generator's latent.
        side: of images.
        channels: of images.
        classes: number of classes.
        axis_name: mapped axis over which batches are sharded, or None.
    """

    teacher: nn.Module
    student: Compensated
    generator: nn.Module | None
    normalization: Normalization
    latent: tuple[int, ...]
    side: int
    channels: int
    classes: int
    axis_name: str | None

    def normalized(self, images: Array) -> Array:
        """Images in [0, 1] as networks see them."""
        return normalized(images, self.normalization)

    def from_generator(self, output: Array) -> Array:
        """What the generator makes as networks see it: normalised, unless it comes so."""
        return output if getattr(self.generator, "normalized", False) else self.normalized(output)

    def pixels(self, images: Array) -> Array:
        """The inverse of `normalized`."""
        return images * jnp.asarray(self.normalization.std) + jnp.asarray(self.normalization.mean)

    def to_bytes(self, images: Array) -> Array:
        """Normalised images as bytes."""
        return ring.quantize(self.pixels(images))

    def read(self, images: Array, white: float = 255.0) -> Array:
        """Pixels `uint8` as networks see them."""
        return read_pixels(images, self.normalization, white)


def build_student(
    config: DfkdConfig, classes: int, side: int, axis_name: str | None, dtype: Any
) -> Compensated:
    """The student of a configuration, with its compensation."""
    kdci = config.compensation
    return Compensated(
        named.build(config.student, classes, side, axis_name, dtype).network,
        classes,
        kdci.site,
        kdci.attention,
        kdci.width,
        kdci.start,
        kdci.train_prediction,
        kdci.prior_scale == "renormalize",
    )


@dataclass(frozen=True)
class View:
    """A teacher and a student as they stand, to be asked in inference mode.

    Attributes:
        config: of the run.
        networks: the modules.
        teacher: the teacher's variables.
        student: the student's variables.
        dictionary: of its compensation.
        strength: of its compensation.
        skew: share of the last class over that of the first among the classes drawn.
    """

    config: DfkdConfig
    networks: Networks
    teacher: Tree
    student: Tree
    dictionary: Dictionary
    strength: Any
    skew: Any

    def ask_teacher(self, images: Array) -> tuple[Array, Array]:
        """Logits and features of normalised images."""
        return self.networks.teacher.apply(self.teacher, images)

    def inspect(self, images: Array) -> Teaching:
        """The same, with the statistics of the whole batch before every batch norm."""
        (logits, features), collections = self.networks.teacher.apply(
            self.teacher, images, mutable=[BN_INPUTS]
        )
        return Teaching(logits, features, collections.get(BN_INPUTS, {}))

    def bn_distance(self, statistics: Tree) -> Array:
        """How far statistics of a batch are from those that the teacher remembers."""
        return synthesis.bn_statistics(self.teacher.get("batch_stats", {}), statistics)

    def ask_student(self, images: Array) -> Answer:
        """The student's answer to normalised images."""
        confounders, prior, _ = self.dictionary
        return self.networks.student.apply(self.student, images, confounders, prior, self.strength)

    def draw_classes(self, key: Array, count: int) -> Array:
        """`[count]` classes; shares fall from the first to the last class by the factor `skew`."""
        place = jnp.arange(self.networks.classes) / max(self.networks.classes - 1, 1)
        return jax.random.categorical(key, place * jnp.log(self.skew), shape=(count,))
