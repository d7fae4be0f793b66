"""What every base model gives: embed, fuse, head.

A base model is a Flax module with `setup` and these methods. Interventions take the place of its
head, counterfactuals change what `embed` gave: neither needs to know the model.
"""

from typing import NamedTuple, Protocol

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


class BaseModel(Protocol):
    """The contract; nothing inherits from it.

    Attributes:
        outputs: K; 1 for regression, else the number of classes.
    """

    outputs: int

    def embed(self, inputs: Inputs, train: bool = False) -> Inputs:
        """Raw inputs -> the space in which stand-ins are averaged and words replaced.

        The identity for precomputed features; an encoder of text, where a model has one, is here.
        """

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Embedded inputs and `[batch, time]` masks, False on padding -> the fused feature."""

    def head(self, features: Array, train: bool = False) -> Array:
        """Fused feature `[batch, width]` -> `[batch, outputs]` float32 logits or score."""

    def __call__(self, inputs: Inputs, valid: Inputs, train: bool = False) -> tuple[Array, Fused]:
        """`head(fuse(embed(inputs)))` and what it was made of."""
