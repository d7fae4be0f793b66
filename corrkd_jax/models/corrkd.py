"""Network of CorrKD's teacher and student (arXiv:2404.16456): encode, pool, concatenate."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import Fused, Inputs
from corrkd_jax.models.transformer import Dropout, SequenceEncoder, masked_mean


class Output(NamedTuple):
    """Result of the network.

    Attributes:
        features: `[batch, modalities * width]` float32, joint representation H.
        logits: `[batch, tasks, classes]` float32.
    """

    features: Array
    logits: Array


class CorrKDNetwork(nn.Module):
    """Sequence encoder for each modality, mean over time, concatenation, a small head.

    There is no cross-modal attention. Each modality is pooled before the concatenation, which for
    aligned sequences equals pooling afterwards and also serves unaligned ones. Missing frames are
    zeros in the input; nothing else marks them.

    Attributes:
        classes: number of classes of a task, K.
        tasks: number of tasks, E: one for sentiment, four for IEMOCAP's binary emotions.
        features: width d of each modality (paper: 40).
        layers: depth of the encoders; the paper does not say, 4 is MulT's.
        heads: number of attention heads (paper: 10 for MOSI and IEMOCAP, 8 for MOSEI).
        embed_dropout: dropout rate on embedded input.
        attention_dropout: dropout rate on attention weights.
        relu_dropout: dropout rate inside the feed-forward parts.
        residual_dropout: dropout rate on what each branch adds.
        head_dropout: dropout rate in the head.
        dtype: compute type of the encoders; head, features and logits are float32.
    """

    classes: int
    tasks: int = 1
    features: int = 40
    layers: int = 4
    heads: int = 10
    embed_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Build one encoder for each modality and the classifier."""

        def encoder() -> SequenceEncoder:
            return SequenceEncoder(
                self.features,
                self.layers,
                self.heads,
                self.embed_dropout,
                self.attention_dropout,
                self.relu_dropout,
                self.residual_dropout,
                self.dtype,
            )

        self.text_encoder = encoder()
        self.audio_encoder = encoder()
        self.vision_encoder = encoder()
        self.classifier = Head(self.outputs, self.head_dropout)

    @property
    def outputs(self) -> int:
        """Number of logits of all tasks together."""
        return self.tasks * self.classes

    def embed(self, inputs: Inputs, train: bool = False) -> Inputs:
        """Inputs as they are: the encoders read features.

        Args:
            inputs: modality -> `[batch, time, in]`.
            train: without effect.

        Returns:
            The same inputs.
        """
        return inputs

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Joint representation H, and the mean over time of each encoded modality.

        Args:
            embedded: modality -> `[batch, time, in]`; padding must be zero.
            valid: modality -> `[batch, time]` bool, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused` with features `[batch, modalities * width]`, in the order of the modalities'
            names.
        """
        encoders = {
            "audio": self.audio_encoder,
            "text": self.text_encoder,
            "vision": self.vision_encoder,
        }
        parts = {
            name: masked_mean(encoders[name](x, valid[name], train), valid[name])
            for name, x in sorted(embedded.items())
        }
        return Fused(jnp.concatenate(list(parts.values()), axis=-1), parts)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits of all tasks together.

        Args:
            features: `[batch, modalities * width]`.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, tasks * classes]` float32.
        """
        return self.classifier(features, train)

    def __call__(self, inputs: Inputs, valid: Inputs, train: bool = False) -> Output:
        """Features and logits of a batch.

        Args:
            inputs: modality -> `[batch, time, in]`; lengths may differ between modalities. Features
                are concatenated in the order of the names. Padding must be zero.
            valid: modality -> `[batch, time]` bool, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Output`.
        """
        joint = self.fuse(self.embed(inputs, train), valid, train).features
        return Output(joint, self.head(joint, train).reshape(-1, self.tasks, self.classes))


class Head(nn.Module):
    """Residual ReLU layer with dropout, then a linear layer.

    Attributes:
        outputs: number of logits.
        dropout: dropout rate on the residual layer.
    """

    outputs: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Logits of a joint representation.

        Args:
            x: `[batch, width]` float32.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, outputs]` float32.
        """
        hidden = nn.relu(nn.Dense(x.shape[-1], name="hidden")(x))
        x = x + Dropout(self.dropout, name="drop")(hidden, train)
        return nn.Dense(self.outputs, name="out")(x)
