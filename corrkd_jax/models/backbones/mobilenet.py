"""MobileNetV2 (Sandler et al., arXiv:1801.04381)."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.backbones.layers import ConvNorm, Head, conv_norm
from corrkd_jax.models.torch_weights import Layer, linear

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
STAGES += ((6, 320, 1, 1),)
"""Expansion, channels, blocks and stride of the first block, stage by stage (table 2)."""


class MobileNetV2(nn.Module):
    """MobileNetV2: `[batch, h, w, channels]` -> logits, features `[batch, 1280]`.

    torchvision's dropout of 0.2 on the features in training is left to the caller, who has them.

    Attributes:
        classes: number of classes.
        width: factor on all channels, which are rounded to multiples of eight; the 1280 of the last
            convolution only grow with it.
        axis_name: named axis over which the batch is sharded, see `BatchNorm`.
        dtype: compute type; parameters, statistics and results are float32.
    """

    classes: int = 1000
    width: float = 1.0
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, height, width, channels]`, normalised.
            train: see `BatchNorm`.

        Returns:
            Logits `[batch, classes]` and features `[batch, 1280]` (more if `width` is above 1),
            float32.
        """
        unit = partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        x = nn.relu6(unit(rounded(32 * self.width), 3, 2, name="stem")(x, train))
        number = 1
        for expansion, channels, blocks, stride in STAGES:
            for i in range(blocks):
                x = Block(
                    rounded(channels * self.width),
                    stride if i == 0 else 1,
                    expansion,
                    self.axis_name,
                    self.dtype,
                    name=f"block{number}",
                )(x, train)
                number += 1
        last = unit(rounded(1280 * max(1.0, self.width)), 1, name="last")
        return Head(self.classes, name="head")(nn.relu6(last(x, train)))


class Block(nn.Module):
    """Inverted residual: widen, convolve each channel by itself, narrow without an activation.

    Attributes:
        features: number of channels of the result.
        stride: stride of the depthwise convolution.
        expansion: factor on the channels in between.
        axis_name: see `BatchNorm`.
        dtype: compute type.
    """

    features: int
    stride: int
    expansion: int
    axis_name: str | Sequence[str] | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Result of the block, plus its input where both have the same shape.

        Args:
            x: `[batch, height, width, channels]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, height / stride, width / stride, features]`.
        """
        unit = partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        hidden = x.shape[-1] * self.expansion
        y = x
        if self.expansion != 1:
            y = nn.relu6(unit(hidden, 1, name="expand")(y, train))
        depthwise = unit(hidden, 3, self.stride, groups=hidden, name="depthwise")
        y = unit(self.features, 1, name="project")(nn.relu6(depthwise(y, train)), train)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


def rounded(channels: float) -> int:
    """Number of channels rounded to a multiple of eight, as MobileNets do it.

    Args:
        channels: number of channels before rounding.

    Returns:
        The nearest multiple of eight, at least eight, and not more than a tenth below.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mobilenet_table() -> list[Layer]:
    """Table of torchvision's MobileNetV2 of any width for `corrkd_jax.models.torch_weights`.

    Returns:
        Rows for all weights of the torch model.
    """
    table = [*conv_norm("features.0.0", "features.0.1", "stem")]
    number = 1
    for expansion, _, blocks, _ in STAGES:
        for _ in range(blocks):
            source, target = f"features.{number}.conv", f"block{number}"
            parts = ["depthwise"] if expansion == 1 else ["expand", "depthwise"]
            for i, part in enumerate(parts):
                table += conv_norm(f"{source}.{i}.0", f"{source}.{i}.1", f"{target}/{part}")
            last = len(parts)
            table += conv_norm(f"{source}.{last}", f"{source}.{last + 1}", f"{target}/project")
            number += 1
    table += conv_norm(f"features.{number}.0", f"features.{number}.1", "last")
    return [*table, Layer("classifier.1", "head/linear", linear)]
