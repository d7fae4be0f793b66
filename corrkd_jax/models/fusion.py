"""Interface of the base models: `embed`, `fuse`, `head`.

Interventions take the place of a model's head, counterfactuals change the result of `embed`.
Neither needs to know the model. Any Flax module with these methods will do; most inherit from
`BaseModel`.
"""

from typing import NamedTuple

import flax.linen as nn
from jax import Array

Inputs = dict[str, Array]
"""Modality (`text`, `audio`, `vision`) -> `[batch, time, features]`; lengths may differ."""


class Fused(NamedTuple):
    """Result of a base model before its head.

    Attributes:
        features: `[batch, width]` float32, input of the head; an intervention acts here.
        parts: arrays that the model's own losses read, by the model's names; at least `text`,
            `audio` and `vision` where it has a vector `[batch, width]` for each of them.
    """

    features: Array
    parts: dict[str, Array]


class BaseModel(nn.Module):
    """Common part of the base models; each adds `setup`, `fuse` and `head`.

    Attributes:
        outputs: K; 1 for regression, else the number of classes.
        text_encoder: applied to the text, `(text, train) -> [batch, time, features]`; None: the
            text is features already.
    """

    outputs: int = 1
    text_encoder: nn.Module | None = None

    def embed(self, inputs: Inputs, train: bool = False) -> Inputs:
        """Inputs in the space in which stand-ins are averaged and words replaced.

        It is the identity for precomputed features.

        Args:
            inputs: modality -> `[batch, time, features]`, or what the text encoder reads.
            train: passed to the text encoder.

        Returns:
            Modality -> `[batch, time, features]`.
        """
        if self.text_encoder is None:
            return inputs
        return {**inputs, "text": self.text_encoder(inputs["text"], train)}

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Fused feature of embedded inputs.

        Args:
            embedded: modality -> `[batch, time, features]`, of `embed`.
            valid: modality -> `[batch, time]` bool, False on padding.
            train: dropout and batch statistics on, which may need the `dropout` key.

        Returns:
            `Fused`.

        Raises:
            NotImplementedError: the subclass does not define it.
        """
        raise NotImplementedError

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the fused feature.

        Args:
            features: `[batch, width]`, of `fuse`.
            train: dropout on, which may need the `dropout` key.

        Returns:
            `[batch, outputs]` float32.

        Raises:
            NotImplementedError: the subclass does not define it.
        """
        raise NotImplementedError

    def __call__(self, inputs: Inputs, valid: Inputs, train: bool = False) -> tuple[Array, Fused]:
        """Logits or score of a batch, and the fused feature behind it: `head(fuse(embed(inputs)))`.

        Args:
            inputs: as of `embed`.
            valid: modality -> `[batch, time]` bool, False on padding.
            train: dropout and batch statistics on.

        Returns:
            `[batch, outputs]` float32, and `Fused`.
        """
        fused = self.fuse(self.embed(inputs, train), valid, train)
        return self.head(fused.features, train), fused
