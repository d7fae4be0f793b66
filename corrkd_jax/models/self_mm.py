"""Self-MM (arXiv:2102.04830): a prediction of the fusion, and one of each modality."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.recurrent import LSTM
from corrkd_jax.models.torch_weights import Layer, linear, lstm
from corrkd_jax.models.transformer import Dropout, masked_mean

ORDER = ("text", "audio", "vision")
"""Order of the modalities' vectors in the input of the fusion; the published one."""

TEXT_POOLS = ("first", "mean")


class SelfMM(BaseModel):
    """Vectors of the modalities, side by side into one branch, and each into a branch of its own.

    A branch is Dense and ReLU, which gives its feature, then Dense, ReLU and Dense. Audio and
    vision are last states of an LSTM, then a Dense layer. Rates and sizes are MMSA's for MOSI.

    `Fused.features` is the feature of the fused branch. `Fused.parts` holds the features of the
    others as `text`, `audio`, `vision` and their predictions, `[batch, outputs]`, as
    `predicted_text` and so on. The labels that `corrkd_jax.losses.unimodal` derives for those are
    scores. With classes (`outputs` above 1) the method is its fused branch, trained alone, and
    nothing trains the other three.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        text_pool: `"first"` takes the first valid frame, which is the published choice and right
            for a BERT that is trained along, whose first frame is [CLS]; `"mean"` averages valid
            frames, for word vectors and for features of a frozen encoder.
        audio_state: size of the audio's LSTM.
        vision_state: size of the vision's LSTM.
        audio_vector: width of the audio's vector.
        vision_vector: width of the vision's vector.
        fused_width: width of the fused branch.
        text_width: width of the text's branch.
        audio_width: width of the audio's branch.
        vision_width: width of the vision's branch.
        audio_lstm_dropout: dropout rate on the audio's last state.
        vision_lstm_dropout: dropout rate on the vision's last state.
        fused_dropout: dropout rate on the input of the fused branch.
        text_dropout: dropout rate on the input of the text's branch.
        audio_dropout: dropout rate on the input of the audio's branch.
        vision_dropout: dropout rate on the input of the vision's branch.
    """

    text_pool: str = "mean"
    audio_state: int = 16
    vision_state: int = 32
    audio_vector: int = 16
    vision_vector: int = 32
    fused_width: int = 128
    text_width: int = 32
    audio_width: int = 16
    vision_width: int = 32
    audio_lstm_dropout: float = 0.0
    vision_lstm_dropout: float = 0.0
    fused_dropout: float = 0.0
    text_dropout: float = 0.1
    audio_dropout: float = 0.1
    vision_dropout: float = 0.0

    def setup(self) -> None:
        """Build the sequence networks, the four branches and their predictions.

        Raises:
            ValueError: `text_pool` is unknown.
        """
        if self.text_pool not in TEXT_POOLS:
            raise ValueError(f"text_pool must be one of {TEXT_POOLS}, got {self.text_pool!r}")
        self.sequence = {
            "audio": LastState(self.audio_state, self.audio_vector, self.audio_lstm_dropout),
            "vision": LastState(self.vision_state, self.vision_vector, self.vision_lstm_dropout),
        }
        self.fusion = Feature(self.fused_width, self.fused_dropout)
        self.feature = {
            "text": Feature(self.text_width, self.text_dropout),
            "audio": Feature(self.audio_width, self.audio_dropout),
            "vision": Feature(self.vision_width, self.vision_dropout),
        }
        self.predict_fusion = Prediction(self.outputs)
        self.predict = {name: Prediction(self.outputs) for name in ORDER}

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Feature of the fused branch, `[batch, fused_width]`, and the parts that the class lists.

        Args:
            embedded: `text`, `audio` and `vision`, `[batch, time, features]`.
            valid: `[batch, time]` bool of each, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused`.
        """
        pool = masked_mean if self.text_pool == "mean" else first_frame
        vectors = {"text": pool(embedded["text"], valid["text"])}
        for name, sequence in self.sequence.items():
            vectors[name] = sequence(embedded[name], valid[name], train)
        together = jnp.concatenate([vectors[name] for name in ORDER], axis=-1)
        parts = {name: self.feature[name](vectors[name], train) for name in ORDER}
        predicted = {f"predicted_{name}": self.predict[name](parts[name]) for name in ORDER}
        return Fused(self.fusion(together, train), parts | predicted)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the fused branch.

        Args:
            features: `[batch, fused_width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.predict_fusion(features)


class LastState(nn.Module):
    """LSTM, dropout on its last valid state, Dense: `[batch, time, in] -> [batch, width]`.

    Attributes:
        state: size of the LSTM.
        width: width of the result.
        dropout: dropout rate on the state.
    """

    state: int
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, valid: Array, train: bool) -> Array:
        """Vector of a sequence.

        Args:
            x: `[batch, time, in]`; padding may hold anything.
            valid: `[batch, time]` bool, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, width]`.
        """
        last, _ = LSTM(self.state, name="lstm")(x, valid)
        return nn.Dense(self.width, name="out")(Dropout(self.dropout, name="drop")(last, train))


class Feature(nn.Module):
    """Dropout, Dense, ReLU: `[batch, in] -> [batch, width]`.

    Attributes:
        width: width of the result.
        dropout: dropout rate on the input.
    """

    width: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Feature of a branch.

        Args:
            x: `[batch, in]`.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `[batch, width]`, not negative.
        """
        return nn.relu(
            nn.Dense(self.width, name="out")(Dropout(self.dropout, name="drop")(x, train))
        )


class Prediction(nn.Module):
    """Dense as wide as its input, ReLU, Dense: `[batch, width] -> [batch, outputs]`.

    Attributes:
        outputs: width of the result.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Prediction of a branch.

        Args:
            x: `[batch, width]`, the branch's feature.

        Returns:
            `[batch, outputs]`.
        """
        return nn.Dense(self.outputs, name="out")(nn.relu(nn.Dense(x.shape[-1], name="hidden")(x)))


def first_frame(x: Array, valid: Array) -> Array:
    """First valid frame of a sequence.

    Args:
        x: `[batch, time, features]`.
        valid: `[batch, time]` bool.

    Returns:
        `[batch, features]` float32; zeros in a row without a valid frame.
    """
    first = jnp.argmax(valid, axis=-1)[:, None, None]
    frame = jnp.take_along_axis(x, first, axis=1)[:, 0].astype(jnp.float32)
    return jnp.where(jnp.any(valid, axis=-1, keepdims=True), frame, 0)


def mmsa_table() -> list[Layer]:
    """Table of MMSA's SELF_MM for `corrkd_jax.models.torch_weights`, without BERT.

    Remove names under `text_model.` from the state before the conversion. MMSA's model reads the
    first frame of the text: `text_pool="first"`.

    Returns:
        Rows for all other weights of the torch model.
    """
    table = []
    for name in ("fusion", *ORDER):
        source = "post_video" if name == "vision" else f"post_{name}"
        feature = name if name == "fusion" else f"feature_{name}"
        table += [
            Layer(f"{source}_layer_1", f"{feature}/out", linear),
            Layer(f"{source}_layer_2", f"predict_{name}/hidden", linear),
            Layer(f"{source}_layer_3", f"predict_{name}/out", linear),
        ]
    for name, source in (("audio", "audio_model"), ("vision", "video_model")):
        table += [
            Layer(f"{source}.rnn", f"sequence_{name}/lstm/cell", lstm()),
            Layer(f"{source}.linear_1", f"sequence_{name}/out", linear),
        ]
    return table
