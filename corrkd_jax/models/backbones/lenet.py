"""LeNet-5 as DAFL (arXiv:1904.01186) has it, and its half, for 32 x 32 digits."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.losses.reduction import at_least_float32
from corrkd_jax.models.torch_weights import Layer, convolution, linear

LENET5 = (6, 16, 120, 84)
"""Widths of LeNet-5."""
LENET5_HALF = (3, 8, 60, 42)
"""Widths of the student with half of them."""


class LeNet(nn.Module):
    """LeNet: `[batch, 32, 32, channels]` -> logits, features `[batch, widths[2]]`.

    Three unpadded 5 x 5 convolutions, each with a ReLU, the first two with 2 x 2 maxima. Features
    are the result of the third, which sees the whole image. There is no batch norm.

    Attributes:
        classes: number of classes.
        widths: numbers of channels of the convolutions, then the width of the hidden linear layer.
        dtype: compute type; parameters and results are float32.
    """

    classes: int = 10
    widths: tuple[int, int, int, int] = LENET5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, 32, 32, channels]`, normalised.
            train: without effect; there so that all classifiers take the same arguments.

        Returns:
            Logits `[batch, classes]` and features `[batch, widths[2]]`, float32.

        Raises:
            ValueError: images are not 32 x 32.
        """
        if x.shape[1:3] != (32, 32):
            raise ValueError(f"images must be [batch, 32, 32, channels], got {x.shape}")
        for i, width in enumerate(self.widths[:3], 1):
            x = nn.Conv(width, (5, 5), padding="VALID", dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(x)
            if i < 3:
                x = nn.max_pool(x, (2, 2), (2, 2))
        features = at_least_float32(x[:, 0, 0])
        hidden = nn.relu(nn.Dense(self.widths[3], name="hidden")(features))
        return nn.Dense(self.classes, name="linear")(hidden), features


def lenet_table(numbered: bool = False) -> list[Layer]:
    """Table of LeNet-5 and its half for `corrkd_jax.models.torch_weights`.

    Args:
        numbered: layers are numbered in two sequences, `features.0` to `fc.2`, as in zju-vipa's
            line of repositories; else they are named `conv1` to `fc2`, as in huawei-noah's DAFL.

    Returns:
        Rows for all weights of the torch model.
    """
    sources = (
        ("features.0", "features.3", "features.6", "fc.0", "fc.2")
        if numbered
        else ("conv1", "conv2", "conv3", "fc1", "fc2")
    )
    targets = ("conv1", "conv2", "conv3", "hidden", "linear")
    return [
        Layer(source, target, convolution if target.startswith("conv") else linear)
        for source, target in zip(sources, targets, strict=True)
    ]
