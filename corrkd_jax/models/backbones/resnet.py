"""ResNets (He et al., arXiv:1512.03385) with the stem of CIFAR's 32 x 32 or of ImageNet."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.backbones.layers import ConvNorm, Head, conv_norm
from corrkd_jax.models.torch_weights import Layer, linear

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Depth -> numbers of blocks of the four stages; depth 50 has bottlenecks."""

STEMS = ("cifar", "imagenet")


class ResNet(nn.Module):
    """ResNet: `[batch, h, w, channels]` -> logits `[batch, classes]`, features `[batch, 8 width]`.

    Features are the global mean after the last stage; bottlenecks make them four times as wide.

    Attributes:
        classes: number of classes.
        depth: 18, 34 or 50.
        stem: `"cifar"`, a 3 x 3 convolution and no pooling; `"imagenet"`, 7 x 7 at stride 2, then 3
            x 3 maxima at stride 2.
        width: number of channels of the first stage; each further stage has twice as many.
        axis_name: named axis over which the batch is sharded, see `BatchNorm`.
        dtype: compute type; parameters, statistics and results are float32.
    """

    classes: int
    depth: int = 18
    stem: str = "cifar"
    width: int = 64
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, height, width, channels]`, normalised.
            train: see `BatchNorm`.

        Returns:
            Logits `[batch, classes]` and features `[batch, 8 width]` (32 width at depth 50),
            float32.

        Raises:
            ValueError: depth or stem is unknown.
        """
        if self.depth not in BLOCKS:
            raise ValueError(f"depth must be one of {tuple(BLOCKS)}, got {self.depth}")
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {self.stem!r}")
        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        window, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = nn.relu(ConvNorm(self.width, window, stride, **shared, name="stem")(x, train))
        if self.stem == "imagenet":
            # padded with minus infinity, as torch does
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for i in range(blocks):
                x = Block(
                    self.width * 2**stage,
                    2 if stage > 0 and i == 0 else 1,
                    self.depth == 50,
                    **shared,
                    name=f"stage{stage + 1}_block{i}",
                )(x, train)
        return Head(self.classes, name="head")(x)


class Block(nn.Module):
    """Residual block, basic or a bottleneck whose stride lies in its 3 x 3 convolution.

    Attributes:
        width: number of channels inside.
        stride: stride of the block.
        bottleneck: whether it is one, with four times as many channels in its result.
        axis_name: see `BatchNorm`.
        dtype: compute type.
    """

    width: int
    stride: int
    bottleneck: bool
    axis_name: str | Sequence[str] | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """ReLU of the block's result plus its shortcut.

        Args:
            x: `[batch, height, width, channels]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, height / stride, width / stride, out]`, where `out` is the block's width, or
            four times that for a bottleneck.
        """
        unit = partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        if self.bottleneck:
            out = 4 * self.width
            y = nn.relu(unit(self.width, 1, name="unit1")(x, train))
            y = nn.relu(unit(self.width, 3, self.stride, name="unit2")(y, train))
            y = unit(out, 1, name="unit3")(y, train)
        else:
            out = self.width
            y = nn.relu(unit(out, 3, self.stride, name="unit1")(x, train))
            y = unit(out, 3, name="unit2")(y, train)
        if self.stride != 1 or x.shape[-1] != out:
            x = unit(out, 1, self.stride, name="shortcut")(x, train)
        return nn.relu(x + y)


def resnet_table(depth: int, stem: str = "cifar") -> list[Layer]:
    """Table of torch's ResNets for `corrkd_jax.models.torch_weights`.

    The stem decides on the names: the CIFAR networks of zju-vipa/CMI, zju-vipa/Fast-Datafree,
    zju-vipa/MosaicKD and huawei-noah's DAFL say `shortcut` and `linear`, torchvision says
    `downsample` and `fc`.

    Args:
        depth: 18, 34 or 50.
        stem: as of `ResNet`.

    Returns:
        Rows for all weights of the torch model.
    """
    shortcut, head = ("shortcut", "linear") if stem == "cifar" else ("downsample", "fc")
    table = [*conv_norm("conv1", "bn1", "stem"), Layer(head, "head/linear", linear)]
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for i in range(blocks):
            source, target = f"layer{stage}.{i}", f"stage{stage}_block{i}"
            for unit in range(1, 4 if depth == 50 else 3):
                table += conv_norm(
                    f"{source}.conv{unit}", f"{source}.bn{unit}", f"{target}/unit{unit}"
                )
            if i == 0 and (stage > 1 or depth == 50):
                names = f"{source}.{shortcut}.0", f"{source}.{shortcut}.1"
                table += conv_norm(*names, f"{target}/shortcut")
    return table
