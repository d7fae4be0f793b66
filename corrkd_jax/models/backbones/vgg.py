"""VGG with batch norm for 32 x 32 and 64 x 64 images (Simonyan & Zisserman, arXiv:1409.1556)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.backbones.layers import ConvNorm, Head, conv_norm
from corrkd_jax.models.torch_weights import Layer, linear

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Numbers of channels of the convolutions, group by group."""


class VGG(nn.Module):
    """VGG: `[batch, h, w, channels]` -> logits, features `[batch, channels of the last group]`.

    It is the variant of the distillation repositories: 2 x 2 maxima after the first three groups,
    after the fourth only where the input is 64 high, and a global mean before one linear layer.

    Attributes:
        classes: number of classes.
        groups: numbers of channels of the convolutions, group by group; five groups.
        axis_name: named axis over which the batch is sharded, see `BatchNorm`.
        dtype: compute type; parameters, statistics and results are float32.
    """

    classes: int
    groups: tuple[tuple[int, ...], ...] = VGG11
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, height, width, channels]`, normalised; 32 or 64 pixels a side.
            train: see `BatchNorm`.

        Returns:
            Logits `[batch, classes]` and features `[batch, channels of the last convolution]`,
            float32.
        """
        pools = 4 if x.shape[1] == 64 else 3
        for group, widths in enumerate(self.groups):
            for i, width in enumerate(widths):
                unit = ConvNorm(
                    width,
                    3,
                    bias=True,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"group{group}_unit{i}",
                )
                x = nn.relu(unit(x, train))
            if group < pools:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return Head(self.classes, name="head")(x)


def vgg_table(groups: Sequence[Sequence[int]] = VGG11) -> list[Layer]:
    """Table of zju-vipa's VGGs with batch norm for `corrkd_jax.models.torch_weights`.

    Args:
        groups: as of `VGG`.

    Returns:
        Rows for all weights of the torch model.
    """
    table = [Layer("classifier", "head/linear", linear)]
    for group, widths in enumerate(groups):
        for i in range(len(widths)):
            # a ReLU follows each batch norm but the last of the group
            names = f"block{group}.{3 * i}", f"block{group}.{3 * i + 1}"
            table += conv_norm(*names, f"group{group}_unit{i}")
    return table
