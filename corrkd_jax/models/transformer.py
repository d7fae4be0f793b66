"""Blocks of the sequence encoders: temporal convolution, positions, pre-norm layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from corrkd_jax.models.attention import KEPT, attend, keep_mask, key_words


def sinusoidal_positions(length: int, features: int) -> np.ndarray:
    """Table of positions: sines, then cosines, of geometrically spaced frequencies.

    The two halves stand side by side, as in the implementations that this family of papers builds
    on. An odd width ends in a zero column.

    Args:
        length: number of positions.
        features: width of the table.

    Returns:
        `[length, features]` float32.

    References:
        Vaswani et al., arXiv:1706.03762, section 3.5.
    """
    half = features // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / max(half - 1, 1))
    angles = np.arange(length)[:, None] * frequencies[None]
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, features - 2 * half))).astype(np.float32)


def flat(x: Array) -> Array:
    """Rows of an array, for a product with weights.

    The gradient of the weights is then a product of two matrices. With more axes a CPU transposes
    the larger of them first, which takes a sixteenth of the time of a training step (MulT's).

    Args:
        x: `[..., features]`.

    Returns:
        `[rows, features]`.
    """
    return x.reshape(-1, x.shape[-1])


class Dropout(nn.Module):
    """Inverted dropout from the `dropout` stream; the identity when `train` is False.

    Attributes:
        rate: probability of dropping an entry, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Input with entries dropped and the others scaled up, so that the expectation stays.

        Args:
            x: any shape and float dtype.
            train: drop entries, which needs the `dropout` key; else `x` is returned.

        Returns:
            Array like `x`.

        Raises:
            ValueError: the rate is outside [0, 1).
        """
        if not 0.0 <= self.rate < 1.0:
            raise ValueError(f"dropout rate must be in [0, 1), got {self.rate}")
        if not train or self.rate == 0.0:
            return x
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


class TemporalConv(nn.Module):
    """One-dimensional convolution over time, stride 1, same padding.

    `[batch, time, in] -> [batch, time, features]`. It is written as one matrix product and shifted
    sums. Under `vmap` over weights a convolution becomes a grouped one, which is slow everywhere,
    while a matrix product becomes a batched one.

    Attributes:
        features: width of the result.
        width: width of the window, in frames.
        dtype: compute type.
        use_bias: add a bias.
    """

    features: int
    width: int = 3
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolved sequence.

        Args:
            x: `[batch, time, in]`.

        Returns:
            `[batch, time, features]` of the attribute `dtype`.
        """
        shape = (self.width, x.shape[-1], self.features)
        # fan-in of the whole window, as a convolution counts it
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1)), shape)
        taps = kernel.transpose(1, 0, 2).reshape(x.shape[-1], -1).astype(self.dtype)
        taps = (flat(x).astype(self.dtype) @ taps).reshape(*x.shape[:-1], self.width, self.features)
        before = (self.width - 1) // 2
        padded = jnp.pad(taps, ((0, 0), (before, self.width - 1 - before), (0, 0), (0, 0)))
        # output t is the sum over taps w of (input t + w - before) times that tap
        time = x.shape[-2]
        out = sum(padded[:, tap : tap + time, tap] for tap in range(self.width))
        if self.use_bias:
            out += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return out


class QueryKeyValue(nn.Module):
    """Projections of attention, all three side by side in one matrix.

    Attributes:
        features: width of each.
        dtype: compute type.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, source: Array | None) -> tuple[Array, Array, Array]:
        """Queries, keys and values.

        Args:
            x: `[rows, in]`, gives the queries.
            source: `[source_rows, in]`, gives keys and values; None: `x` does.

        Returns:
            Queries `[rows, features]`, keys and values `[source_rows, features]`.
        """
        # MulT's initialisation: one Xavier matrix for queries, keys and values
        shape = (x.shape[-1], 3 * self.features)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[1:]).astype(self.dtype)
        x = x.astype(self.dtype)
        if source is None:
            return tuple(jnp.split(x @ kernel + bias, 3, axis=-1))
        cut = self.features
        pair = source.astype(self.dtype) @ kernel[:, cut:] + bias[cut:]
        return x @ kernel[:, :cut] + bias[:cut], *jnp.split(pair, 2, axis=-1)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, or to another one.

    Attributes:
        heads: number of heads.
        dropout: dropout rate on the attention weights; may be traced.
        dtype: compute type; the softmax runs in float32.
    """

    heads: int
    dropout: float | Array = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool, source: Array | None = None) -> Array:
        """Mixture, for each frame, of the frames that it may attend to.

        Args:
            x: `[batch, time, features]`, gives the queries.
            valid: bool, False on keys to leave out: `[batch, keys]`, or `[batch, keys, time]` where
                queries differ. A query without any key attends to all of them with equal weights.
            train: dropout on, which needs the `dropout` key.
            source: `[batch, keys, features]`, gives keys and values; None: `x` does.

        Returns:
            Array like `x`.

        Raises:
            ValueError: the number of heads does not divide the width.
        """
        batch, _, features = x.shape
        if features % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {features} features")
        size = features // self.heads
        project = QueryKeyValue(features, self.dtype, name="query_key_value")
        # heads become a batch axis before the products: their natural matrix layout
        query, key, value = (
            y.reshape(batch, -1, self.heads, size).swapaxes(1, 2)
            for y in project(flat(x), None if source is None else flat(source))
        )
        allowed = valid[:, None] if valid.ndim == 3 else valid[:, None, :, None]
        words = None
        if train and not (isinstance(self.dropout, float) and self.dropout == 0.0):
            words = key_words(self.make_rng("dropout"))
        mixed = attend(query, key, value, allowed, words, self.dropout)
        mixed = nn.Dense(
            features,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name="out",
        )(mixed.swapaxes(1, 2).reshape(-1, features))
        return mixed.reshape(x.shape)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: attention and a ReLU network of four times the width.

    Another sequence to attend to is normalised by the same LayerNorm as the layer's own input.

    Attributes:
        heads: number of attention heads.
        attention_dropout: dropout rate on attention weights; may be traced.
        relu_dropout: dropout rate inside the feed-forward part.
        residual_dropout: dropout rate on what each branch adds.
        dtype: compute type.
    """

    heads: int
    attention_dropout: float | Array = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool, source: Array | None = None) -> Array:
        """Sequence after attention and the feed-forward network.

        Args:
            x: `[batch, time, features]`.
            valid: see `SelfAttention`.
            train: dropout on, which needs the `dropout` key.
            source: see `SelfAttention`.

        Returns:
            Array like `x`.
        """
        features = x.shape[-1]
        norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_attention")
        y = SelfAttention(self.heads, self.attention_dropout, self.dtype, name="attention")(
            norm(x), valid, train, None if source is None else norm(source)
        )
        x = x + Dropout(self.residual_dropout, name="drop_attention")(y, train)
        y = flat(nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_feed_forward")(x))
        y = checkpoint_name(nn.Dense(4 * features, dtype=self.dtype, name="expand")(y), KEPT)
        y = nn.relu(y)
        y = Dropout(self.relu_dropout, name="drop_relu")(y, train)
        y = nn.Dense(features, dtype=self.dtype, name="contract")(y).reshape(x.shape)
        return x + Dropout(self.residual_dropout, name="drop_feed_forward")(y, train)


CheckpointedLayer = nn.remat(
    EncoderLayer,
    static_argnums=(3,),
    policy=jax.checkpoint_policies.save_only_these_names(KEPT),
)
"""Layer whose inside is computed again rather than carried through a scan over layers."""


def scan_layers(
    layer: EncoderLayer,
    depth: int,
    x: Array,
    valid: Array,
    train: bool,
    source: Array | None = None,
) -> Array:
    """Result of a layer repeated with weights of its own each time, compiled once for any depth.

    Call it in a compact method.

    Args:
        layer: a `CheckpointedLayer`.
        depth: number of repetitions.
        x: `[batch, time, features]`.
        valid: see `SelfAttention`.
        train: dropout on, which needs the `dropout` key.
        source: see `SelfAttention`.

    Returns:
        Array like `x`.
    """
    stack = nn.scan(
        lambda layer, x, _: (layer(x, valid, train, source), None),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=depth,
    )
    return stack(layer, x, None)[0]


class SequenceEncoder(nn.Module):
    """Temporal convolution, positions, a stack of pre-norm layers, a last LayerNorm.

    Padding must be zero in the input: the convolution reads one frame past the end, and its own
    border has zeros there. Then more padding changes no real frame.

    Attributes:
        features: width d.
        layers: depth; 0 leaves convolution, positions and norm.
        heads: number of attention heads; must divide `features`.
        embed_dropout: dropout rate on the embedded input.
        attention_dropout: dropout rate on attention weights.
        relu_dropout: dropout rate inside the feed-forward part.
        residual_dropout: dropout rate on what each branch adds.
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
        """Encoded sequence.

        Args:
            x: `[batch, time, in]`; padding must be zero.
            valid: `[batch, time]` bool, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, time, features]` of the attribute `dtype`.
        """
        x = TemporalConv(self.features, dtype=self.dtype, name="conv")(x)
        x = x * math.sqrt(self.features)
        x = x + sinusoidal_positions(x.shape[-2], self.features).astype(self.dtype)
        x = Dropout(self.embed_dropout, name="dropout")(x, train)
        if self.layers:
            layer = CheckpointedLayer(
                self.heads,
                self.attention_dropout,
                self.relu_dropout,
                self.residual_dropout,
                self.dtype,
                name="layers",
            )
            x = scan_layers(layer, self.layers, x, valid, train)
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)


def masked_mean(x: Array, valid: Array) -> Array:
    """Mean over the valid frames.

    Dropped frames that are no padding stay in the denominator, so that the mask that dropped them
    does not leak through the scale.

    Args:
        x: `[batch, time, features]`.
        valid: `[batch, time]` bool, False on padding.

    Returns:
        `[batch, features]` float32; zeros in a row without a valid frame.
    """
    valid = valid[..., None]
    total = jnp.sum(jnp.where(valid, x.astype(jnp.float32), 0), axis=-2)
    return total / jnp.maximum(jnp.sum(valid, axis=-2, dtype=jnp.float32), 1.0)
