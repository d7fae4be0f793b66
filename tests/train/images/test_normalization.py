"""A teacher that is shown images in another range than it was trained on is noticed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.dfkd import presets
from corrkd_jax.data import images
from corrkd_jax.data.image_set import Normalization
from corrkd_jax.models.backbones import named
from tests.train.datafree import tiny_dfkd
from train.datafree import program as dfkd
from train.datafree.hosts.networks import read_pixels
from train.datafree.inputs import Loaded
from train.engine.parallel import Layout
from train.images.normalization import first_gap, first_norm
from train.images.pretrained import Pretrained

NETWORK = "mlp16_8"
RIGHT = Normalization((0.0,), (1.0,))
WRONG = {
    "mnist": images.NORMALIZATIONS["mnist"],
    "imagenet": Normalization((0.449,), (0.226,)),
    "half": Normalization((0.5,), (0.5,)),
    "16 times": Normalization((0.0,), (1 / 16,)),
    "255 times": Normalization((0.0,), (1 / 255,)),
}


@pytest.fixture(scope="module")
def teacher():
    """Of random weights, whose batch norms have met the digits of the training part."""
    train = images.read("digits", "", "train")
    network = named.build(NETWORK, 10, 8).network
    shown = read_pixels(jnp.asarray(train.images), RIGHT, train.white)
    variables = network.init(jax.random.key(0), shown[:2])

    @jax.jit
    def meet(variables, shown):
        return {
            **variables,
            **network.apply(variables, shown, train=True, mutable=["batch_stats"])[1],
        }

    random = np.random.default_rng(0)
    for _ in range(50):
        variables = meet(variables, shown[random.permutation(len(shown))[:128]])
    return jax.tree.map(np.asarray, variables)


def doubt(variables, normalization, devices=1):
    """What is said of a teacher whose file notes this normalisation."""
    config = dataclasses.replace(presets("deepinv")["digits"], teacher="x")
    own = Pretrained(NETWORK, 10, 8, 1, variables, normalization)
    loaded = Loaded(None, images.read("digits", "", "test"), None, own)
    owner = dfkd.build("digits", config, loaded, Layout("batch", devices))[-1]
    return dfkd.normalization_doubt(owner.networks, loaded)


def test_the_right_normalization_is_not_doubted(teacher):
    assert not doubt(teacher, RIGHT)
    # where the file says nothing, the data set's own is taken; a batch may lie on many devices
    assert not doubt(teacher, None, devices=8)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_normalization_is_told_in_one_line(teacher, wrong):
    said = doubt(teacher, WRONG[wrong])
    assert "\n" not in said
    mean, std = WRONG[wrong]
    assert f"a normalisation of mean {mean[0]:g} and std {std[0]:g};" in said
    assert "--trained-on" in said


def test_the_measure():
    """Two channels whose mean is off by a deviation and whose variance is off by e."""
    network = named.build("mlp2", 3, 1).network
    pixels = jnp.asarray([-1.0, 1.0, -1.0, 1.0]).reshape(4, 1, 1, 1)
    variables = network.init(jax.random.key(0), pixels)
    kernel = {"kernel": jnp.ones((1, 2))}
    norm = {"mean": jnp.asarray([2.0, -2.0]), "var": jnp.asarray([4.0, 4.0])}
    variables = {
        "params": {**variables["params"], "hidden0": kernel},
        "batch_stats": {"norm0": norm},
    }
    gap = first_gap(network, variables, pixels)
    np.testing.assert_allclose(gap.shift, 1.0, rtol=1e-4)
    np.testing.assert_allclose(gap.spread, np.log(4), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("wrn10_1", "group1_block0/norm1"),
        ("resnet18", "stem/norm"),
        ("vgg11", "group0_unit0/norm"),
        ("mobilenetv2", "stem/norm"),
    ],
)
def test_the_first_batch_norm_is_the_first_applied(name, first):
    network = named.build(name, 3).network
    pixels = jnp.zeros((2, 16, 16, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), pixels)

    def traced(variables):
        met, remembered = first_norm(network, variables, pixels)
        layer = variables["batch_stats"]
        for part in first.split("/"):
            layer = layer[part]
        assert remembered["mean"] is layer["mean"]
        return met

    assert jax.eval_shape(traced, variables).keys() == {"mean", "var"}


def test_a_teacher_without_batch_norms_is_not_asked():
    loaded = tiny_dfkd.loaded()
    networks = tiny_dfkd.owner_of(tiny_dfkd.config("fast"), loaded).networks
    bare = {"params": loaded.teacher.variables["params"]}
    loaded = loaded._replace(teacher=dataclasses.replace(loaded.teacher, variables=bare))
    assert not dfkd.normalization_doubt(networks, loaded)
