"""Descriptors of images by a teacher's inner means: published widths, and the means themselves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.backbones import ResNet, WideResNet
from corrkd_jax.models.backbones.named import build
from corrkd_jax.models.descriptors import norm_descriptors, stage_descriptors

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("name", "width"),
    {
        "wrn40_2": 2704,
        "wrn16_1": 464,
        "wrn40_1": 1360,
        "wrn16_2": 912,
        "resnet34": 8512,
        "vgg11": 2752,
    }.items(),
)
def test_published_widths(name, width):
    network = build(name, 10).network
    images = jnp.zeros((3, 32, 32, 3))
    shapes = jax.eval_shape(network.init, KEY, images)
    found = jax.eval_shape(lambda v, x: norm_descriptors(network, v, x), shapes, images)
    assert found.shape == (3, width)
    if name == "resnet34":
        stages = jax.eval_shape(lambda v, x: stage_descriptors(network, v, x), shapes, images)
        assert stages.shape == (3, 512)


def filled(network, images):
    """Random variables, without compiling what initialises them."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, KEY, images)
    return jax.tree.map(lambda x: 0.3 * random.uniform(size=x.shape).astype(np.float32), shapes)


def test_means_of_what_each_norm_is_fed():
    """The first norm is fed the stem's map; an image's descriptor is its own alone."""
    network = WideResNet(3, 10, 1)
    images = jax.random.normal(KEY, (2, 8, 8, 3))
    variables = filled(network, images)
    found = jax.jit(partial(norm_descriptors, network))(variables, images)
    kernel = variables["params"]["stem"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # leaves are sorted by name, and group1_block0/norm1 is the first
    np.testing.assert_allclose(found[:, :16], stem.mean((1, 2)), atol=1e-5)


def test_stages_are_told_of_their_inputs():
    """Against the network cut open by hand, after its stem and block after block."""
    network = ResNet(3, 18, "imagenet", 4)
    images = jax.random.normal(KEY, (2, 32, 32, 3))
    variables = filled(network, images)

    @jax.jit
    def both(variables, images):
        _, told = network.apply(variables, images, capture_intermediates=True)
        return stage_descriptors(network, variables, images), told["intermediates"]

    found, told = both(variables, images)
    stem = jax.nn.relu(told["stem"]["__call__"][0])
    padded = np.pad(stem, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros: there is a ReLU before
    windows = [padded[:, i : i + 15 : 2, j : j + 15 : 2] for i in range(3) for j in range(3)]
    inputs = [np.stack(windows).max(0)]
    inputs += [told[f"stage{i}_block1"]["__call__"][0] for i in (1, 2, 3)]
    assert found.shape == (2, 4 + 4 + 8 + 16)
    expected = np.concatenate([x.mean((1, 2)) for x in inputs], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
