"""MulT (arXiv:1906.00295): attention of every modality to every other one."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.torch_weights import (
    Kind,
    Layer,
    convolution,
    ignored,
    layer_norm,
    linear,
    query_key_value,
)
from corrkd_jax.models.transformer import (
    CheckpointedLayer,
    Dropout,
    EncoderLayer,
    TemporalConv,
    scan_layers,
    sinusoidal_positions,
)

MODALITIES = ("text", "audio", "vision")
"""Modalities in the order in which their vectors are concatenated."""

STREAMS = tuple((x, source) for x in MODALITIES for source in MODALITIES if source != x)
"""Pairs of the modality that gives queries and the one that gives keys, as weights are stacked."""


class MulT(BaseModel):
    """Cross-modal attention of each modality to both others, self-attention, a residual block.

    A convolution brings each modality to `width`; one that has it already is left as it is, as
    published. Only windows that lie within the valid frames count, as without padding; a row
    shorter than its window keeps one, around its middle.

    A frame attends to frames no later than itself by more than the lengths of the two sequences
    differ. Lengths and positions count valid frames, keys on padding are left out, and a modality's
    vector is its last valid frame, so that padding changes nothing. MMSA takes padding for frames
    in all of this; masks that are True everywhere give MMSA's result. It also leaves the positions
    out (`positions=False`). Sizes and rates are MMSA's for MOSI.

    The six cross-modal transformers, and the three after them, keep their weights stacked. Those
    that agree in lengths run as one, mapped over weights and rates of attention dropout.

    `Fused.features` is the residual block's result, `[batch, 6 * width]`. `Fused.parts` holds a
    vector `[batch, 2 * width]` of each modality, the block's input.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        width: width d of the modalities; the two streams of a modality together have twice that.
        heads: number of attention heads; must divide `width`.
        layers: depth of the cross-modal transformers; the others have three at least.
        text_window: window of the text's convolution over time, in frames.
        audio_window: window of the audio's convolution.
        vision_window: window of the vision's convolution.
        text_attention_dropout: dropout rate on the weights of attention to text.
        audio_attention_dropout: dropout rate on the weights of attention to audio.
        vision_attention_dropout: dropout rate on the weights of attention to vision.
        text_dropout: dropout rate on the text's features.
        embed_dropout: dropout rate on the input of a transformer; keys and values share theirs.
        relu_dropout: dropout rate inside the feed-forward parts.
        residual_dropout: dropout rate on what each branch adds.
        out_dropout: dropout rate in the residual block.
        positions: add sinusoidal positions, the first valid frame's being 1.
        dtype: compute type of the transformers; features and logits are float32.
    """

    width: int = 50
    heads: int = 10
    layers: int = 4
    text_window: int = 5
    audio_window: int = 5
    vision_window: int = 5
    text_attention_dropout: float = 0.3
    audio_attention_dropout: float = 0.2
    vision_attention_dropout: float = 0.0
    text_dropout: float = 0.5
    embed_dropout: float = 0.2
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    out_dropout: float = 0.5
    positions: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Build the projections, both groups of transformers, the residual block and the head."""
        windows = (self.text_window, self.audio_window, self.vision_window)
        rates = dict(
            zip(
                MODALITIES,
                (
                    self.text_attention_dropout,
                    self.audio_attention_dropout,
                    self.vision_attention_dropout,
                ),
                strict=True,
            )
        )

        def streams(layers: int, attended: Sequence[str], summary: bool = False) -> Streams:
            return Streams(
                tuple(rates[name] for name in attended),
                layers,
                summary,
                self.heads,
                self.embed_dropout,
                self.relu_dropout,
                self.residual_dropout,
                self.positions,
                self.dtype,
            )

        self.project = {
            name: TemporalConv(self.width, window, self.dtype, use_bias=False)
            for name, window in zip(MODALITIES, windows, strict=True)
        }
        self.drop_text = Dropout(self.text_dropout)
        self.cross = streams(self.layers, [source for _, source in STREAMS])
        self.memory = streams(max(self.layers, 3), MODALITIES, summary=True)
        self.hidden_1 = nn.Dense(6 * self.width)
        self.hidden_2 = nn.Dense(6 * self.width)
        self.drop_out = Dropout(self.out_dropout)
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Result of the residual block, `[batch, 6 * width]`, and a vector of each modality.

        Args:
            embedded: `text`, `audio` and `vision`, `[batch, time, features]`; lengths may differ.
            valid: `[batch, time]` bool of each, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused`.
        """
        frames = {name: (embedded[name], valid[name]) for name in MODALITIES}
        for name, (x, real) in frames.items():
            x = jnp.where(real[..., None], x, 0)
            if name == "text":
                x = self.drop_text(x, train)
            if x.shape[-1] != self.width:
                x, real = self.project[name](x), whole_windows(real, self.project[name].width)
            frames[name] = x, real
        crossed = self.cross([(*frames[x], *frames[source]) for x, source in STREAMS], train)
        pairs = zip(crossed[::2], crossed[1::2], strict=True)
        joined = [
            (jnp.concatenate(pair, axis=-1), frames[name][1])
            for name, pair in zip(MODALITIES, pairs, strict=True)
        ]
        parts = dict(zip(MODALITIES, self.memory(joined, train), strict=True))
        joint = jnp.concatenate([parts[name] for name in MODALITIES], axis=-1)
        hidden = self.drop_out(nn.relu(self.hidden_1(joint)), train)
        return Fused(joint + self.hidden_2(hidden), parts)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the fused feature.

        Args:
            features: `[batch, 6 * width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.out(features)


class Stream(nn.Module):
    """Transformer of one stream: positions, pre-norm layers, a last LayerNorm.

    Attributes:
        layers: see `MulT`.
        summary: return the last valid frame alone. The last layer then has no other query, which
            saves most of its work.
        heads: see `MulT`.
        attention_dropout: dropout rate on attention weights; may be traced.
        embed_dropout: see `MulT`.
        relu_dropout: see `MulT`.
        residual_dropout: see `MulT`.
        positions: see `MulT`.
        dtype: see `MulT`.
    """

    layers: int
    summary: bool
    heads: int
    attention_dropout: float | Array
    embed_dropout: float
    relu_dropout: float
    residual_dropout: float
    positions: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        train: bool,
        x: Array,
        valid: Array,
        source: Array | None = None,
        source_valid: Array | None = None,
    ) -> Array:
        """Sequence after attention to itself or to a source.

        Args:
            train: dropout on, which needs the `dropout` key.
            x: `[batch, time, width]`, gives the queries.
            valid: `[batch, time]` bool, False on padding.
            source: `[batch, keys, width]`, gives keys and values; None: `x` does. A summary is of
                `x` itself.
            source_valid: `[batch, keys]` bool, False on padding.

        Returns:
            Array like `x`; for a summary `[batch, width]` float32, zeros without a valid frame.
        """
        allowed = causal_mask(valid, valid if source_valid is None else source_valid)
        x = self._embed(x, valid, train, "drop_embed")
        if source is not None:
            source = self._embed(source, source_valid, train, "drop_source")
        rates = self.attention_dropout, self.relu_dropout, self.residual_dropout
        layer = CheckpointedLayer(self.heads, *rates, self.dtype, name="layers")
        x = scan_layers(layer, self.layers - self.summary, x, allowed, train, source)
        norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")
        if not self.summary:
            return norm(x)
        layer = EncoderLayer(self.heads, *rates, self.dtype, name="last")
        query = last_valid(x, valid)[:, None].astype(self.dtype)
        y = norm(layer(query, valid, train, x)[:, 0]).astype(jnp.float32)
        return jnp.where(jnp.any(valid, axis=-1)[:, None], y, 0)

    def _embed(self, x: Array, valid: Array, train: bool, name: str) -> Array:
        time, width = x.shape[-2:]
        x = x.astype(self.dtype) * math.sqrt(width)
        if self.positions:
            table = jnp.asarray(sinusoidal_positions(time + 1, width), self.dtype)
            x = x + table[jnp.cumsum(valid, axis=-1)]
        return Dropout(self.embed_dropout, name=name)(x, train)


class Streams(nn.Module):
    """Transformers side by side, their weights stacked.

    Attributes:
        attention_dropout: dropout rate on attention weights, one for each stream.
        layers: see `MulT`.
        summary: see `Stream`.
        heads: see `MulT`.
        embed_dropout: see `MulT`.
        relu_dropout: see `MulT`.
        residual_dropout: see `MulT`.
        positions: see `MulT`.
        dtype: see `MulT`.
    """

    attention_dropout: tuple[float, ...]
    layers: int
    summary: bool
    heads: int
    embed_dropout: float
    relu_dropout: float
    residual_dropout: float
    positions: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: Sequence[tuple[Array, ...]], train: bool) -> list[Array]:
        """Result of each stream. Streams of equal lengths share one compiled body.

        Args:
            inputs: `(x, valid)` or `(x, valid, source, source_valid)` of each stream, see `Stream`.
            train: dropout on, which needs the `dropout` key.

        Returns:
            The result of each stream, in order.
        """
        count = len(self.attention_dropout)
        stacked = self.param("streams", _stacked(self._stream(0.0), count), inputs[0][0].shape[-1])
        keys = rates = None
        if train and max(*self.attention_dropout, *self._rates()) > 0.0:
            keys = jax.random.split(self.make_rng("dropout"), count)
        if train and max(self.attention_dropout) > 0.0:
            rates = jnp.asarray(self.attention_dropout, jnp.float32)
        alike: dict[tuple, list[int]] = {}
        for i, arrays in enumerate(inputs):
            alike.setdefault(tuple(x.shape for x in arrays), []).append(i)
        outputs = {}
        for members in alike.values():
            run = jax.vmap(partial(self._run, train))
            arrays = jax.tree.map(lambda *x: jnp.stack(x), *(inputs[i] for i in members))
            done = run(*_taken((stacked, keys, rates), members), arrays)
            outputs |= dict(zip(members, done, strict=True))
        return [outputs[i] for i in range(count)]

    def _run(
        self,
        train: bool,
        params: dict,
        key: Array | None,
        rate: Array | None,
        arrays: tuple[Array, ...],
    ) -> Array:
        stream = self._stream(0.0 if rate is None else rate)
        rngs = {} if key is None else {"dropout": key}
        return stream.apply({"params": params}, train, *arrays, rngs=rngs)

    def _rates(self) -> tuple[float, ...]:
        return self.embed_dropout, self.relu_dropout, self.residual_dropout

    def _stream(self, rate: float | Array) -> Stream:
        return Stream(
            self.layers,
            self.summary,
            self.heads,
            rate,
            *self._rates(),
            self.positions,
            self.dtype,
            parent=None,
        )


def whole_windows(valid: Array, width: int) -> Array:
    """Frames of a convolution with same padding whose window holds valid frames alone.

    Args:
        valid: `[batch, time]` bool.
        width: width of the window, in frames.

    Returns:
        `[batch, time]` bool: frames whose window is full. In a row with fewer valid frames than
        that it is the middle one of them, whose window has them all.
    """
    before = (width - 1) // 2
    time = valid.shape[-1]
    padded = jnp.pad(valid, ((0, 0), (before, width - 1 - before)))
    full = jnp.all(jnp.stack([padded[:, i : i + time] for i in range(width)]), axis=0)
    order = jnp.cumsum(valid, axis=-1)
    count = order[:, -1:]
    return jnp.where(count < width, valid & (order == (count + 1) // 2), full)


def causal_mask(valid: Array, source_valid: Array) -> Array:
    """Frames of a source that a frame may attend to.

    Args:
        valid: `[batch, time]` bool.
        source_valid: `[batch, keys]` bool.

    Returns:
        `[batch, keys, time]` bool: valid frames that are later, counted in valid frames of each
        sequence, by no more than the numbers of these differ.
    """
    order, source_order = jnp.cumsum(valid, axis=-1), jnp.cumsum(source_valid, axis=-1)
    slack = jnp.abs(order[:, -1:] - source_order[:, -1:])
    near = source_order[:, :, None] - order[:, None, :] <= slack[..., None]
    return near & source_valid[:, :, None]


def last_valid(x: Array, valid: Array) -> Array:
    """Last valid frame of a sequence.

    Args:
        x: `[batch, time, width]`.
        valid: `[batch, time]` bool.

    Returns:
        `[batch, width]` float32; zeros in a row without a valid frame.
    """
    order = jnp.cumsum(valid, axis=-1)
    last = valid & (order == order[:, -1:])
    return jnp.sum(jnp.where(last[..., None], x.astype(jnp.float32), 0), axis=-2)


def _stacked(stream: Stream, count: int) -> Callable[[Array, int], dict]:
    """Initialiser of the weights of `count` streams like the given one, stacked."""

    def init(key: Array, width: int) -> dict:
        x, valid = jnp.zeros((1, 1, width)), jnp.ones((1, 1), bool)
        init = jax.vmap(lambda key: stream.init(key, False, x, valid)["params"])
        return init(jax.random.split(key, count))

    return init


def _taken(tree: Any, members: list[int]) -> Any:
    """Some rows of stacked arrays, as slices: a gather's gradient would be a scatter."""

    def take(x: Array) -> Array:
        if len(members) == len(x):
            return x
        return jnp.stack([lax.index_in_dim(x, i, keepdims=False) for i in members])

    return jax.tree.map(take, tree)


def mmsa_table(layers: int = 4) -> list[Layer]:
    """Table of MMSA's MulT for `corrkd_jax.models.torch_weights`, without BERT.

    Args:
        layers: as in `MulT`.

    Returns:
        Rows for all other weights of the torch model.
    """
    table = [
        Layer("proj1", "hidden_1", linear),
        Layer("proj2", "hidden_2", linear),
        Layer("out_layer", "out", linear),
    ]
    short = {"text": "l", "audio": "a", "vision": "v"}
    for name in MODALITIES:
        table.append(Layer(f"proj_{short[name]}", f"project_{name}", _projection))
    transformers = [
        (f"trans_{short[x]}_with_{short[source]}", "cross/streams", i, layers)
        for i, (x, source) in enumerate(STREAMS)
    ]
    transformers += [
        (f"trans_{short[name]}_mem", "memory/streams", i, max(layers, 3))
        for i, name in enumerate(MODALITIES)
    ]
    for source, target, i, depth in transformers:
        # a format's number, and a placeholder that a model with positions has
        table.append(Layer(source, "", ignored("version", "embed_positions._float_tensor")))
        table.append(Layer(f"{source}.layer_norm", f"{target}/norm", layer_norm, (i,)))
        for number in range(depth):
            theirs, ours, at = f"{source}.layers.{number}", f"{target}/layers", (i, number)
            if target.startswith("memory") and number == depth - 1:
                ours, at = f"{target}/last", (i,)
            table += [
                Layer(
                    f"{theirs}.self_attn", f"{ours}/attention/query_key_value", query_key_value, at
                ),
                Layer(f"{theirs}.self_attn.out_proj", f"{ours}/attention/out", linear, at),
                Layer(f"{theirs}.layer_norms.0", f"{ours}/norm_attention", layer_norm, at),
                Layer(f"{theirs}.layer_norms.1", f"{ours}/norm_feed_forward", layer_norm, at),
                Layer(f"{theirs}.fc1", f"{ours}/expand", linear, at),
                Layer(f"{theirs}.fc2", f"{ours}/contract", linear, at),
            ]
    return table


def _projected(arrays: dict) -> dict:
    """Nothing of a convolution between equal widths: MMSA has it and passes it by."""
    kernels = convolution.to_flax(arrays)
    return {path: x for path, x in kernels.items() if x.shape[-1] != x.shape[-2]}


_projection = Kind(_projected, convolution.to_torch)
