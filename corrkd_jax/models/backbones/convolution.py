"""A convolution whose gradient is as fast inside a compiled loop as outside, on CPUs too.

XLA hands a convolution to its fast library only where its axes have the order of the forward pass,
and brings others into that order only outside of loops (jax-ml/jax#12868). Gradients of a training
step that is scanned would run in naive loops, some fifty times slower. Here the backward pass is
written in that order to begin with.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from corrkd_jax.losses.reduction import at_least_float32

_ORDER = ("NHWC", "HWIO", "NHWC")
_MEETING = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)
"""`[place, pixel, tap]`: which taps of three meet which of the two pixels, at either place."""
Padding = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated`, for `nn.Conv(conv_general_dilated=...)`.

    Plain convolutions of images on a CPU are differentiated as said above, all others as usual.
    """
    plain = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and not isinstance(padding, str)
        and options.get("feature_group_count", 1) == 1
        and all(set(options.get(name) or (1,)) == {1} for name in ("lhs_dilation", "rhs_dilation"))
    )
    if not plain:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return _convolution(lhs, rhs, tuple(window_strides), pads)


def conv_of_doubled(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """A 3 x 3 convolution of images whose every pixel stands four times, from one of each.

    Equals `conv_general_dilated` after nearest-neighbour upsampling by two, with 4/9 of its
    products and without the large images. A window of three doubled pixels covers two that differ:
    for each of the four places in a square of the result the kernel's rows and columns that meet
    the same pixel are added, which leaves a window of two.

    Args:
        lhs: `[batch, height, width, channels]`, before upsampling.
        rhs: `[3, 3, channels, features]`.
        window_strides: ones.
        padding: ones, of the upsampled images.
        options: as of `conv_general_dilated`; no dilation and no groups.

    Returns:
        `[batch, 2 * height, 2 * width, features]`.

    Raises:
        ValueError: another window, stride or padding.
    """
    found = rhs.shape[:2], tuple(window_strides), tuple(map(tuple, padding))
    if found != ((3, 3), (1, 1), ((1, 1), (1, 1))):
        raise ValueError(f"a window of 3 x 3, stride 1 and padding 1 is needed, got {found}")
    batch, height, width, _ = lhs.shape
    small = jnp.einsum("api,bqj,ij...->abpq...", _MEETING, _MEETING, at_least_float32(rhs))
    small = small.astype(rhs.dtype)
    squares = [
        [
            conv_general_dilated(lhs, small[a, b], (1, 1), ((1 - a, a), (1 - b, b)), **options)
            for b in (0, 1)
        ]
        for a in (0, 1)
    ]
    made = jnp.stack([jnp.stack(row, axis=3) for row in squares], axis=2)
    return made.reshape(batch, 2 * height, 2 * width, -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(images: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_ORDER)


def _forward(
    images: Array, kernel: Array, strides: tuple[int, int], padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(images, kernel, strides, padding), (images, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = kept
    sides = [
        (size, window, (out - 1) * stride + 1, low)
        for size, window, out, stride, (low, _) in zip(
            images.shape[1:3], kernel.shape[:2], gradient.shape[1:3], strides, padding, strict=True
        )
    ]
    # what remains of an axis decides on its far end: sizes of the results are known
    of_images = lax.conv_general_dilated(
        gradient,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [(k - 1 - low, size - spread + low) for size, k, spread, low in sides],
        lhs_dilation=strides,
        dimension_numbers=_ORDER,
    )
    ends = [k + spread - 1 - size - low for size, k, spread, low in sides]
    # pixels at the far end that no window reached
    rows, columns = (size + min(end, 0) for (size, *_), end in zip(sides, ends, strict=True))
    of_kernel = lax.conv_general_dilated(
        images[:, :rows, :columns].transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, max(end, 0)) for (*_, low), end in zip(sides, ends, strict=True)],
        rhs_dilation=strides,
        dimension_numbers=_ORDER,
    )
    return of_images.astype(images.dtype), of_kernel.transpose(1, 2, 0, 3).astype(kernel.dtype)


_convolution.defvjp(_forward, _backward)
