"""Perceptron with batch norms, for images of a few pixels."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.losses.reduction import at_least_float32
from corrkd_jax.models.backbones.layers import BatchNorm


class MLP(nn.Module):
    """Perceptron: `[batch, h, w, channels]` -> logits, features `[batch, widths[-1]]`.

    Attributes:
        classes: number of classes.
        widths: widths of the hidden layers, each linear without bias, batch norm, ReLU.
        axis_name: named axis over which the batch is sharded, see `BatchNorm`.
        dtype: compute type; parameters, statistics and results are float32.
    """

    classes: int
    widths: tuple[int, ...] = (256, 128)
    axis_name: str | Sequence[str] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """Logits and features of images.

        Args:
            x: `[batch, height, width, channels]`, normalised.
            train: see `BatchNorm`.

        Returns:
            Logits `[batch, classes]` and features `[batch, widths[-1]]`, float32.
        """
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f"hidden{i}")(x)
            norm = BatchNorm(self.axis_name, dtype=self.dtype, name=f"norm{i}")
            x = nn.relu(norm(x, train))
        features = at_least_float32(x)
        return nn.Dense(self.classes, name="linear")(features), features
