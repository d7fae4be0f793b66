"""Pictures of substitution data, read back pixel by pixel."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from corrkd_jax.data import images as image_sets
from corrkd_jax.errors import InputError
from tests.data import image_layouts as layouts
from train.datafree import pictures, ring


def test_grid_of_small_grey_images(tmp_path: Path):
    images = layouts.pixels(5, 8, channels=1)
    pictures.save_png(tmp_path / "grid.png", pictures.grid(images, columns=3))
    found = np.asarray(Image.open(tmp_path / "grid.png"))
    # 8 pixels are shown as 32, with one white pixel between
    assert found.shape == (2 * 33 - 1, 3 * 33 - 1)
    for number, image in enumerate(images):
        top, left = 33 * (number // 3), 33 * (number % 3)
        cell = found[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(cell[::4, ::4], image[..., 0])
        np.testing.assert_array_equal(cell[3::4, 3::4], image[..., 0])
    assert (found[32] == 255).all()
    assert (found[33:, 66:] == 255).all()  # the sixth place is empty


def test_grid_of_colours(tmp_path: Path):
    images = layouts.pixels(2, 40)
    pictures.save_png(tmp_path / "grid.png", pictures.grid(images))
    found = np.asarray(Image.open(tmp_path / "grid.png"))
    assert found.shape == (40, 81, 3)
    np.testing.assert_array_equal(found[:, 41:], images[1])
    with pytest.raises(ValueError, match="no images"):
        pictures.grid(images[:0])


@pytest.mark.parametrize("written", [0, 3, 5, 6, 12])
def test_order_of_a_ring(written):
    held = ring.empty(5, ())
    for number in range(written):
        held = ring.push(held, jnp.full(1, number, jnp.uint8))
    found = pictures.in_order(np.asarray(held.rows), int(held.written))
    assert found.tolist() == list(range(written))[-5:]


@pytest.mark.parametrize("channels", [1, 3])
def test_panels_by_epoch(channels):
    """Epochs below each other, exact pixels, a number to the left of each."""
    images = layouts.pixels(2 * 20, 32, channels=channels).reshape(2, 20, 32, 32, channels)
    found = pictures.by_epoch(images, (1, 200))
    # twenty images are two lines of sixteen; four white pixels between the epochs
    assert found.shape == (2 * 65 + 4, 36 + 16 * 33 - 1, channels)
    for number, made in enumerate(images):
        top = 69 * number
        np.testing.assert_array_equal(found[top : top + 65, 36:], pictures.grid(made))
        margin = found[top : top + 65, :36]
        assert margin.min() < 100
    assert (found[65:69] == 255).all()
    assert (found[:65, :36] != found[69:, :36]).any()


def test_dump_is_a_pool(tmp_path: Path):
    images = layouts.pixels(3, 4)
    pictures.dump(tmp_path / "pool", images)
    np.testing.assert_array_equal(image_sets.read_pool(tmp_path / "pool", 4).images[:], images)
    with pytest.raises(InputError, match="holds images already"):
        pictures.dump(tmp_path / "pool", images)


@pytest.mark.parametrize("classes", [10, 100])
def test_histogram(tmp_path: Path, classes):
    skew = np.random.default_rng(0).dirichlet(np.ones(classes), size=3)
    shares = {"skewed": skew, "balanced": np.full((3, classes), 1 / classes)}
    pictures.class_histogram(tmp_path / "a.png", shares)
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert (found != 255).any()
    pictures.class_histogram(tmp_path / "b.png", {**shares, "skewed": skew[:, ::-1] ** 2})
    assert not np.array_equal(found, np.asarray(Image.open(tmp_path / "b.png")))
    with pytest.raises(InputError, match=r"a\.png: cannot be written"):
        pictures.class_histogram(tmp_path / "none" / "a.png", shares)


@pytest.mark.parametrize("classes", [10, 100])
def test_accuracy_by_class(tmp_path: Path, classes):
    """It tells a row that is better in some classes from one that is not."""
    host = np.random.default_rng(0).uniform(size=(3, classes))
    pictures.class_accuracy(tmp_path / "a.png", {"host": host, "KDCI": host})
    pictures.class_accuracy(tmp_path / "b.png", {"host": host, "KDCI": np.sqrt(host)})
    same, better = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert same.shape == better.shape
    assert (same != better).any()
