"""Generators of images for data-free distillation, and the critic of their patches.

All normalise with `corrkd_jax.models.backbones.layers.BatchNorm`: in training, batches are
normalised by their own statistics, which `axis_name` makes the whole batch's.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from corrkd_jax.losses.batch import normalize_rows
from corrkd_jax.losses.reduction import at_least_float32
from corrkd_jax.models.backbones.layers import BatchNorm, ConvNorm, conv, conv_norm
from corrkd_jax.models.torch_weights import (
    Kind,
    Layer,
    batch_norm,
    convolution,
    ignored,
    renamed,
    transposed_convolution,
)

leaky_relu = partial(jax.nn.leaky_relu, negative_slope=0.2)

SMALL = (128, 128, 64)
"""Widths of the generator of CMI and Fast (latents of 256), and of DAFL's and DFAD's own."""

LARGE = (256, 128, 64)
"""Widths of CMI's generator for DAFL, ZSKT and DFQ (latents of 512 or 256), and of MosaicKD's."""


class Generator(nn.Module):
    """Generator that upsamples twice: `[batch, latent]` -> `[batch, size, size, channels]`.

    The defaults give images in [0, 1], which are normalised for the teacher afterwards. DAFL's
    original is `Generator(normalized=True, bias=True, epsilon=0.8)`: its inner batch norms are
    written with 0.8 where torch reads an epsilon. DFAD's keeps the usual one.

    Attributes:
        size: side of the images in pixels, a multiple of four.
        channels: number of channels of the images.
        widths: numbers of channels at a quarter, at half and at the full size.
        normalized: end in tanh and a batch norm without scale and bias, so that images are
            normalised as a teacher reads them; else in a sigmoid.
        bias: add a bias to the inner convolutions.
        epsilon: epsilon of the two inner batch norms.
        axis_name: named axis over which the batch is sharded.
        dtype: compute type; parameters, statistics and results are float32.
    """

    size: int = 32
    channels: int = 3
    widths: tuple[int, int, int] = SMALL
    normalized: bool = False
    bias: bool = False
    epsilon: float = 1e-5
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: Array, train: bool = False) -> Array:
        """Images of latents.

        Args:
            latents: `[batch, latent]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, size, size, channels]` float32, in [0, 1], or normalised if `normalized`.

        Raises:
            ValueError: the size is not a multiple of four.
        """
        if self.size % 4:
            raise ValueError(f"size must be a multiple of 4, got {self.size}")
        norm = partial(BatchNorm, self.axis_name, dtype=self.dtype)
        x = _project(latents, self.size // 4, self.widths[0], self.dtype)
        x = norm(name="norm")(x, train)
        for i, width in enumerate(self.widths[1:], 1):
            unit = ConvNorm(
                width,
                3,
                bias=self.bias,
                doubled=True,
                axis_name=self.axis_name,
                epsilon=self.epsilon,
                dtype=self.dtype,
                name=f"unit{i}",
            )
            x = leaky_relu(unit(x, train))
        x = conv(self.channels, 3, bias=True, dtype=self.dtype, name="image")(x)
        x = at_least_float32(x)
        if not self.normalized:
            return nn.sigmoid(x)
        return BatchNorm(self.axis_name, affine=False, name="norm_image")(jnp.tanh(x), train)


class TransposedGenerator(nn.Module):
    """Generator of DCGAN (arXiv:1511.06434), upsampled four times; for images of 64 x 64.

    Attributes:
        size: side of the images in pixels, a multiple of sixteen.
        channels: number of channels of the images.
        width: number of channels at the full size; there are eight times as many at a sixteenth.
        axis_name: named axis over which the batch is sharded.
        dtype: compute type; parameters, statistics and results are float32.
    """

    size: int = 64
    channels: int = 3
    width: int = 64
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: Array, train: bool = False) -> Array:
        """Images of latents.

        Args:
            latents: `[batch, latent]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, size, size, channels]` float32, in [0, 1].

        Raises:
            ValueError: the size is not a multiple of sixteen.
        """
        if self.size % 16:
            raise ValueError(f"size must be a multiple of 16, got {self.size}")
        norm = partial(BatchNorm, self.axis_name, dtype=self.dtype)
        x = _project(latents, self.size // 16, 8 * self.width, self.dtype)
        x = norm(name="norm")(x, train)
        for i, factor in enumerate((4, 2, 1, 1), 1):
            x = nn.ConvTranspose(
                factor * self.width,
                (4, 4),
                (2, 2),
                # what torch calls a padding of 1: the window's overhang of 3, less 1
                ((2, 2), (2, 2)),
                use_bias=False,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            x = leaky_relu(norm(name=f"norm{i}")(x, train))
        x = conv(self.channels, 3, bias=True, dtype=self.dtype, name="image")(x)
        return nn.sigmoid(at_least_float32(x))


class DeepGenerator(nn.Module):
    """Generator of Fast (arXiv:2112.06253) for ImageNet: maps -> images of 16 times the side.

    The latent of an image is a map, 14 x 14 for 224 x 224.

    Attributes:
        channels: number of channels of the images.
        width: number of channels of the last three convolutions; the first two have twice as many.
        axis_name: named axis over which the batch is sharded.
        dtype: compute type; parameters, statistics and results are float32.
    """

    channels: int = 3
    width: int = 64
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, latents: Array, train: bool = False) -> Array:
        """Images of latent maps.

        Args:
            latents: `[batch, height, width, latent]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, 16 height, 16 width, channels]` float32, in [0, 1].
        """
        x = latents
        for i, factor in enumerate((2, 2, 1, 1, 1)):
            unit = ConvNorm(
                factor * self.width,
                3,
                doubled=i > 0,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"unit{i}",
            )
            x = leaky_relu(unit(x, train))
        x = conv(self.channels, 3, bias=True, dtype=self.dtype, name="image")(x)
        return nn.sigmoid(at_least_float32(x))


class PatchCritic(nn.Module):
    """Discriminator of MosaicKD (arXiv:2110.15094): one logit a patch of 10 x 10 pixels.

    Attributes:
        width: number of channels of the first convolution; the second has twice as many.
        axis_name: named axis over which the batch is sharded.
        dtype: compute type; parameters, statistics and results are float32.
    """

    width: int = 128
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits of the patches of images.

        Args:
            x: `[batch, height, width, channels]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, height / 4, width / 4]` float32, high for a real patch.
        """
        x = conv(self.width, 4, 2, padding=1, bias=True, dtype=self.dtype, name="conv")(x)
        unit = ConvNorm(
            2 * self.width,
            4,
            2,
            padding=1,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="unit",
        )
        x = leaky_relu(unit(leaky_relu(x), train))
        return at_least_float32(conv(1, 1, dtype=self.dtype, name="logits")(x))[..., 0]


class ProjectionHead(nn.Module):
    """Projection head of CMI (arXiv:2105.08584): two layers, then rows of length one.

    Attributes:
        width: width of the result.
    """

    width: int = 256

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Projected descriptors.

        Args:
            x: `[n, features]`.

        Returns:
            `[n, width]`, rows of length one.
        """
        x = nn.relu(nn.Dense(x.shape[-1], name="hidden")(x))
        return normalize_rows(nn.Dense(self.width, name="out")(x))


def _project(latents: Array, side: int, width: int, dtype: jnp.dtype) -> Array:
    x = nn.Dense(side * side * width, dtype=dtype, name="project")(latents)
    return x.reshape(-1, side, side, width)


def _mapped_linear(channels: int) -> Kind:
    """A linear layer whose output is then a map: torch's rows go channel by channel, ours last."""

    def to_flax(x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x.reshape(channels, -1, *x.shape[1:]), 0, 1).reshape(x.shape)

    def to_torch(x: np.ndarray) -> np.ndarray:
        return np.swapaxes(x.reshape(-1, channels, *x.shape[1:]), 0, 1).reshape(x.shape)

    return renamed(
        ("weight", "params/kernel", (lambda x: to_flax(x).T, lambda x: to_torch(x.T))),
        ("bias", "params/bias", (to_flax, to_torch)),
    )


def generator_table(widths: Sequence[int] = SMALL) -> list[Layer]:
    """Table of zju-vipa's `Generator` and `LargeGenerator` for `corrkd_jax.models.torch_weights`.

    Args:
        widths: as of `Generator`.

    Returns:
        Rows for all weights of the torch model.
    """
    return [
        Layer("l1.0", "project", _mapped_linear(widths[0])),
        Layer("conv_blocks.0", "norm", batch_norm),
        *conv_norm("conv_blocks.2", "conv_blocks.3", "unit1"),
        *conv_norm("conv_blocks.6", "conv_blocks.7", "unit2"),
        Layer("conv_blocks.9", "image", convolution),
        Layer("conv_blocks.11", "norm_image", batch_norm),
    ]


def transposed_generator_table(width: int = 64) -> list[Layer]:
    """Table of zju-vipa's `DCGAN_Generator` for `corrkd_jax.models.torch_weights`.

    Args:
        width: as of `TransposedGenerator`.

    Returns:
        Rows for all weights of the torch model.
    """
    table = [
        Layer("project.1", "project", _mapped_linear(8 * width)),
        Layer("main.0", "norm", batch_norm),
        Layer("main.13", "image", convolution),
    ]
    for i in range(1, 5):
        table += [
            Layer(f"main.{3 * i - 2}", f"conv{i}", transposed_convolution),
            Layer(f"main.{3 * i - 1}", f"norm{i}", batch_norm),
        ]
    return table


def deep_generator_table() -> list[Layer]:
    """Table of Fast-Datafree's `DeepGenerator`, whose linear layer `l1` is never used.

    Returns:
        Rows for `corrkd_jax.models.torch_weights`.
    """
    table = [
        Layer("conv_blocks.19", "image", convolution),
        Layer("l1.0", "", ignored("weight", "bias")),
    ]
    for i in range(5):
        table += conv_norm(f"conv_blocks.{4 * i}", f"conv_blocks.{4 * i + 1}", f"unit{i}")
    return table


def patch_critic_table() -> list[Layer]:
    """Table of MosaicKD's `PatchDiscriminator` for `corrkd_jax.models.torch_weights`.

    Returns:
        Rows for all weights of the torch model.
    """
    return [
        Layer("main.0", "conv", convolution),
        *conv_norm("main.2", "main.3", "unit"),
        Layer("main.5", "logits", convolution),
    ]
