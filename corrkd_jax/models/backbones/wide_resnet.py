"""Wide residual networks for CIFAR (Zagoruyko & Komodakis, arXiv:1605.07146)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.backbones.layers import BatchNorm, Head, conv
from corrkd_jax.models.torch_weights import Layer, batch_norm, convolution, linear


class WideResNet(nn.Module):
    """Wide ResNet, WRN-depth-widen: `[batch, h, w, channels]` -> logits, `[batch, 64 widen]`.

    Attributes:
        classes: number of classes.
        depth: 6 n + 4 with n blocks in each of the three groups.
        widen: factor on the channels of the groups, 16, 32 and 64.
        axis_name: named axis over which the batch is sharded, see `BatchNorm`.
        dtype: compute type; parameters, statistics and results are float32.
    """

    classes: int
    depth: int = 40
    widen: int = 2
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, height, width, channels]`, normalised.
            train: see `BatchNorm`.

        Returns:
            Logits `[batch, classes]` and features `[batch, 64 widen]`, float32.

        Raises:
            ValueError: the depth is not 6 n + 4.
        """
        blocks = _blocks(self.depth)
        x = conv(16, 3, dtype=self.dtype, name="stem")(x)
        for group in range(3):
            for i in range(blocks):
                x = Block(
                    16 * self.widen * 2**group,
                    2 if group > 0 and i == 0 else 1,
                    self.axis_name,
                    self.dtype,
                    name=f"group{group + 1}_block{i}",
                )(x, train)
        x = nn.relu(BatchNorm(self.axis_name, dtype=self.dtype, name="norm")(x, train))
        return Head(self.classes, name="head")(x)


class Block(nn.Module):
    """Residual block that normalises before it convolves.

    Where the number of channels changes, the shortcut starts from the normalised input too.

    Attributes:
        width: number of channels of the result.
        stride: stride of the block.
        axis_name: see `BatchNorm`.
        dtype: compute type.
    """

    width: int
    stride: int
    axis_name: str | Sequence[str] | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Result of the block plus its shortcut, without an activation at the end.

        Args:
            x: `[batch, height, width, channels]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, height / stride, width / stride, features]`, where `features` is the block's
            width.
        """
        y = nn.relu(BatchNorm(self.axis_name, dtype=self.dtype, name="norm1")(x, train))
        if x.shape[-1] != self.width:
            x = conv(self.width, 1, self.stride, dtype=self.dtype, name="shortcut")(y)
        y = conv(self.width, 3, self.stride, dtype=self.dtype, name="conv1")(y)
        y = nn.relu(BatchNorm(self.axis_name, dtype=self.dtype, name="norm2")(y, train))
        return x + conv(self.width, 3, dtype=self.dtype, name="conv2")(y)


def _blocks(depth: int) -> int:
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth must be 6 n + 4, such as 16 or 40, got {depth}")
    return (depth - 4) // 6


def wide_resnet_table(depth: int, widen: int) -> list[Layer]:
    """Table of zju-vipa's WideResNets for `corrkd_jax.models.torch_weights`.

    Args:
        depth: as of `WideResNet`.
        widen: as of `WideResNet`; at 1 the first group has no shortcut of its own.

    Returns:
        Rows for all weights of the torch model.
    """
    table = [
        Layer("conv1", "stem", convolution),
        Layer("bn1", "norm", batch_norm),
        Layer("fc", "head/linear", linear),
    ]
    for group in range(1, 4):
        for i in range(_blocks(depth)):
            source, target = f"block{group}.layer.{i}", f"group{group}_block{i}"
            for unit in (1, 2):
                table += [
                    Layer(f"{source}.bn{unit}", f"{target}/norm{unit}", batch_norm),
                    Layer(f"{source}.conv{unit}", f"{target}/conv{unit}", convolution),
                ]
            if i == 0 and (group > 1 or widen > 1):
                table.append(Layer(f"{source}.convShortcut", f"{target}/shortcut", convolution))
    return table
