"""Whether a teacher is shown images as it was trained to see them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.data.image_set import Normalization
from corrkd_jax.models.backbones import BN_INPUTS

USUAL = 0.5
"""Gaps above this are told. Teachers of digits, and networks that had met augmented patches of
photographs, kept within 0.24 on other images under their own normalisation; under one of half or
twice their deviations shift or spread came to 1.0 or more. CIFAR-10's and ImageNet's are nearly the
same, 0.3 apart, and do little harm."""


class Gap(NamedTuple):
    """How far images lie from what a network's first batch norm remembers, means over channels.

    Attributes:
        shift: distance of the mean, in remembered deviations.
        spread: distance of the variance's logarithm.
    """

    shift: Array
    spread: Array


def first_gap(network: nn.Module, variables: Mapping[str, Any], images: Array) -> Gap:
    """The gap before the first batch norm, whose input is linear in the images.

    Args:
        network: a classifier of `corrkd_jax.models.backbones` with batch norms, on one device.
        variables: of the network; it is applied without training.
        images: `[batch, height, width, channels]`, normalised.
    """
    measured, remembered = first_norm(network, variables, images)
    var = remembered["var"] + 1e-5
    return Gap(
        jnp.mean(jnp.abs(measured["mean"] - remembered["mean"]) / jnp.sqrt(var)),
        jnp.mean(jnp.abs(jnp.log((measured["var"] + 1e-5) / var))),
    )


def first_norm(
    network: nn.Module, variables: Mapping[str, Any], images: Array
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """`mean` and `var` of the images before the first batch norm, and those it remembers."""
    _, collections = network.apply(variables, images, mutable=[BN_INPUTS])
    measured, remembered = collections[BN_INPUTS], variables["batch_stats"]
    while "mean" not in measured:
        name = next(iter(measured))  # layers stand in the order in which they were applied
        measured, remembered = measured[name], remembered[name]
    return measured, remembered


def doubt(gap: Gap, normalization: Normalization) -> str:
    """What there is to say of a gap; nothing where it is usual."""
    if max(gap) <= USUAL:
        return ""
    mean, std = (", ".join(f"{x:g}" for x in values) for values in normalization)
    return (
        f"at the teacher's first batch norm the test images' mean is {gap.shift:.1f} deviations "
        f"and their variance a factor of {jnp.exp(gap.spread):.1f} away from what it remembers: "
        f"it was hardly trained with a normalisation of mean {mean} and std {std}; note its own "
        "in its file with train.convert --trained-on DATASET"
    )
