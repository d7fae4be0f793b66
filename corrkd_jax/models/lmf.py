"""LMF (arXiv:1806.00064): TFN's tensor, contracted with a low-rank weight before it is formed."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.tfn import MeanNetwork, StateNetwork, mmsa_networks, with_one
from corrkd_jax.models.torch_weights import Layer, parameter


class LMF(BaseModel):
    """Low-rank tensor fusion: TFN's networks, products of linear maps, a weighted sum of ranks.

    With `[1; x]` for the vector x of a modality, factors F and weights w of the ranks r, the fused
    feature is `sum_r w_r ([1; audio] F_r) * ([1; vision] F_r) * ([1; text] F_r) + b`.

    Networks and sizes are MMSA's for MOSI. The notes of `TFN` on padding and on the text's dropout
    hold here too. MMSA also configures dropout after the fusion and never applies it, and leaves w
    and b out of its optimiser. Factors start as Xavier matrices, one a rank.

    `Fused.parts` holds the three vectors.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        rank: number of products that are summed, R.
        fused_width: width of the fused feature, which a linear head then reads; None: the factors
            give the outputs themselves, as published, and the head is the identity.
        audio_hidden: width of the audio's layers and vector.
        vision_hidden: width of the vision's layers and vector.
        text_hidden: size of the state of the text's LSTM; its vector is half as wide.
        audio_dropout: dropout rate on the normalised mean of the audio.
        vision_dropout: dropout rate on the normalised mean of the vision.
        axis_name: mapped axis over which a batch is sharded; its statistics are of all shards.
    """

    rank: int = 3
    fused_width: int | None = 64
    audio_hidden: int = 16
    vision_hidden: int = 128
    text_hidden: int = 128
    audio_dropout: float = 0.3
    vision_dropout: float = 0.3
    axis_name: str | None = None

    def setup(self) -> None:
        """Build the three networks, the product and, with a `fused_width`, the head."""
        self.audio = MeanNetwork(self.audio_hidden, self.audio_dropout, self.axis_name)
        self.vision = MeanNetwork(self.vision_hidden, self.vision_dropout, self.axis_name)
        self.text = StateNetwork(self.text_hidden, self.text_hidden // 2)
        self.product = LowRankProduct(self.rank, self.fused_width or self.outputs)
        if self.fused_width:
            self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Fused feature `[batch, fused_width or outputs]` and the three vectors.

        Args:
            embedded: `text`, `audio` and `vision`, `[batch, time, features]`.
            valid: `[batch, time]` bool of each, False on padding.
            train: dropout and batch statistics on; the first needs the `dropout` key.

        Returns:
            `Fused`.
        """
        parts = {
            "text": self.text(embedded["text"], valid["text"]),
            "audio": self.audio(embedded["audio"], valid["audio"], train),
            "vision": self.vision(embedded["vision"], valid["vision"], train),
        }
        return Fused(self.product(parts), parts)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score `[batch, outputs]` of the fused feature.

        Args:
            features: `[batch, fused_width or outputs]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32; the features themselves without a `fused_width`.
        """
        return self.out(features) if self.fused_width else features


class LowRankProduct(nn.Module):
    """Outer product of `[1; x]` over the modalities, times a weight of low rank.

    Attributes:
        rank: number of products that are summed.
        width: width of the result.
    """

    rank: int
    width: int

    @nn.compact
    def __call__(self, vectors: dict[str, Array]) -> Array:
        """Fused feature of the modalities' vectors.

        Args:
            vectors: modality -> `[batch, in]`.

        Returns:
            `[batch, width]`.
        """
        xavier = nn.initializers.xavier_normal
        product = 1.0
        for name, x in sorted(vectors.items()):
            shape = (self.rank, 1 + x.shape[-1], self.width)
            factor = self.param(f"{name}_factor", xavier(batch_axis=0), shape)
            product = product * jnp.einsum("bi,rio->rbo", with_one(x), factor)
        weights = self.param("weights", xavier(), (1, self.rank))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return jnp.einsum("r,rbo->bo", weights[0], product) + bias


def mmsa_table() -> list[Layer]:
    """Table of MMSA's LMF for `corrkd_jax.models.torch_weights`; only for no `fused_width`.

    Returns:
        Rows for all weights of the torch model.
    """
    table = mmsa_networks()
    for theirs, ours in (("audio", "audio"), ("video", "vision"), ("text", "text")):
        table.append(Layer(f"{theirs}_factor", f"product/{ours}_factor", parameter("params")))
    table.append(Layer("fusion_weights", "product/weights", parameter("params")))
    row = (lambda x: x[0], lambda x: x[None])
    table.append(Layer("fusion_bias", "product/bias", parameter("params", row)))
    return table
