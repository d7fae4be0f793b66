"""Random views of images on the device, image by image: what students and teachers are shown."""

import math

import jax
import jax.numpy as jnp
from jax import Array


def crop_and_flip(key: Array, images: Array, padding: int = 4) -> Array:
    """Each image moved by up to `padding` pixels, and mirrored every other time.

    Args:
        key: a key.
        images: `[batch, height, width, channels]`, of any type, not yet normalised: the pixels
            that come in are zero, which is black.
        padding: pixels on each side.
    """
    corners, mirrored = jax.random.split(key)
    corners = jax.random.randint(corners, (len(images), 2), 0, 2 * padding + 1)
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))

    def crop(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return _flip(mirrored, jax.vmap(crop)(jnp.pad(images, sides), corners))


def resized_crop(
    key: Array,
    images: Array,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> Array:
    """A rectangle of each image, scaled up to the whole, and mirrored every other time.

    Pixels are interpolated linearly, so that gradients reach the images.

    Args:
        key: a key.
        images: `[batch, height, width, channels]`.
        scale: of the rectangle's area to the image's, uniform between these.
        ratio: of width to height, its logarithm uniform; a side that would stick out is cut.
        flip: mirror; digits may not be.
    """
    area, shape, top, left, mirrored = jax.random.split(key, 5)
    batch, height, width = images.shape[:3]
    area = jax.random.uniform(area, (batch,), minval=scale[0], maxval=scale[1]) * height * width
    low, high = (math.log(x) for x in ratio)
    root = jnp.exp(jax.random.uniform(shape, (batch,), minval=low, maxval=high) / 2)
    tall, wide = jnp.sqrt(area) / root, jnp.sqrt(area) * root
    rows = _samples(jnp.minimum(tall, height), height, jax.random.uniform(top, (batch,)))
    columns = _samples(jnp.minimum(wide, width), width, jax.random.uniform(left, (batch,)))
    views = jnp.einsum("bij,bjkc,blk->bilc", rows, images, columns)
    return _flip(mirrored, views) if flip else views


def _samples(length: Array, size: int, place: Array) -> Array:
    """Linear interpolation along an axis of `size` pixels as a matrix, `[batch, size, size]`.

    Args:
        length: `[batch]` of the part that is kept, in pixels.
        size: of the axis.
        place: `[batch]` in [0, 1], of that part: 0 at the first pixel, 1 at the last.
    """
    centres = (jnp.arange(size) + 0.5) / size
    at = (size - length)[:, None] * place[:, None] + length[:, None] * centres - 0.5
    at = jnp.clip(at, 0, size - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[..., None] - jnp.arange(size)))


def _flip(key: Array, images: Array) -> Array:
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)
