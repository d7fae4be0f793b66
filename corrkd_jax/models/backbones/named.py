"""Image classifiers by the names that checkpoints of the distillation repositories carry."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from corrkd_jax.errors import InputError
from corrkd_jax.models.backbones.lenet import LENET5_HALF, LeNet, lenet_table
from corrkd_jax.models.backbones.mlp import MLP
from corrkd_jax.models.backbones.mobilenet import MobileNetV2, mobilenet_table
from corrkd_jax.models.backbones.resnet import ResNet, resnet_table
from corrkd_jax.models.backbones.vgg import VGG, vgg_table
from corrkd_jax.models.backbones.wide_resnet import WideResNet, wide_resnet_table
from corrkd_jax.models.torch_weights import Layer

NAMES = ("wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2", "resnet18", "resnet34", "resnet50")
"""Names that a message offers; any `wrnDEPTH_WIDEN` and `mlpWIDTH_WIDTH...` is accepted as well."""
NAMES += ("vgg11", "mobilenetv2", "lenet5", "lenet5_half")
"""Names that a message offers; any `wrnDEPTH_WIDEN` and `mlpWIDTH_WIDTH...` will do as well."""

_DEEPEST, _WIDEST = 1000, 100


class Named(NamedTuple):
    """Network and the table of its torch weights.

    Attributes:
        network: a classifier.
        table: its rows for `corrkd_jax.models.torch_weights`; None for an MLP, which has no torch
            original.
    """

    network: nn.Module
    table: list[Layer] | None


def build(
    name: str,
    classes: int,
    side: int = 32,
    axis_name: str | Sequence[str] | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> Named:
    """Classifier of a given name.

    Args:
        name: such as `wrn40_2`, `resnet34`, `mlp256_128`; case and `-` for `_` do not matter.
        classes: number of classes.
        side: side of the images in pixels; ResNets take ImageNet's stem from 128 on.
        axis_name: named axis over which batches are sharded.
        dtype: compute type.

    Returns:
        `Named`.

    Raises:
        InputError: no such network.
    """
    plain = name.lower().replace("-", "_").replace("wrn_", "wrn")
    shared = {"axis_name": axis_name, "dtype": dtype}
    stem = "imagenet" if side >= 128 else "cifar"
    if found := re.fullmatch(r"wrn(\d+)_(\d+)", plain):
        depth, widen = map(int, found.groups())
        # beyond that a name is damaged, and the network would take hours to lay out
        if 10 <= depth <= _DEEPEST and depth % 6 == 4 and 0 < widen <= _WIDEST:
            table = wide_resnet_table(depth, widen)
            return Named(WideResNet(classes, depth, widen, **shared), table)
    if found := re.fullmatch(r"resnet(18|34|50)", plain):
        depth = int(found[1])
        return Named(ResNet(classes, depth, stem, **shared), resnet_table(depth, stem))
    if plain in ("vgg11", "vgg11_bn"):
        return Named(VGG(classes, **shared), vgg_table())
    if plain in ("mobilenetv2", "mobilenet_v2"):
        return Named(MobileNetV2(classes, **shared), mobilenet_table())
    if plain == "lenet5":
        return Named(LeNet(classes, dtype=dtype), lenet_table())
    if plain == "lenet5_half":
        return Named(LeNet(classes, LENET5_HALF, dtype=dtype), lenet_table())
    if re.fullmatch(r"mlp\d+(_\d+)*", plain):
        widths = tuple(int(width) for width in plain.removeprefix("mlp").split("_"))
        return Named(MLP(classes, widths, **shared), None)
    raise InputError(f"{name}: no such network; there are {', '.join(NAMES)}")
