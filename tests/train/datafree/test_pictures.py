"""Pictures of substitution data, read back pixel by pixel."""

import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from corrkd_jax.data import images as image_sets
from corrkd_jax.errors import InputError
from tests.data import image_layouts as layouts
from train.datafree import pictures, ring
from train.engine.report import drawn, write_picture


def pixels_of(picture: bytes) -> np.ndarray:
    """A PNG, read back."""
    return np.asarray(Image.open(io.BytesIO(picture)))


def test_grid_of_small_grey_images():
    images = layouts.pixels(5, 8, channels=1)
    found = pixels_of(pictures.png(pictures.grid(images, columns=3)))
    # 8 pixels are shown as 32, with one white pixel between
    assert found.shape == (2 * 33 - 1, 3 * 33 - 1)
    for number, image in enumerate(images):
        top, left = 33 * (number // 3), 33 * (number % 3)
        cell = found[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(cell[::4, ::4], image[..., 0])
        np.testing.assert_array_equal(cell[3::4, 3::4], image[..., 0])
    assert (found[32] == 255).all()
    assert (found[33:, 66:] == 255).all()  # the sixth place is empty


def test_grid_of_colours():
    images = layouts.pixels(2, 40)
    found = pixels_of(pictures.png(pictures.grid(images)))
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


def test_a_dump_that_the_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch):
    """One line; what was written before it is taken back, so that the folder can be used again."""
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "notes.txt").write_text("mine")
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError) as refused:
        pictures.dump(tmp_path / "pool", layouts.pixels(5, 4))
    assert str(refused.value) == (
        f"{tmp_path / 'pool' / '000002.png'}: cannot be written: No space left on device; check "
        "folder, rights and space"
    )
    assert [path.name for path in (tmp_path / "pool").iterdir()] == ["notes.txt"]
    pictures.dump(tmp_path / "pool", layouts.pixels(5, 4))
    assert len(list((tmp_path / "pool").glob("*.png"))) == 5


@pytest.mark.parametrize("classes", [10, 100])
def test_histogram(tmp_path: Path, classes):
    skew = np.random.default_rng(0).dirichlet(np.ones(classes), size=3)
    shares = {"skewed": skew, "balanced": np.full((3, classes), 1 / classes)}
    picture = drawn(pictures.class_histogram(shares))
    assert (pixels_of(picture) != 255).any()
    other = drawn(pictures.class_histogram({**shares, "skewed": skew[:, ::-1] ** 2}))
    assert not np.array_equal(pixels_of(picture), pixels_of(other))
    with pytest.raises(InputError, match=r"a\.png: cannot be written"):
        write_picture(tmp_path / "none" / "a.png", picture)


@pytest.mark.parametrize("classes", [10, 100])
def test_accuracy_by_class(classes):
    """It tells a row that is better in some classes from one that is not."""
    host = np.random.default_rng(0).uniform(size=(3, classes))
    rows = {"host": host, "KDCI": host}, {"host": host, "KDCI": np.sqrt(host)}
    same, better = (pixels_of(drawn(pictures.class_accuracy(each))) for each in rows)
    assert same.shape == better.shape
    assert (same != better).any()
