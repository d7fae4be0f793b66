"""MMIM (arXiv:2109.00412): a fusion that keeps the information modalities have about each other."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from corrkd_jax.models.fusion import BaseModel, Fused, Inputs
from corrkd_jax.models.recurrent import LSTM
from corrkd_jax.models.self_mm import TEXT_POOLS, first_frame
from corrkd_jax.models.torch_weights import Layer, linear, lstm
from corrkd_jax.models.transformer import Dropout, masked_mean

ORDER = ("text", "audio", "vision")
"""Order of the modalities' vectors in the input of the fusion; the published one."""

SENSES = ("vision", "audio")
"""Modalities that the text's networks predict."""


class MMIM(BaseModel):
    """Vectors of the modalities side by side into two tanh layers, and networks of its two bounds.

    Text is pooled; audio and vision are the last states of a bidirectional LSTM, then Dense. Sizes
    and rates are MMSA's for MOSI.

    `Fused.features` is the second layer. `Fused.parts` holds the inputs of
    `corrkd_jax.losses.infomax`:

    * `text`, `audio`, `vision`: the vectors;
    * `mean_vision`, `log_variance_vision`, and the same of audio: the Gaussian that text predicts;
    * `projected_vision`, `projected_audio`: a projection of the vector for its entropy;
    * `predicted_text`, `predicted_audio`, `predicted_vision`: the fused feature's prediction.

    No published loss trains that projection, and its weights stay at their first values; here they
    are constants to the gradient.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        text_pool: `"first"` takes the first valid frame, the published choice and right for a BERT
            that is trained along; `"mean"` averages valid frames, for word vectors and for features
            of a frozen encoder.
        audio_state: size of a direction of the audio's LSTM.
        vision_state: size of a direction of the vision's LSTM.
        audio_vector: width of the audio's vector.
        vision_vector: width of the vision's vector.
        fused_width: width of the fused layers.
        fused_dropout: dropout rate on the input of the fused layers.
    """

    text_pool: str = "mean"
    audio_state: int = 16
    vision_state: int = 16
    audio_vector: int = 16
    vision_vector: int = 16
    fused_width: int = 128
    fused_dropout: float = 0.1

    def setup(self) -> None:
        """Build the sequence networks, the fusion, the networks of the two bounds and the head.

        Raises:
            ValueError: `text_pool` is unknown.
        """
        if self.text_pool not in TEXT_POOLS:
            raise ValueError(f"text_pool must be one of {TEXT_POOLS}, got {self.text_pool!r}")
        self.sequence = {
            "audio": BothEnds(self.audio_state, self.audio_vector),
            "vision": BothEnds(self.vision_state, self.vision_vector),
        }
        self.drop = Dropout(self.fused_dropout)
        self.fused_1 = nn.Dense(self.fused_width)
        self.fused_2 = nn.Dense(self.fused_width)
        self.bound = {name: Bound() for name in SENSES}
        self.predict = {name: Prediction() for name in ORDER}
        self.out = nn.Dense(self.outputs)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Second fused layer, `[batch, fused_width]`, and the parts that the class lists.

        Args:
            embedded: `text`, `audio` and `vision`, `[batch, time, features]`.
            valid: `[batch, time]` bool of each, False on padding.
            train: dropout on, which needs the `dropout` key.

        Returns:
            `Fused`.
        """
        pool = masked_mean if self.text_pool == "mean" else first_frame
        parts = {"text": pool(embedded["text"], valid["text"])}
        for name, sequence in self.sequence.items():
            parts[name] = sequence(embedded[name], valid[name])
        together = jnp.concatenate([parts[name] for name in ORDER], axis=-1)
        features = nn.tanh(self.fused_1(self.drop(together, train)))
        features = nn.tanh(self.fused_2(features))
        predicted = {
            f"predicted_{name}": self.predict[name](features, parts[name]) for name in ORDER
        }
        for name, bound in self.bound.items():
            found = bound(parts["text"], parts[name])
            for what, x in zip(("mean", "log_variance", "projected"), found, strict=True):
                predicted[f"{what}_{name}"] = x
        return Fused(features, parts | predicted)

    def head(self, features: Array, train: bool = False) -> Array:
        """Logits or score of the fused feature.

        Args:
            features: `[batch, fused_width]`.
            train: without effect.

        Returns:
            `[batch, outputs]` float32.
        """
        return self.out(features)


class BothEnds(nn.Module):
    """Last states of a bidirectional LSTM, Dense: `[batch, time, in] -> [batch, width]`.

    Attributes:
        state: size of a direction of the LSTM.
        width: width of the result.
    """

    state: int
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
        forward, _ = LSTM(self.state, name="forward")(x, valid)
        backward, _ = LSTM(self.state, reverse=True, name="backward")(x, valid)
        return nn.Dense(self.width, name="out")(jnp.concatenate([forward, backward], axis=-1))


class Bound(nn.Module):
    """Networks of a bound: text's Gaussian of another vector, and a projection for its entropy."""

    @nn.compact
    def __call__(self, text: Array, other: Array) -> tuple[Array, Array, Array]:
        """Mean and log variance of the Gaussian, and the projection.

        Args:
            text: `[batch, in]`.
            other: `[batch, width]`, the vector to predict.

        Returns:
            Mean and log variance, `[batch, width]`, and the projection of `other`,
            `[batch, max(width // 4, 1)]`, in (-1, 1).
        """
        width = other.shape[-1]

        def network(name: str) -> Array:
            hidden = nn.relu(nn.Dense(width, name=f"{name}_in")(text))
            return nn.Dense(width, name=f"{name}_out")(hidden)

        narrow = max(width // 4, 1)
        kernel = self.param("kernel", nn.initializers.xavier_normal(), (width, narrow))
        bias = self.param("bias", nn.initializers.zeros_init(), (narrow,))
        projected = nn.tanh(other @ lax.stop_gradient(kernel) + lax.stop_gradient(bias))
        return network("mean"), network("log_variance"), projected


class Prediction(nn.Module):
    """Linear prediction of a vector from the fused feature."""

    @nn.compact
    def __call__(self, features: Array, vector: Array) -> Array:
        """Predicted vector.

        Args:
            features: `[batch, in]`, the fused feature.
            vector: `[batch, width]`; only its width is read.

        Returns:
            `[batch, width]`.
        """
        return nn.Dense(vector.shape[-1], name="out")(features)


def mmsa_table() -> list[Layer]:
    """Table of MMSA's MMIM for `corrkd_jax.models.torch_weights`, without BERT.

    Remove names under `bertmodel.` from the state before the conversion. MMSA's model reads the
    first frame of the text: `text_pool="first"`.

    Returns:
        Rows for all other weights of the torch model.
    """
    table = [
        Layer("fusion_prj.linear_1", "fused_1", linear),
        Layer("fusion_prj.linear_2", "fused_2", linear),
        Layer("fusion_prj.linear_3", "out", linear),
    ]
    for name, source in (("audio", "acoustic_enc"), ("vision", "visual_enc")):
        bound = f"mi_t{name[0]}"
        table += [
            Layer(f"{source}.rnn", f"sequence_{name}/forward/cell", lstm("l0")),
            Layer(f"{source}.rnn", f"sequence_{name}/backward/cell", lstm("l0_reverse")),
            Layer(f"{source}.linear_1", f"sequence_{name}/out", linear),
            Layer(f"{bound}.entropy_prj.0", f"bound_{name}", linear),
        ]
        for network, ours in (("mlp_mu", "mean"), ("mlp_logvar", "log_variance")):
            table += [
                Layer(f"{bound}.{network}.0", f"bound_{name}/{ours}_in", linear),
                Layer(f"{bound}.{network}.2", f"bound_{name}/{ours}_out", linear),
            ]
    for name in ORDER:
        table.append(Layer(f"cpc_z{name[0]}.net", f"predict_{name}/out", linear))
    return table
