"""Convolution whose gradient is as fast inside a compiled loop as outside, on CPUs too.

XLA hands a convolution to its fast library only where its axes have the order of the forward pass,
and brings others into that order only outside of loops (jax-ml/jax#12868). Gradients of a training
step that is scanned would run in naive loops, some fifty times slower. Here the backward pass is
written in that order to begin with.
"""

import itertools
import math
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
    """Convolution like `jax.lax.conv_general_dilated`, for the argument of that name of `nn.Conv`.

    Plain convolutions of images on a CPU have the module's gradient, all others JAX's own.

    Args:
        lhs: `[batch, height, width, channels]`, or another rank.
        rhs: `[height, width, channels, features]`.
        window_strides: strides of the window.
        padding: zeros before and after each spatial axis, or a name.
        options: as of `jax.lax.conv_general_dilated`.

    Returns:
        `[batch, out_height, out_width, features]`.
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
    """3 x 3 convolution of images upsampled by two, computed from the images before upsampling.

    Equals `conv_general_dilated` after nearest-neighbour upsampling by two, with 4/9 of its
    products and without the large images. A window of three doubled pixels covers two that differ.
    For each of the four places in a square of the result the kernel's rows and columns that meet
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
    return _convolved(images, kernel, strides, padding)


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
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    pads = tuple((k - 1 - low, size - spread + low) for size, k, spread, low in sides)
    of_images = _convolved(gradient, turned, (1, 1), pads, dilation=strides)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        met = images[:, :: strides[0], :: strides[1]]
        of_kernel = _by_shifts(met, gradient, (1, 1), padding)
    elif strides == (1, 1):
        of_kernel = _by_shifts(images, gradient, kernel.shape[:2], padding)
    else:
        of_kernel = _by_windows(images, gradient, strides, sides)
    return of_images.astype(images.dtype), of_kernel.astype(kernel.dtype)


_convolution.defvjp(_forward, _backward)


def _convolved(
    images: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    """A convolution of images, which may be dilated, by XLA's faster kernels.

    jaxlib 0.10 has two kinds on CPUs. YNNPACK's, which it prefers at stride 1, ran at about half
    the rate of Eigen's with 32 and 64 channels (an Intel Xeon, docs/results/dfkd.md), and are not
    given a convolution whose result is larger than its images. So one row more than that is asked
    for, and left out. With fewer than 16 channels Eigen's are the slower.
    """
    (low, high), across = padding
    more = 0
    if strides == dilation == (1, 1) and min(kernel.shape[2:]) >= 16:
        # the result has `shrinks` rows fewer than the images
        shrinks = kernel.shape[0] - 1 - low - high
        more = max(shrinks + 1, 0)
    found = lax.conv_general_dilated(
        images,
        kernel,
        strides,
        ((low, high + more), across),
        lhs_dilation=dilation,
        dimension_numbers=_ORDER,
    )
    return found[:, : found.shape[1] - more]


def _by_shifts(images: Array, gradient: Array, window: tuple[int, int], padding: Padding) -> Array:
    """Gradient of the kernel of a convolution of stride 1, as one product of matrices.

    Tap (i, j) sums image times gradient with the image moved by (i, j), or the gradient the other
    way. Along each axis one of the two is copied for all taps, which stand beside each other in
    its channels: the product has every pair. Chosen is what makes the fewest numbers; where both
    have as many channels, 2 x 3 copies for a window of 3 x 3 in place of the nine of its patches.
    """
    sides = [x.shape[-1] for x in (images, gradient)]
    ways = itertools.product((0, 1), repeat=2)  # which of the two moves down, and across
    moving = min(ways, key=lambda way: sum(_copied(sides[x], way, window, x) for x in (0, 1)))
    pair = [images, gradient]
    for axis in (1, 0):
        which, low = moving[axis], padding[axis][0]
        # image y + tap - low meets gradient y, and image y meets gradient y + low - tap
        starts = [(tap - low) * (-1 if which else 1) for tap in range(window[axis])]
        size = pair[1 - which].shape[axis + 1]
        pair[which] = _beside(pair[which], axis + 1, starts, size)
    # of matrices: over three axes XLA would turn a copy
    left, right = (x.reshape(-1, x.shape[-1]) for x in pair)
    found = lax.dot_general(left, right, (((0,), (0,)), ((), ())))
    taps = [[axis for axis in (0, 1) if moving[axis] == x] for x in (0, 1)]
    order = [*taps[0], 2, *taps[1], 3]
    shape = (*window, *sides)
    return found.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def _copied(channels: int, moving: tuple[int, ...], window: tuple[int, int], which: int) -> int:
    """Channels of one of the two once it is copied; none where it stays as it is."""
    copies = math.prod(size for axis, size in zip(moving, window, strict=True) if axis == which)
    return channels * copies if copies > 1 else 0


def _beside(x: Array, axis: int, starts: Sequence[int], size: int) -> Array:
    """Pieces of that size from these places of an axis on, zero outside, beside each other."""
    if list(starts) == [0] and size == x.shape[axis]:
        return x
    before, after = max(-min(starts), 0), max(max(starts) + size - x.shape[axis], 0)
    padded = jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])
    pieces = [lax.slice_in_dim(padded, s + before, s + before + size, axis=axis) for s in starts]
    return jnp.concatenate(pieces, axis=-1)


def _by_windows(
    images: Array, gradient: Array, strides: tuple[int, int], sides: list[tuple[int, ...]]
) -> Array:
    """Gradient of the kernel at any stride: images by windows as large as the gradient."""
    ends = [k + spread - 1 - size - low for size, k, spread, low in sides]
    # pixels at the far end that no window reached
    rows, columns = (size + min(end, 0) for (size, *_), end in zip(sides, ends, strict=True))
    found = lax.conv_general_dilated(
        images[:, :rows, :columns].transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, max(end, 0)) for (*_, low), end in zip(sides, ends, strict=True)],
        rhs_dilation=strides,
        dimension_numbers=_ORDER,
    )
    return found.transpose(1, 2, 0, 3)
