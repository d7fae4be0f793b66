"""Core of multi-head attention, with a backward pass of its own.

Heads in this family are narrow (4 or 5 numbers wide) and sequences short, so the cost of attention
is not its products but their layout in memory. Measured on a CPU, the product of a transposed
attention map and a narrow matrix, which automatic differentiation needs twice, takes three to five
times as long as the other products with it. Sums along the last axis take several times as long as
sums along the one before. So the map is laid out `[..., keys, queries]`: the softmax runs along the
last axis but one, and no product transposes the map. The backward pass keeps the softmax's largest
scores and denominators and computes the map again.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

MASKED = -1e9
"""Score of a key that must not be attended to; finite, so that no row turns into NaN."""

KEPT = "kept"
"""Checkpoint name of the results that a checkpointed layer saves rather than computes again."""

_FILLS = np.float32(MASKED), np.float32(0)
"""Entries of a map where a score is masked, and where a weight is dropped."""

_NARROW = 8
"""Up to this width, scores are sums of outer products, which fuse into what reads them."""


def keep_mask(key: Array, rate: float | Array, shape: tuple[int, ...]) -> Array:
    """Boolean mask that is True with probability `1 - rate`, cheap enough for attention maps.

    It hashes a counter with the two words of the key (rounds of xor-shift and multiply). That takes
    a fifth of the integer work of threefry and fuses into its consumer; dropout needs no more. For
    anything else use `jax.random`.

    Args:
        key: random key.
        rate: probability of False, in [0, 1); may be traced.
        shape: shape of the mask.

    Returns:
        Bool array of that shape.
    """
    return _hashed_mask(key_words(key), jnp.asarray(rate, jnp.float32), shape)


def key_words(key: Array) -> Array:
    """Two words of a random key that a mask is hashed from.

    Args:
        key: random key.

    Returns:
        `[2]` uint32.
    """
    return jax.random.key_data(key)[-2:]


def _hashed_mask(words: Array, rate: Array, shape: tuple[int, ...]) -> Array:
    x = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) ^ words[0]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = x ^ words[1]
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    # the comparison looks at the high bits, which a last shift would leave as they are
    return x >= (rate * 2.0**32).astype(jnp.uint32)


def attend(
    query: Array,
    key: Array,
    value: Array,
    allowed: Array,
    words: Array | None = None,
    rate: float | Array = 0.0,
) -> Array:
    """Softmax attention, `softmax(q k' / sqrt(size)) v`, with dropout on its weights.

    The softmax runs in float32; its denominator is divided out after the product.

    Args:
        query: `[batch, heads, queries, size]`.
        key: `[batch, heads, keys, size]`.
        value: like `key`.
        allowed: bool, broadcastable to `[batch, heads, keys, queries]`, False where a query must
            not attend to a key. A query without any key attends to all of them with equal weights.
        words: `[2]` uint32 of `key_words`, for a mask over keys, then queries; None: no dropout.
        rate: rate of dropout, in [0, 1); may be traced. A Python 0.0 leaves dropout out.

    Returns:
        `[batch, heads, queries, size]` in the dtype of `value`.
    """
    if isinstance(rate, float) and rate == 0.0:
        words = None
    return _attend(query, key, value, allowed, words, jnp.asarray(rate, jnp.float32))


@jax.custom_vjp
def _attend(
    query: Array, key: Array, value: Array, allowed: Array, words: Array | None, rate: Array
) -> Array:
    return _forward(query, key, value, allowed, words, rate)[0]


def _forward(
    query: Array, key: Array, value: Array, allowed: Array, words: Array | None, rate: Array
) -> tuple[Array, tuple]:
    across, key_, value_, allowed_, words_, rate_, masked, zero = _laid_out(
        query, key, value, allowed, words, rate
    )
    scores = _scores(across, key_, allowed_, masked)
    peak = jnp.max(scores, axis=-2, keepdims=True)
    weights = jnp.exp(scores - peak)
    total = jnp.sum(weights, axis=-2, keepdims=True)
    kept = _dropped(weights, words_, rate_, zero).astype(value.dtype)
    mixed = _turned(_down(value_, kept) / total.astype(value.dtype))
    # all of the softmax that the backward pass needs; the map itself it computes again
    mixed, peak, total = (checkpoint_name(x, KEPT) for x in (mixed, peak, total))
    return mixed, (query, key, value, allowed, words, rate, mixed, peak, total)


def _backward(residuals: tuple, gradient: Array) -> tuple:
    query, key, value, allowed, words, rate, mixed, peak, total = residuals
    dtype = value.dtype
    per_query = gradient.astype(jnp.float32) / _turned(total)
    # softmax's own derivative: what the denominator does to every weight of a query alike
    shared = _along(per_query, mixed.astype(jnp.float32))[..., None]
    pulled = _across(jnp.concatenate([per_query, shared], axis=-1))
    across, key_, value_, allowed_, words_, rate_, masked, zero = _laid_out(
        query, key, value, allowed, words, rate
    )
    weights = jnp.exp(_scores(across, key_, allowed_, masked) - peak)
    kept = _dropped(weights, words_, rate_, zero)
    scores = kept * _outer(value_.astype(jnp.float32), pulled[..., :-1, :])
    scores = scores - weights * pulled[..., -1:, :]
    scores = jnp.where(allowed_, scores / math.sqrt(query.shape[-1]), zero)
    kept, scores = lax.optimization_barrier((kept.astype(dtype), scores.astype(dtype)))
    to_query = _turned(_down(key, scores))
    to_key = scores @ query
    to_value = kept @ per_query.astype(dtype)
    none = np.zeros(allowed.shape, jax.dtypes.float0)
    return (
        to_query.astype(query.dtype),
        to_key.astype(key.dtype),
        to_value.astype(dtype),
        none,
        None if words is None else np.zeros(words.shape, jax.dtypes.float0),
        jnp.zeros_like(rate),
    )


_attend.defvjp(_forward, _backward)


def _turned(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _laid_out(query: Array, *others: Array | None) -> tuple:
    """Inputs of a map, with the query transposed, and `_FILLS`.

    Projections are not to be computed again for every entry of the map, and what is the same in
    every layer of a scan is not to be spread over a map of its own before it.
    """
    return lax.optimization_barrier((_across(query), *others, *_FILLS))


def _across(x: Array) -> Array:
    """`[..., queries, size]` -> `[..., size, queries]`, laid out so in memory.

    As a product on a CPU, because no fusion looks behind one; a transposition, or whatever else
    comes before the map, would be done again for every entry of it, through a barrier too.
    """
    if jax.default_backend() != "cpu":
        return _turned(x)
    eye = jnp.eye(x.shape[-1], dtype=x.dtype)
    return jnp.einsum("ij,...nj->...in", eye, x, precision=lax.Precision.HIGHEST)


def _scores(across: Array, key: Array, allowed: Array, masked: Array) -> Array:
    """Scaled products `[..., keys, queries]` in float32, of queries `[..., size, queries]`."""
    scores = _outer(key, across).astype(jnp.float32) / math.sqrt(key.shape[-1])
    return jnp.where(allowed, scores, masked)


def _outer(a: Array, b: Array) -> Array:
    """`a @ b`, `[..., n, size]` and `[..., size, m]` -> `[..., n, m]`."""
    size = a.shape[-1]
    if size > _NARROW:
        return a @ b
    return sum(a[..., :, i, None] * b[..., i, None, :] for i in range(size))


def _along(a: Array, b: Array) -> Array:
    """Inner products of rows, `[..., n, size]` twice -> `[..., n]`."""
    size = a.shape[-1]
    if size > _NARROW:
        return jnp.sum(a * b, axis=-1)
    return sum(a[..., i] * b[..., i] for i in range(size))


def _down(a: Array, weights: Array) -> Array:
    """`a' @ weights`, `[..., keys, size]` and `[..., keys, queries]` -> `[..., size, queries]`.

    The barriers keep the compiler from contracting over the map's longer stride, which is what it
    makes of a product between two transpositions.
    """
    return lax.optimization_barrier(lax.optimization_barrier(_turned(a)) @ weights)


def _dropped(weights: Array, words: Array | None, rate: Array, zero: Array) -> Array:
    if words is None:
        return weights
    keep = _hashed_mask(words, rate, weights.shape)
    return jnp.where(keep, weights / (1.0 - rate), zero)
