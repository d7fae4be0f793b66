"""A convolution whose gradient is as fast inside a compiled loop as outside, on CPUs too.

XLA hands a convolution to Eigen only where its axes have the order of the forward pass, and brings
others into that order only outside of loops (jax-ml/jax#12868). Gradients of a training step that
is scanned would run in naive loops, some fifty times slower. Here the backward pass is written in
that order to begin with.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

_ORDER = ("NHWC", "HWIO", "NHWC")
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
