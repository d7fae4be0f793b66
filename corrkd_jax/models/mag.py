"""MAG-BERT (ACL 2020): words shifted by the audio and vision that go with them."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.self_mm import TEXT_POOLS, first_frame
from corrkd_jax.models.torch_weights import Layer, layer_norm, linear
from corrkd_jax.models.transformer import Dropout, masked_mean

_EPS = 1e-6


class MAG(BaseModel):
    """Multimodal adaptation gate on words, an optional encoder, a tanh layer on their pool.

    In the paper the gate lies between BERT's embeddings and its layers. Both are plugs here:
    `text_encoder` computes the embeddings and `encoder` reads the shifted words. Without the first,
    text is features already, such as those of a frozen BERT. Without the second, shifted words are
    pooled as they are, so that the gate acts on the last layer. Sizes and rates of the gate are
    MMSA's for MOSI.

    Frames of audio and vision must be those of the text, or a single one that holds for all words.

    `Fused.features` is as wide as the text. `Fused.parts` is empty, since no modality has a vector
    of its own.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        text_width: width of a linear map of the text without bias before the gate, which for
            one-hot words is a word embedding; 0: the text as it is.
        text_pool: `"first"` takes the first valid frame, the published choice and right for a BERT
            that is trained along; `"mean"` averages valid frames.
        shift: longest displacement as a share of the word's own length (beta).
        gate_dropout: dropout rate on the shifted words.
        head_dropout: dropout rate before the head.
        text_encoder: applied to the text, `(text, train) -> [batch, time, features]`.
        encoder: applied to the shifted words, `(words, valid, train) -> [batch, time, features]`.
    """

    text_width: int = 0
    text_pool: str = "mean"
    shift: float = 1.0
    gate_dropout: float = 0.3
    head_dropout: float = 0.1
    encoder: nn.Module | None = None

    def setup(self) -> None:
        """Build the gate, the pooler and the head.

        Raises:
            ValueError: `text_pool` is unknown.
        """
        if self.text_pool not in TEXT_POOLS:
            raise ValueError(f"text_pool must be one of {TEXT_POOLS}, got {self.text_pool!r}")
        if self.text_width:
            self.text = nn.Dense(self.text_width, use_bias=False)
        self.gate = Gate(self.shift, self.gate_dropout)
        self.pooler = Pooler()
        self.drop_head = Dropout(self.head_dropout)
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Pooled feature of the shifted words, `[batch, width]`, and no parts.

        Args:
            embedded: `text` `[batch, time, features]`; `audio` and `vision`
                `[batch, time or 1, features]`.
            valid: `[batch, time]` or `[batch, 1]` bool of each, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused`.
        """
        words = jnp.where(valid["text"][..., None], embedded["text"], 0)
        if self.text_width:
            words = self.text(words)
        words = self.gate(words, embedded, valid, train)
        if self.encoder is not None:
            words = self.encoder(words, valid["text"], train)
        pool = masked_mean if self.text_pool == "mean" else first_frame
        return Fused(self.pooler(pool(words, valid["text"])), {})

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the pooled feature.

        Args:
            features: `[batch, width]`.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.out(self.drop_head(features, train))


class Gate(nn.Module):
    """Words plus a displacement by audio and vision, normalised.

    `h = relu(W [v; z]) * (W v) + relu(W [a; z]) * (W a)` shifts the word z by
    `min(shift |z| / |h|, 1) h`. Norms carry an epsilon.

    Attributes:
        shift: longest displacement as a share of |z|.
        dropout: dropout rate on the result.
    """

    shift: float = 1.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, words: Array, senses: Inputs, valid: Inputs, train: bool) -> Array:
        """Shifted words.

        Args:
            words: z, `[batch, time, width]`.
            senses: `audio` and `vision`, `[batch, time or 1, features]`.
            valid: `[batch, time or 1]` of each; frames of padding shift nothing.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, time, width]`.
        """
        width = words.shape[-1]
        moved = jnp.zeros_like(words)
        for name in ("vision", "audio"):
            real = valid[name][..., None]
            x = jnp.where(real, senses[name], 0)
            x = jnp.broadcast_to(x, (*words.shape[:-1], x.shape[-1]))
            weight = nn.Dense(width, name=f"weigh_{name}")(jnp.concatenate([x, words], axis=-1))
            move = nn.relu(weight) * nn.Dense(width, name=f"move_{name}")(x)
            moved += jnp.where(real, move, 0)
        share = self.shift * _length(words) / (_length(moved) + _EPS)
        words = words + jnp.minimum(share, 1.0) * moved
        words = nn.LayerNorm(epsilon=1e-5, name="norm")(words)
        return Dropout(self.dropout, name="drop")(words, train)


class Pooler(nn.Module):
    """Pooler of BERT: a dense layer as wide as its input, tanh."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tanh of a linear map: `[batch, width] -> [batch, width]`.

        Args:
            x: `[batch, width]`.

        Returns:
            `[batch, width]`, in (-1, 1).
        """
        return nn.tanh(nn.Dense(x.shape[-1], name="dense")(x))


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS**2)


def mmsa_table() -> list[Layer]:
    """Table of MMSA's BERT_MAG without BERT, for `corrkd_jax.models.torch_weights`.

    Names begin where `MAG_BertForSequenceClassification` does. Remove its embeddings and layers,
    under `bert.embeddings.` and `bert.encoder.`, from the state before the conversion.

    Returns:
        Rows for all other weights of the torch model.
    """
    gate = "bert.MAG"
    return [
        Layer(f"{gate}.W_hv", "gate/weigh_vision", linear),
        Layer(f"{gate}.W_ha", "gate/weigh_audio", linear),
        Layer(f"{gate}.W_v", "gate/move_vision", linear),
        Layer(f"{gate}.W_a", "gate/move_audio", linear),
        Layer(f"{gate}.LayerNorm", "gate/norm", layer_norm),
        Layer("bert.pooler.dense", "pooler/dense", linear),
        Layer("classifier", "out", linear),
    ]
