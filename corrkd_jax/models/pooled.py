"""Simplest base model: means over time, side by side, and a few dense layers."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.transformer import masked_mean


class Pooled(BaseModel):
    """Mean over the valid frames of each modality, concatenated, ReLU layers, a linear head.

    It is the model of the planted tasks, and a lower bound for the others. Without hidden layers it
    is a linear model.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        text_width: width of a linear map of the text without bias, which for one-hot words is a
            mean of word embeddings; 0: the text as it is.
        hidden: widths of the layers; none: the head reads the means.
        bounded: tanh in place of the last ReLU.
    """

    text_width: int = 0
    hidden: tuple[int, ...] = (64,)
    bounded: bool = False

    def setup(self) -> None:
        """Build the layers and the head."""
        if self.text_width:
            self.text = nn.Dense(self.text_width, use_bias=False)
        self.layers = [nn.Dense(width) for width in self.hidden]
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Last hidden layer, or the concatenated means without one, and the mean of each modality.

        Args:
            embedded: modality -> `[batch, time, features]`.
            valid: modality -> `[batch, time]` bool, False on padding.
            train: without effect.

        Returns:
            `Fused`.
        """
        parts = {name: masked_mean(x, valid[name]) for name, x in embedded.items()}
        if self.text_width:
            parts["text"] = self.text(parts["text"])
        features = jnp.concatenate([parts[name] for name in sorted(parts)], axis=-1)
        for number, layer in enumerate(self.layers, 1):
            last = self.bounded and number == len(self.layers)
            features = (nn.tanh if last else nn.relu)(layer(features))
        return Fused(features, parts)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the fused feature.

        Args:
            features: `[batch, width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.out(features)
