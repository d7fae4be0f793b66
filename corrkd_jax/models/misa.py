"""MISA (arXiv:2005.03545): codes that modalities share and codes private to each."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.recurrent import LSTM
from corrkd_jax.models.torch_weights import (
    Layer,
    ignored,
    layer_norm,
    linear,
    lstm,
    query_key_value,
)
from corrkd_jax.models.transformer import Dropout, SelfAttention, masked_mean

ORDER = ("text", "vision", "audio")
"""Order of the modalities on the second axis of the parts; the published one."""


class MISA(BaseModel):
    """Vectors of the modalities, a private and a shared code of each, attention over the six codes.

    Text is averaged over its valid frames. Audio and vision are the last states of two stacked
    bidirectional LSTMs as wide as their features. The rates and places of dropout and the sizes are
    MMSA's for MOSI. MMSA reads as many frames of audio and vision as there are of text, aligned or
    not. Here each modality has its own `valid`; masks as long as the text's give MMSA's result.

    `Fused.features` is the hidden layer of the head, `[batch, 3 * width]`. `Fused.parts` holds the
    inputs of `corrkd_jax.losses.subspaces`: `projected`, `private`, `shared` and `reconstructed`,
    `[batch, 3, width]` in the order of `ORDER`, and the projections as `text`, `audio`, `vision`.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        width: width of projections and codes.
        heads: number of heads of the attention over the codes.
        feed_forward: width inside its layer.
        dropout: dropout rate before the head.
        attention_dropout: dropout rate in the attention over the codes, on its weights and
            elsewhere.
    """

    width: int = 128
    heads: int = 2
    feed_forward: int = 2048
    dropout: float = 0.2
    attention_dropout: float = 0.1

    def setup(self) -> None:
        """Build the sequence networks, the codes, the attention over them and the head."""
        self.sequence = {name: StackedLSTM() for name in ("audio", "vision")}
        self.project = {name: Projection(self.width) for name in ORDER}
        self.private = {name: nn.Dense(self.width) for name in ORDER}
        self.shared = nn.Dense(self.width)
        self.reconstruct = {name: nn.Dense(self.width) for name in ORDER}
        self.attend = PostNormLayer(self.heads, self.feed_forward, self.attention_dropout)
        self.hidden = nn.Dense(3 * self.width)
        self.drop_hidden = Dropout(self.dropout)
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Hidden layer of the head, `[batch, 3 * width]`, and the parts that the class lists.

        Args:
            embedded: `text`, `audio` and `vision`, `[batch, time, features]`.
            valid: `[batch, time]` bool of each, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused`.
        """
        pooled = {name: read(embedded[name], valid[name]) for name, read in self.sequence.items()}
        pooled["text"] = masked_mean(embedded["text"], valid["text"])
        projected = [self.project[name](pooled[name]) for name in ORDER]
        private = [self.private[name](x) for name, x in zip(ORDER, projected, strict=True)]
        projected, private = jnp.stack(projected, axis=1), nn.sigmoid(jnp.stack(private, axis=1))
        shared = nn.sigmoid(self.shared(projected))
        whole = private + shared
        reconstructed = [self.reconstruct[name](whole[:, i]) for i, name in enumerate(ORDER)]
        codes = self.attend(jnp.concatenate([private, shared], axis=1), train)
        features = self.hidden(codes.reshape(codes.shape[0], -1))
        features = nn.relu(self.drop_hidden(features, train))
        parts = {
            "projected": projected,
            "private": private,
            "shared": shared,
            "reconstructed": jnp.stack(reconstructed, axis=1),
        }
        return Fused(features, parts | {name: projected[:, i] for i, name in enumerate(ORDER)})

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the hidden layer.

        Args:
            features: `[batch, 3 * width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.out(features)


class StackedLSTM(nn.Module):
    """Two bidirectional LSTMs, each direction as wide as the input, with a LayerNorm in between."""

    @nn.compact
    def __call__(self, x: Array, valid: Array) -> Array:
        """Last states of both layers in both directions.

        Args:
            x: `[batch, time, in]`; padding may hold anything.
            valid: `[batch, time]` bool, False on padding.

        Returns:
            `[batch, 4 * in]`: forward states of the first and of the second layer, then backward
            states of both.
        """
        size = x.shape[-1]
        ahead, back = [], []
        for layer in (1, 2):
            if layer == 2:
                x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
            last, forward = LSTM(size, name=f"forward_{layer}")(x, valid)
            ahead.append(last)
            last, backward = LSTM(size, reverse=True, name=f"backward_{layer}")(x, valid)
            back.append(last)
            x = jnp.concatenate([forward, backward], axis=-1)
        return jnp.concatenate(ahead + back, axis=-1)


class Projection(nn.Module):
    """Dense, ReLU, LayerNorm: `[..., in] -> [..., width]`.

    Attributes:
        width: width of the result.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Projected vector.

        Args:
            x: `[..., in]`.

        Returns:
            `[..., width]`.
        """
        return nn.LayerNorm(epsilon=1e-5, name="norm")(nn.relu(nn.Dense(self.width, name="in")(x)))


class PostNormLayer(nn.Module):
    """Transformer layer that normalises after each addition, over `[batch, codes, width]`.

    Attributes:
        heads: number of attention heads.
        feed_forward: width inside the feed-forward network.
        dropout: dropout rate on attention weights and on both branches.
    """

    heads: int
    feed_forward: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Codes after attention to one another and a feed-forward network.

        Args:
            x: `[batch, codes, width]`.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, codes, width]`.
        """
        everywhere = jnp.ones(x.shape[:2], bool)
        y = SelfAttention(self.heads, self.dropout, name="attention")(x, everywhere, train)
        x = x + Dropout(self.dropout, name="drop_attention")(y, train)
        x = nn.LayerNorm(epsilon=1e-5, name="norm_attention")(x)
        y = nn.relu(nn.Dense(self.feed_forward, name="expand")(x))
        y = Dropout(self.dropout, name="drop_relu")(y, train)
        y = nn.Dense(x.shape[-1], name="contract")(y)
        x = x + Dropout(self.dropout, name="drop_feed_forward")(y, train)
        return nn.LayerNorm(epsilon=1e-5, name="norm_feed_forward")(x)


def mmsa_table() -> list[Layer]:
    """Table of MMSA's MISA for `corrkd_jax.models.torch_weights`, without BERT.

    Remove names under `bertmodel.` from the state before the conversion. Two layers of MMSA's are
    unused and dropped: `sp_discriminator`, `tlayer_norm`.

    Returns:
        Rows for all other weights of the torch model.
    """
    unused = ignored("weight", "bias")
    block = "transformer_encoder.layers.0"
    table = [
        Layer("sp_discriminator.sp_discriminator_layer_1", "", unused),
        Layer("tlayer_norm", "", unused),
        Layer("shared.shared_1", "shared", linear),
        Layer(f"{block}.self_attn", "attend/attention/query_key_value", query_key_value),
        Layer(f"{block}.self_attn.out_proj", "attend/attention/out", linear),
        Layer(f"{block}.norm1", "attend/norm_attention", layer_norm),
        Layer(f"{block}.linear1", "attend/expand", linear),
        Layer(f"{block}.linear2", "attend/contract", linear),
        Layer(f"{block}.norm2", "attend/norm_feed_forward", layer_norm),
        Layer("fusion.fusion_layer_1", "hidden", linear),
        Layer("fusion.fusion_layer_3", "out", linear),
    ]
    for name in ORDER:
        short, project = name[0], f"project_{name[0]}"
        # MMSA numbers the audio's private layer by itself
        number = 3 if name == "audio" else 1
        table += [
            Layer(f"{project}.{project}", f"project_{name}/in", linear),
            Layer(f"{project}.{project}_layer_norm", f"project_{name}/norm", layer_norm),
            Layer(f"private_{short}.private_{short}_{number}", f"private_{name}", linear),
            Layer(f"recon_{short}.recon_{short}_1", f"reconstruct_{name}", linear),
        ]
    for name in ("audio", "vision"):
        table.append(Layer(f"{name[0]}layer_norm", f"sequence_{name}/norm", layer_norm))
        for layer in (1, 2):
            source = f"{name[0]}rnn{layer}"
            table += [
                Layer(source, f"sequence_{name}/forward_{layer}/cell", lstm("l0")),
                Layer(source, f"sequence_{name}/backward_{layer}/cell", lstm("l0_reverse")),
            ]
    return table
