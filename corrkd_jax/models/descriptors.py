"""Descriptors of CMI (arXiv:2105.08584): features of an image in a frozen teacher."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.backbones.layers import INSTANCE_MEANS, ConvNorm
from corrkd_jax.models.backbones.resnet import BLOCKS, Block, ResNet


def norm_descriptors(network: nn.Module, variables: Mapping[str, Any], images: Array) -> Array:
    """Spatial means of the inputs of all batch norms (arXiv:2105.08584).

    Args:
        network: a classifier of `corrkd_jax.models.backbones`.
        variables: its variables; it is applied without training.
        images: `[batch, height, width, channels]`, normalised.

    Returns:
        `[batch, features]`, as wide as the batch norms have channels together.
    """
    _, told = network.apply(variables, images, mutable=[INSTANCE_MEANS])
    return jnp.concatenate(jax.tree.leaves(told[INSTANCE_MEANS]), axis=-1)


def stage_descriptors(network: ResNet, variables: Mapping[str, Any], images: Array) -> Array:
    """Spatial means of the inputs of a ResNet's four stages.

    zju-vipa's CMI takes them of a ResNet-34, whose batch norms have 8,512 channels in all.

    Args:
        network: a ResNet.
        variables: its variables; it is applied without training.
        images: `[batch, height, width, channels]`, normalised.

    Returns:
        `[batch, 8 width]`; of bottlenecks, all but the first `width` columns are four times as
        many.
    """

    def wanted(module: nn.Module, _: str) -> bool:
        return isinstance(module, Block) or (isinstance(module, ConvNorm) and module.name == "stem")

    _, told = network.apply(variables, images, capture_intermediates=wanted)
    told = told["intermediates"]
    inputs = [nn.relu(told["stem"]["__call__"][0])]
    if network.stem == "imagenet":
        inputs[0] = nn.max_pool(inputs[0], (3, 3), (2, 2), ((1, 1), (1, 1)))
    for stage, blocks in enumerate(BLOCKS[network.depth][:3], 1):
        inputs.append(told[f"stage{stage}_block{blocks - 1}"]["__call__"][0])
    return jnp.concatenate([jnp.mean(x, axis=(1, 2)) for x in inputs], axis=-1)
