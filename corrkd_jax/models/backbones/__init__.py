"""Image classifiers: NHWC in, `(logits, features)` out, and tables of their torch weights.

Every network takes `(images, train=False)`. In training its batch norms update `batch_stats`. A
loss on the statistics of their inputs asks for the collection `bn_inputs`, see
`corrkd_jax.models.backbones.layers.BatchNorm`.
"""

from corrkd_jax.models.backbones.layers import BN_INPUTS, INSTANCE_MEANS
from corrkd_jax.models.backbones.lenet import LENET5, LENET5_HALF, LeNet, lenet_table
from corrkd_jax.models.backbones.mlp import MLP
from corrkd_jax.models.backbones.mobilenet import MobileNetV2, mobilenet_table
from corrkd_jax.models.backbones.resnet import ResNet, resnet_table
from corrkd_jax.models.backbones.vgg import VGG, VGG11, vgg_table
from corrkd_jax.models.backbones.wide_resnet import WideResNet, wide_resnet_table

__all__ = [
    "BN_INPUTS",
    "INSTANCE_MEANS",
    "LENET5",
    "LENET5_HALF",
    "MLP",
    "VGG",
    "VGG11",
    "LeNet",
    "MobileNetV2",
    "ResNet",
    "WideResNet",
    "lenet_table",
    "mobilenet_table",
    "resnet_table",
    "vgg_table",
    "wide_resnet_table",
]
