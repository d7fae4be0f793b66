"""What a base model says: of a batch in training, and at inference from what was kept of it."""

from typing import Any, NamedTuple

import flax.linen as nn
from jax import Array

from corrkd_jax.models.deconfounded import Deconfounded, Mixture
from corrkd_jax.models.fusion import Fused
from train.engine.stage import Tree


class Dictionary(NamedTuple):
    """Confounders of one model; data, not parameters.

    Attributes:
        confounders: `[strata, size]`.
        prior: `[strata]`.
    """

    confounders: Array
    prior: Array


class Selected(NamedTuple):
    """What is kept of an epoch: all that inference needs."""

    variables: Tree
    dictionary: Dictionary | None
    mixture: Mixture


def forward(
    model: nn.Module, chosen: Selected, inputs: Tree, valid: Tree, embedded: bool = False
) -> Array:
    """Logits or score `[batch, outputs]` at inference.

    Args:
        model: of `train.sentiment.debiasing.models.build_model`.
        chosen: its selected state.
        inputs: modality -> `[batch, time, features]`, raw or as `embed` gives them.
        valid: modality -> `[batch, time]` bool.
        embedded: the inputs are embedded already.
    """

    def call(module: nn.Module) -> Array:
        fused = module.fuse(inputs if embedded else module.embed(inputs), valid)
        if isinstance(module, Deconfounded):
            return module.intervention(fused.features, *chosen.dictionary, chosen.mixture)
        return module.head(fused.features)

    return nn.apply(call, model)(chosen.variables)


def called(
    module: nn.Module, inputs: Tree, valid: Tree, *confounders: Any, train: bool
) -> tuple[Array, Fused]:
    """Outputs and what they are made of, through the methods of the contract alone.

    Args:
        module: bound, such as by `model.apply(..., method=called)`.
        inputs: modality -> `[batch, time, features]`.
        valid: modality -> `[batch, time]` bool.
        confounders: for an intervention: dictionary, prior, mixture and the rows' strata.
        train: with dropout and the batch's own statistics.
    """
    if isinstance(module, Deconfounded):
        return module(inputs, valid, *confounders, train=train)
    fused = module.fuse(module.embed(inputs, train), valid, train)
    return module.head(fused.features, train), fused


def fused(model: nn.Module, variables: Tree, rows: Tree) -> Fused:
    """What some rows are fused to, at inference.

    Args:
        model: of `train.sentiment.debiasing.models.build_model`.
        variables: its variables.
        rows: `inputs` and `valid` of these rows.
    """
    inputs, valid = rows["inputs"], rows["valid"]
    return nn.apply(lambda m: m.fuse(m.embed(inputs), valid), model)(variables)
