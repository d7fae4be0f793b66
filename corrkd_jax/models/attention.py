"""The core of multi-head attention with a backward pass of its own.

Heads in this family are narrow (4 or 5 numbers wide) and sequences short, so the cost of attention
is not its products but how they are laid out. Measured on a CPU, the product of a transposed
attention map and a narrow matrix, which automatic differentiation asks for twice, takes five times
as long as the other products with it, and sums along the last axis take several times as long as
sums along the one before. So the map is laid out `[..., keys, queries]`: the softmax runs along the
last axis but one, no product transposes the map, and the backward pass computes it again instead
of keeping it.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

MASKED = -1e9
"""Score of a key that must not be attended to; finite, so that no row turns into NaN."""

_NARROW = 8
"""Up to this width, scores are sums of outer products, which fuse into what reads them."""


def keep_mask(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """Boolean mask that is True with probability `1 - rate`, cheap enough for attention maps.

    A counter hashed with the two words of the key (rounds of xor-shift and multiply) takes a
    fifth of the integer work of threefry and fuses into its consumer; dropout needs no more.
    For anything else use `jax.random`.
    """
    return _hashed_mask(key_words(key), rate, shape)


def key_words(key: Array) -> Array:
    """The two words of a random key that a mask is hashed from, `[2]` uint32."""
    return jax.random.key_data(key)[-2:]


def _hashed_mask(words: Array, rate: float, shape: tuple[int, ...]) -> Array:
    x = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) ^ words[0]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = x ^ words[1]
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    # the comparison looks at the high bits, which a last shift would leave as they are
    return x >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def attend(
    query: Array,
    key: Array,
    value: Array,
    allowed: Array,
    words: Array | None = None,
    rate: float = 0.0,
) -> Array:
    """Softmax attention, `softmax(q k' / sqrt(size)) v`, with dropout on its weights.

    The softmax runs in float32; its denominator is divided out after the product.

    Args:
        query: `[batch, heads, queries, size]`.
        key: `[batch, heads, keys, size]`.
        value: like `key`.
        allowed: bool, broadcastable to `[batch, heads, queries, keys]`, False where a query must
            not look at a key. A query that may look nowhere looks everywhere alike.
        words: `[2]` uint32 of :func:`key_words`, for a mask over keys, then queries; None: no
            dropout.
        rate: of dropout.

    Returns:
        `[batch, heads, queries, size]` in the dtype of `value`.
    """
    return _attend(query, key, value, allowed, None if rate == 0.0 else words, rate)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
    query: Array, key: Array, value: Array, allowed: Array, words: Array | None, rate: float
) -> Array:
    # projections are not to be computed again for every entry of the map
    across, key, value = lax.optimization_barrier((_turned(query), key, _turned(value)))
    weights, total = _weights(across, key, allowed)
    weights = _dropped(weights, words, rate).astype(value.dtype)
    return _turned((value @ weights) / total.astype(value.dtype))


def _forward(
    query: Array, key: Array, value: Array, allowed: Array, words: Array | None, rate: float
) -> tuple[Array, tuple]:
    mixed = _attend(query, key, value, allowed, words, rate)
    # nothing that only this pass could know: a checkpointed layer then need not run it again
    return mixed, (query, key, value, allowed, words)


def _backward(rate: float, residuals: tuple, gradient: Array) -> tuple:
    query, key, value, allowed, words = residuals
    dtype = value.dtype
    query, key, value, across, gradient = lax.optimization_barrier(
        (query, key, value, _turned(query), _turned(gradient))
    )
    weights, total = _weights(across, key, allowed)
    gradient = gradient.astype(jnp.float32) / total
    weights, gradient = lax.optimization_barrier((weights, gradient))
    kept = _dropped(weights, words, rate)
    # softmax's own derivative: what the denominator does to every weight of a query alike
    mixed = _turned(value) @ kept.astype(dtype)
    shared = jnp.sum(gradient * mixed, axis=-2, keepdims=True) / total
    kept, shared = lax.optimization_barrier((kept, shared))
    scores = kept * _outer(value.astype(jnp.float32), gradient) - weights * shared
    scores = jnp.where(_turned(allowed), scores, 0.0) / math.sqrt(query.shape[-1])
    scores = lax.optimization_barrier(scores.astype(dtype))
    to_query = _turned(_turned(key) @ scores)
    to_key = scores @ query
    to_value = kept.astype(dtype) @ _turned(gradient.astype(dtype))
    none = np.zeros(allowed.shape, jax.dtypes.float0)
    return (
        to_query.astype(query.dtype),
        to_key.astype(key.dtype),
        to_value.astype(dtype),
        none,
        None if words is None else np.zeros(words.shape, jax.dtypes.float0),
    )


_attend.defvjp(_forward, _backward)


def _turned(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _weights(query: Array, key: Array, allowed: Array) -> tuple[Array, Array]:
    """Softmax weights `[..., keys, queries]` before the division, and their sums, in float32.

    The query comes as `[..., size, queries]`, the mask as `[..., queries, keys]`.
    """
    scores = _outer(key, query).astype(jnp.float32) / math.sqrt(key.shape[-1])
    scores = jnp.where(_turned(allowed), scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-2, keepdims=True))
    return weights, jnp.sum(weights, axis=-2, keepdims=True)


def _outer(a: Array, b: Array) -> Array:
    """`a @ b`, `[..., n, size]` and `[..., size, m]` -> `[..., n, m]`."""
    size = a.shape[-1]
    if size > _NARROW:
        return a @ b
    return sum(a[..., :, i, None] * b[..., i, None, :] for i in range(size))


def _dropped(weights: Array, words: Array | None, rate: float) -> Array:
    if words is None:
        return weights
    keep = _hashed_mask(words, rate, weights.shape)
    return jnp.where(keep, weights / (1.0 - rate), 0.0)
