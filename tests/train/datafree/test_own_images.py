"""A set of images of one's own: its size, its classes, and what is said of its files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.dfkd import ImageConfig, presets
from corrkd_jax.errors import InputError
from corrkd_jax.models.backbones import named
from tests.data import image_layouts as layouts
from train.datafree import inputs
from train.images import pretrained

SIDE = 12


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two classes and a stray folder of an editor's; a teacher that knows two classes."""
    root = tmp_path_factory.mktemp("own")
    for part in ("train", "val"):
        for name in ("cat", "dog", ".ipynb_checkpoints"):
            layouts.image(root / part / name / "a.png", layouts.pixels(1, 20)[0])
    (root / "val" / "dog" / "b.webp").write_bytes(b"x")
    network = named.build("mlp4", 2, SIDE).network
    tree = network.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    model = pretrained.Pretrained("mlp4", 2, SIDE, 3, jax.tree.map(np.asarray, tree))
    pretrained.save(root / "teacher.npz", model)
    return root


def config(root, size=SIDE):
    preset = presets("fast")["folders"]
    data = ImageConfig(root=str(root), size=size)
    return dataclasses.replace(preset, data=data, teacher=str(root / "teacher.npz"))


def test_what_a_run_reads(own, capsys):
    inputs.check("folders", config(own))
    loaded = inputs.load("folders", config(own))
    assert loaded.test.images.shape == (2, SIDE, SIDE, 3)
    assert loaded.test.classes == ("cat", "dog")
    assert loaded.teacher.classes == 2
    said = capsys.readouterr().out
    assert f"{own}: val: 1 skipped, hidden or not .png, .jpg, .jpeg, such as val/dog/b.webp" in said


def test_another_size_is_for_folders_alone(own):
    with pytest.raises(
        InputError, match=r"--data\.size 12: cifar10 has a size of its own; only im"
    ):
        inputs.check("cifar10", config(own))
    inputs.check("imagenet", config(own, 96))
