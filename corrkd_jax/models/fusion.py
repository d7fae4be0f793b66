"""What every base model gives: embed, fuse, head.

Interventions take the place of a model's head, counterfactuals change what `embed` gave: neither
needs to know the model. Any Flax module with these methods will do; most inherit from `BaseModel`.
"""

from typing import NamedTuple

import flax.linen as nn
from jax import Array

Inputs = dict[str, Array]
"""Modality (`text`, `audio`, `vision`) -> `[batch, time, features]`; lengths may differ."""


class Fused(NamedTuple):
    """What a base model makes of a batch before its head.

    Attributes:
        features: `[batch, width]` float32, what the head reads; an intervention acts here.
        parts: what the model's own losses read, by the model's names; at least `text`, `audio`
            and `vision` where it has a vector `[batch, width]` for each of them.
    """

    features: Array
    parts: dict[str, Array]


class BaseModel(nn.Module):
    """What base models share; each brings `setup`, `fuse` and `head`.

    Attributes:
        outputs: K; 1 for regression, else the number of classes.
        text_encoder: applied to the text, `(text, train) -> [batch, time, features]`; None: the
            text is features already.
    """

    outputs: int = 1
    text_encoder: nn.Module | None = None

    def embed(self, inputs: Inputs, train: bool = False) -> Inputs:
        """Raw inputs -> the space in which stand-ins are averaged and words replaced.

        The identity for precomputed features.
        """
        if self.text_encoder is None:
            return inputs
        return {**inputs, "text": self.text_encoder(inputs["text"], train)}

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Embedded inputs and `[batch, time]` masks, False on padding -> the fused feature."""
        raise NotImplementedError

    def head(self, features: Array, train: bool = False) -> Array:
        """Fused feature `[batch, width]` -> `[batch, outputs]` float32 logits or score."""
        raise NotImplementedError

    def __call__(self, inputs: Inputs, valid: Inputs, train: bool = False) -> tuple[Array, Fused]:
        """`head(fuse(embed(inputs)))` and what it was made of."""
        fused = self.fuse(self.embed(inputs, train), valid, train)
        return self.head(fused.features, train), fused
