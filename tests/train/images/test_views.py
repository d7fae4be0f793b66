"""Views of images: what may be in them, where gradients go, and the two ends of their range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.images import views

KEY = jax.random.key(0)
CROP = jax.jit(views.crop_and_flip, static_argnums=2)
RESIZED = jax.jit(views.resized_crop, static_argnums=(2, 3, 4))


@pytest.fixture(scope="module")
def images():
    """Every pixel of a batch has its own value, above zero."""
    return jnp.arange(1.0, 1 + 300 * 5 * 4 * 2).reshape(300, 5, 4, 2)


def test_crops_are_windows_of_the_padded_image(images):
    """Each result is one of the 2 (2 padding + 1)^2 windows, and all of them occur."""
    found = np.asarray(CROP(KEY, images, 1))
    padded = np.pad(np.asarray(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    met = set()
    for view, image in zip(found, padded, strict=True):
        windows = {
            (i, j, mirrored): image[i : i + 5, j : j + 4][:, :: -1 if mirrored else 1]
            for i in range(3)
            for j in range(3)
            for mirrored in (False, True)
        }
        same = [place for place, window in windows.items() if np.array_equal(window, view)]
        assert len(same) == 1
        met.add(same[0])
    assert len(met) == 18


def test_crops_of_bytes_stay_bytes(images):
    assert CROP(KEY, images.astype(jnp.uint8), 1).dtype == jnp.uint8


def test_no_padding_only_mirrors(images):
    found = np.asarray(CROP(KEY, images, 0))
    same = (found == np.asarray(images)).all((1, 2, 3))
    mirrored = (found[:, :, ::-1] == np.asarray(images)).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 100 < mirrored.sum() < 200


def test_the_whole_image_is_itself(images):
    image = np.asarray(images)
    # 5 high and 4 wide: a ratio of 0.8 is the image's own
    found = np.asarray(RESIZED(KEY, images, (1.0, 1.0), (0.8, 0.8)))
    close = [np.isclose(x, image, rtol=1e-4).all((1, 2, 3)) for x in (found, found[:, :, ::-1])]
    assert (close[0] ^ close[1]).all()
    assert 100 < close[1].sum() < 200
    found = RESIZED(KEY, images, (1.0, 1.0), (0.8, 0.8), False)
    np.testing.assert_allclose(found, image, rtol=1e-4)


def test_a_quarter_of_a_ramp():
    """On a ramp, linear interpolation is exact: the view is a ramp of half the slope."""
    ramp = jnp.broadcast_to(jnp.arange(8.0)[:, None, None], (50, 8, 8, 1))
    found = np.asarray(RESIZED(KEY, ramp, (0.25, 0.25), (1.0, 1.0)))[..., 0]
    np.testing.assert_allclose(found, found[:, :, :1] * np.ones(8), atol=1e-5)
    # beyond the centres of the outermost pixels there is nothing to interpolate between
    inside = (found[:, :, 0] > 1e-6) & (found[:, :, 0] < 7 - 1e-6)
    inside = inside[:, 1:] & inside[:, :-1]
    np.testing.assert_allclose(np.diff(found[:, :, 0], axis=1)[inside], 0.5, atol=1e-5)
    middle = found[:, :, 0].mean(1)
    assert middle.min() < 2.2  # windows lie at the top
    assert middle.max() > 4.8  # and at the bottom
    assert (found >= 0).all()
    assert (found <= 7).all()


def test_areas_are_between_the_bounds():
    """The slopes along both axes tell the window's sides."""
    y, x = jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing="ij")
    ramps = jnp.broadcast_to(jnp.stack([y, x], -1), (200, 32, 32, 2))
    found = np.abs(np.asarray(RESIZED(KEY, ramps, (0.25, 0.5), (3 / 4, 4 / 3))))
    tall = np.median(np.abs(np.diff(found[..., 0], axis=1)), axis=(1, 2))
    wide = np.median(np.abs(np.diff(found[..., 1], axis=2)), axis=(1, 2))
    area, ratio = tall * wide, wide / tall
    assert 0.249 < area.min() < 0.27
    assert 0.48 < area.max() < 0.501
    assert 0.749 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.334


def test_gradients_reach_the_images():
    """A view is linear in its image, so its gradient is the adjoint: <v, A x> = <A' v, x>."""
    x, other = jax.random.normal(KEY, (2, 3, 6, 6, 2))
    for view in (lambda x: CROP(KEY, x, 1), lambda x: RESIZED(KEY, x, (0.25, 1.0), (0.75, 4 / 3))):
        seen, pull = jax.vjp(view, x)
        np.testing.assert_allclose(
            jnp.vdot(seen, other), jnp.vdot(pull(other)[0], x), rtol=1e-4, atol=1e-4
        )
