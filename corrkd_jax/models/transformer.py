"""Blocks of the sequence encoders: temporal convolution, positions, pre-norm layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

MASKED = -1e9
"""Score of a key that must not be attended to; finite, so that no row turns into NaN."""


KEPT = "kept"
"""Name of the results inside a layer that its backward pass reads rather than computes again."""


def sinusoidal_positions(length: int, features: int) -> np.ndarray:
    """`[length, features]` float32: sines, then cosines, of geometrically spaced frequencies.

    Vaswani et al., arXiv:1706.03762, section 3.5; the two halves side by side as in the
    implementations that this family of papers builds on. An odd width ends in a zero column.
    """
    half = features // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / max(half - 1, 1))
    angles = np.arange(length)[:, None] * frequencies[None]
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, features - 2 * half))).astype(np.float32)


def keep_mask(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """Boolean mask that is True with probability `1 - rate`, cheap enough for attention maps.

    A counter hashed with the two words of the key (rounds of xor-shift and multiply) takes a
    fifth of the integer work of threefry and fuses into its consumer; dropout needs no more.
    For anything else use `jax.random`.
    """
    words = jax.random.key_data(key)[-2:]
    x = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) ^ words[0]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = x ^ words[1]
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    # the comparison looks at the high bits, which a last shift would leave as they are
    return x >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


class Dropout(nn.Module):
    """Inverted dropout from the `dropout` stream; the identity when `train` is False.

    Attributes:
        rate: in [0, 1); anything else raises a `ValueError`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"dropout rate must be in [0, 1), got {self.rate}")
        if not train or self.rate == 0.0:
            return x
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


class TemporalConv(nn.Module):
    """One-dimensional convolution over time, stride 1, same padding, with bias.

    `[batch, time, in] -> [batch, time, features]`. Written as one matrix product and shifted
    sums: under `vmap` over weights a convolution becomes a grouped one, which is slow
    everywhere, while a matrix product becomes a batched one.
    """

    features: int
    width: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.width, x.shape[-1], self.features)
        # fan-in of the whole window, as a convolution counts it
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1)), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        taps = kernel.transpose(1, 0, 2).reshape(x.shape[-1], -1).astype(self.dtype)
        taps = (x.astype(self.dtype) @ taps).reshape(*x.shape[:-1], self.width, self.features)
        before = (self.width - 1) // 2
        padded = jnp.pad(taps, ((0, 0), (before, self.width - 1 - before), (0, 0), (0, 0)))
        # output t is the sum over taps w of (input t + w - before) times that tap
        time = x.shape[-2]
        out = sum(padded[:, tap : tap + time, tap] for tap in range(self.width))
        return out + bias.astype(self.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention that leaves padded keys out.

    Attributes:
        heads: number of heads; a `ValueError` is raised unless it divides the width.
        dropout: rate on the attention weights.
        dtype: compute type; the softmax runs in float32.
    """

    heads: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool) -> Array:
        """`x` `[batch, time, features]`, `valid` `[batch, time]` bool -> like `x`."""
        batch, time, features = x.shape
        if features % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {features} features")
        size = features // self.heads
        # MulT's initialisation: one Xavier matrix for queries, keys and values
        projected = nn.Dense(
            3 * features,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name="query_key_value",
        )(x)
        # heads become a batch axis before the products: their natural matrix layout
        projected = projected.reshape(batch, time, 3, self.heads, size).transpose(2, 0, 3, 1, 4)
        query, key, value = projected
        scores = (query @ key.swapaxes(-1, -2)).astype(jnp.float32) / math.sqrt(size)
        scores = jnp.where(valid[:, None, None, :], scores, MASKED)
        # softmax, its denominator divided out after the product: the result has heads x time rows
        # where the attention map has heads x time x time
        weights = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = Dropout(self.dropout, name="dropout")(weights, train)
        mixed = (weights.astype(self.dtype) @ value) / total.astype(self.dtype)
        mixed = checkpoint_name(mixed.swapaxes(1, 2).reshape(batch, time, features), KEPT)
        return nn.Dense(
            features,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name="out",
        )(mixed)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: attention and a ReLU network of four times the width."""

    heads: int
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool) -> Array:
        """`x` `[batch, time, features]`, `valid` `[batch, time]` bool -> like `x`."""
        features = x.shape[-1]
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_attention")(x)
        y = SelfAttention(self.heads, self.attention_dropout, self.dtype, name="attention")(
            y, valid, train
        )
        x = x + Dropout(self.residual_dropout, name="drop_attention")(y, train)
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_feed_forward")(x)
        y = checkpoint_name(nn.Dense(4 * features, dtype=self.dtype, name="expand")(y), KEPT)
        y = nn.relu(y)
        y = Dropout(self.relu_dropout, name="drop_relu")(y, train)
        y = nn.Dense(features, dtype=self.dtype, name="contract")(y)
        return x + Dropout(self.residual_dropout, name="drop_feed_forward")(y, train)


class SequenceEncoder(nn.Module):
    """Temporal convolution, positions, a stack of pre-norm layers, a last LayerNorm.

    The layers are alike, so they are scanned: one compiled body, whatever the depth.

    Padding must be zero in the input: the convolution reads one frame past the end, and zeros
    there are what its own border has. With that, more padding changes no real frame.

    Attributes:
        features: width d.
        layers: depth; 0 leaves convolution, positions and norm.
        heads: attention heads; must divide `features`.
        embed_dropout: rate on the embedded input.
        attention_dropout: rate on attention weights.
        relu_dropout: rate inside the feed-forward part.
        residual_dropout: rate on what each branch adds.
        dtype: compute type; parameters are float32.
    """

    features: int
    layers: int
    heads: int
    embed_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool = False) -> Array:
        """`x` `[batch, time, in]`, `valid` `[batch, time]` bool -> `[batch, time, features]`."""
        x = TemporalConv(self.features, dtype=self.dtype, name="conv")(x)
        x = x * math.sqrt(self.features)
        x = x + sinusoidal_positions(x.shape[-2], self.features).astype(self.dtype)
        x = Dropout(self.embed_dropout, name="dropout")(x, train)
        if self.layers:
            stack = nn.scan(
                lambda layer, x, _: (layer(x, valid, train), None),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                length=self.layers,
            )
            # a layer's inside is cheaper to compute again than to carry through the scan
            policy = jax.checkpoint_policies.save_only_these_names(KEPT)
            layer = nn.remat(EncoderLayer, static_argnums=(3,), policy=policy)(
                self.heads,
                self.attention_dropout,
                self.relu_dropout,
                self.residual_dropout,
                self.dtype,
                name="layers",
            )
            x, _ = stack(layer, x, None)
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)


def masked_mean(x: Array, valid: Array) -> Array:
    """Mean over the valid frames: `[batch, time, features]`, `[batch, time]` -> float32.

    Dropped frames that are no padding stay in the denominator, so that the mask which
    dropped them does not leak through the scale. A row without a valid frame gives zeros.
    """
    valid = valid[..., None]
    total = jnp.sum(jnp.where(valid, x.astype(jnp.float32), 0), axis=-2)
    return total / jnp.maximum(jnp.sum(valid, axis=-2, dtype=jnp.float32), 1.0)
