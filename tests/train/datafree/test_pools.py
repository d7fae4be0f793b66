"""Pools of other domains: what may be one, and that it is large enough."""

import dataclasses

import numpy as np
import pytest

from configs.dfkd import presets
from corrkd_jax.errors import InputError
from tests.data import image_layouts as layouts
from train.datafree import inputs
from train.datafree import program as dfkd


def chosen(root, pool, host="mosaic"):
    """CIFAR-100 with a pool."""
    preset = presets(host)["cifar100"]
    return dataclasses.replace(preset, data=dataclasses.replace(preset.data, root=root, pool=pool))


def test_batches_of_another_set_are_a_pool(tmp_path):
    """CIFAR-10 for CIFAR-100, as published, from one folder of both; ImageNet's where they fit."""
    layouts.cifar100(tmp_path, layouts.pixels(3, 32))
    layouts.cifar10(tmp_path, pixels := layouts.pixels(12, 32, seed=1))
    config = chosen(str(tmp_path), str(tmp_path / "cifar-10-batches-py"))
    loaded = inputs.load("cifar100", config)
    assert len(loaded.test) == 3
    there = inputs.sets(dataclasses.replace(config, optimizer=small(config)), loaded)["pool"]
    np.testing.assert_array_equal(there["images"], pixels[:10])
    assert set(there["labels"]) == {-1}
    layouts.small_imagenet(tmp_path / "64", layouts.pixels(2, 64))
    with pytest.raises(InputError, match=r"64: train: images are \(64, 64, 3\), not \(32, 32, 3\)"):
        inputs.load("cifar100", chosen(str(tmp_path), str(tmp_path / "64"), "dfnd"))


def small(config):
    """A batch that ten images fill."""
    return dataclasses.replace(config.optimizer, batch_size=2)


@pytest.mark.parametrize("host", ["dfnd", "mosaic"])
def test_a_pool_of_fewer_images_than_prototypes(tmp_path, host):
    """One line and no folder; refused before anything is compiled."""
    for number, image in enumerate(layouts.pixels(20, 8, channels=1)):
        layouts.image(tmp_path / "pool" / f"{number}.png", image)
    options = ("--host", host, "--data.pool", str(tmp_path / "pool"), "--optimizer.batch-size", "4")
    options += ("--synthesis.select", "20", "--workdir", str(tmp_path / "run"), "--devices", "1")
    with pytest.raises(InputError) as error:
        dfkd.main([*options, "--compensation.prototypes", "64"])
    assert str(error.value) == (
        f"--compensation.prototypes 64: only 20 images of {tmp_path / 'pool'} are used; take fewer "
        "prototypes, or more images"
    )
    assert not (tmp_path / "run").exists()
