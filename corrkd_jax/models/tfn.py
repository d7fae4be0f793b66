"""TFN (arXiv:1707.07250): outer product of the modalities."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.recurrent import LSTM
from corrkd_jax.models.torch_weights import Layer, batch_norm, ignored, linear, lstm
from corrkd_jax.models.transformer import Dropout, masked_mean


class TFN(BaseModel):
    """Vector of each modality, their tensor `[1; audio] x [1; vision] x [1; text]`, an MLP.

    Layers, order and sizes are MMSA's for MOSI. Three of its habits are left out:

    * Audio and vision are averaged over their valid frames, and text is read up to its last valid
      one; MMSA takes padding for frames. Masks that are True everywhere give MMSA's result.
    * MMSA configures dropout on the text's last state and never applies it.
    * MMSA's running variances are unbiased, Flax's are not.

    `Fused.features` is the second hidden layer of the MLP; `Fused.parts` holds the three vectors.

    Attributes:
        outputs: 1 for a score, which a sigmoid keeps in (-3, 3); else the number of classes.
        audio_hidden: width of the audio's layers and vector.
        vision_hidden: width of the vision's layers and vector.
        text_hidden: size of the state of the text's LSTM.
        text_out: width of the text's vector.
        fused_width: width of both hidden layers after the tensor.
        audio_dropout: dropout rate on the normalised mean of the audio.
        vision_dropout: dropout rate on the normalised mean of the vision.
        tensor_dropout: dropout rate on the tensor.
        axis_name: mapped axis over which a batch is sharded; its statistics are of all shards.
    """

    audio_hidden: int = 32
    vision_hidden: int = 128
    text_hidden: int = 128
    text_out: int = 32
    fused_width: int = 64
    audio_dropout: float = 0.3
    vision_dropout: float = 0.3
    tensor_dropout: float = 0.5
    axis_name: str | None = None

    def setup(self) -> None:
        """Build the three networks, the fusion and the head."""
        self.audio = MeanNetwork(self.audio_hidden, self.audio_dropout, self.axis_name)
        self.vision = MeanNetwork(self.vision_hidden, self.vision_dropout, self.axis_name)
        self.text = StateNetwork(self.text_hidden, self.text_out)
        self.drop_tensor = Dropout(self.tensor_dropout)
        self.fused_1 = nn.Dense(self.fused_width)
        self.fused_2 = nn.Dense(self.fused_width)
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Second hidden layer, `[batch, fused_width]`, and the three vectors.

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
        tensor = outer(parts["audio"], parts["vision"], parts["text"])
        hidden = nn.relu(self.fused_1(self.drop_tensor(tensor, train)))
        return Fused(nn.relu(self.fused_2(hidden)), parts)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits, or a score in (-3, 3), of the fused feature.

        Args:
            features: `[batch, fused_width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        out = self.out(features)
        return 6.0 * nn.sigmoid(out) - 3.0 if self.outputs == 1 else out


class MeanNetwork(nn.Module):
    """Mean over the valid frames, batch normalisation, dropout, three ReLU layers.

    Attributes:
        width: width of the layers.
        dropout: dropout rate after the normalisation.
        axis_name: mapped axis over which a batch is sharded.
    """

    width: int
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool) -> Array:
        """Vector of a sequence.

        Args:
            x: `[batch, time, in]`.
            valid: `[batch, time]` bool, False on padding.
            train: dropout and batch statistics on; the first needs the `dropout` key.

        Returns:
            `[batch, width]`.
        """
        x = masked_mean(x, valid)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            name="norm",
        )(x)
        x = Dropout(self.dropout, name="dropout")(x, train)
        for layer in (1, 2, 3):
            x = nn.relu(nn.Dense(self.width, name=f"dense_{layer}")(x))
        return x


class StateNetwork(nn.Module):
    """State of an LSTM after the last valid frame, then a linear layer.

    Attributes:
        hidden: size of the state.
        width: width of the result.
    """

    hidden: int
    width: int

    @nn.compact
    def __call__(self, x: Array, valid: Array) -> Array:
        """Vector of a sequence.

        Args:
            x: `[batch, time, in]`; padding may hold anything.
            valid: `[batch, time]` bool, False on padding.

        Returns:
            `[batch, width]`.
        """
        state, _ = LSTM(self.hidden, name="lstm")(x, valid)
        return nn.Dense(self.width, name="dense")(state)


def with_one(x: Array) -> Array:
    """Vector with a one in front, `[1; x]`, so that products keep lower orders.

    Args:
        x: `[batch, width]`.

    Returns:
        `[batch, 1 + width]`.
    """
    return jnp.pad(x, ((0, 0), (1, 0)), constant_values=1)


def outer(*vectors: Array) -> Array:
    """Outer product of `[1; x]` over all x, flattened, the first one outermost.

    Args:
        vectors: `[batch, width]` each.

    Returns:
        `[batch, product of (1 + width)]`.
    """
    product = jnp.ones((vectors[0].shape[0], 1), vectors[0].dtype)
    for x in vectors:
        product = (product[:, :, None] * with_one(x)[:, None]).reshape(x.shape[0], -1)
    return product


def mmsa_networks() -> list[Layer]:
    """Table of the three networks before the fusion, which MMSA's TFN and LMF share.

    Returns:
        Rows for `corrkd_jax.models.torch_weights`.
    """
    table = [
        Layer("text_subnet.rnn", "text/lstm/cell", lstm()),
        Layer("text_subnet.linear_1", "text/dense", linear),
    ]
    for theirs, ours in (("audio", "audio"), ("video", "vision")):
        table.append(Layer(f"{theirs}_subnet.norm", f"{ours}/norm", batch_norm))
        for layer in (1, 2, 3):
            source = f"{theirs}_subnet.linear_{layer}"
            table.append(Layer(source, f"{ours}/dense_{layer}", linear))
    return table


def mmsa_table() -> list[Layer]:
    """Table of MMSA's TFN for `corrkd_jax.models.torch_weights`.

    Returns:
        Rows for all weights of the torch model.
    """
    return [
        *mmsa_networks(),
        Layer("post_fusion_layer_1", "fused_1", linear),
        Layer("post_fusion_layer_2", "fused_2", linear),
        Layer("post_fusion_layer_3", "out", linear),
        # its constants: the width of the scores and the lowest one
        Layer("", "", ignored("output_range", "output_shift")),
    ]
