"""Runs of `python -m train.msa --model ... --debias ...`: base models, with bias taken away."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from configs.msa import RENAMED as MSA_RENAMED
from configs.msa import SourceConfig
from corrkd_jax.ranges import NotNegative, Positive


@dataclass(frozen=True)
class DebiasDataConfig(SourceConfig):
    """The file, what its labels mean, who speaks."""

    labels: Literal["score", "binary", "ternary", "seven", "classes"] = "score"
    """Meaning of the labels. score: regression; binary: score > 0; ternary: the score's sign;
    seven: the rounded score; classes: the file's own."""
    subjects: str = ""
    """File subjects.csv with the columns video_id and subject_id; empty: the video of an id is its
    subject."""
    leave_out: str = ""
    """Subjects of the test split, separated by commas; empty: the file's own split."""
    validate_on: str = ""
    """Subjects of the validation split with leave_out; empty: about a fifth of the other rows."""
    folds: Annotated[int, NotNegative] = 0
    """Number of folds that all subjects are dealt into; number fold of them is the test split; 0:
    no folds."""
    clusters: Annotated[int, NotNegative] = 0
    """Number of strata of the dictionary, by k-means on mean features instead of subjects; 0:
    subjects."""


@dataclass(frozen=True)
class McisConfig:
    """Counterfactual inference; nothing is trained."""

    content: Literal["lexicon", "tfidf", "bias_words"] = "lexicon"
    """Words that carry content: those of a word list, TF-IDF's, or all but the most biased
    words."""
    lexicon: str = ""
    """File with a word list, one word a line; empty: the planted task's own, elsewhere a small
    English one."""
    nonverbal: Literal["mean", "keep", "zero"] = "mean"
    """Audio and vision of the context counterfactual: their training means, as they are, or
    zeros."""
    standin: Literal["mean", "zero"] = "mean"
    """Values in the place of absent input: training means position by position, or zeros."""
    objective: Literal["macro_f1", "weighted_f1", "accuracy", "acc7", "neg_mae"] = "macro_f1"
    """Score of the validation split that the coefficients maximise."""
    reach: Annotated[float, Positive] = 2.0
    """Largest magnitude of a coefficient in the search."""
    step: Annotated[float, Positive] = 0.1
    """Distance from one coefficient of the search to the next."""


@dataclass(frozen=True)
class SuciConfig:
    """Subject causal intervention; a head is trained with the base model."""

    dictionary: Literal["features", "fused"] = "features"
    """Vector of a subject: its mean input features, or its mean fused feature, new each epoch."""
    width: Annotated[int, Positive] = 128
    """Width of the intervened feature."""
    key_width: Annotated[int, Positive] = 256
    """Width of queries and keys."""
    scale: Literal["key", "dictionary"] = "key"
    """Divisor of dot products: root of key_width, or of the dictionary's width as in CCIM."""
    renormalize: bool = False
    """Division of the weights by their sum after the prior; CCIM does not divide."""


@dataclass(frozen=True)
class DebiasOptimizerConfig:
    """AdamW."""

    learning_rate: Annotated[float, Positive] = 1e-3
    """Learning rate."""
    batch_size: Annotated[int, Positive] = 32
    """Rows a step, over all devices."""
    epochs: Annotated[int, Positive] = 20
    """Passes over the training split."""
    clip_norm: Annotated[float, Positive] = 0.8
    """Largest norm of the gradient; a longer one is scaled down to it."""
    weight_decay: Annotated[float, NotNegative] = 0.0
    """Weight decay, apart from the gradient."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate over the run; cosine ends at zero."""
    choose: Literal["best", "last"] = "best"
    """Epoch that is kept: the one of least validation loss, or the last."""
    grouped: bool = True
    """Published multiples of the learning rate for parts of a model; off: one rate for all
    parts."""


@dataclass(frozen=True)
class DebiasConfig:
    """A base model, and how its bias is taken away."""

    model: Literal["pooled", "tfn", "lmf", "mult", "misa", "self_mm", "mag", "mmim", "corrkd"] = (
        "mult"
    )
    """Base model."""
    debias: Literal["none", "mcis", "suci"] = "none"
    """De-biasing. none: the base model alone; mcis: against label and context bias; suci: against
    subjects as confounders."""
    data: DebiasDataConfig = field(default_factory=DebiasDataConfig)
    mcis: McisConfig = field(default_factory=McisConfig)
    suci: SuciConfig = field(default_factory=SuciConfig)
    optimizer: DebiasOptimizerConfig = field(default_factory=DebiasOptimizerConfig)
    network: tuple[str, ...] = ()
    """Attributes of the base model, as width=40 layers=2; see its class in corrkd_jax.models."""
    small: bool = False
    """Sizes for the planted tasks instead of the published ones."""
    seeds: Annotated[int, Positive] = 1
    """Number of seeds, trained in one program."""
    first_seed: Annotated[int, NotNegative] = 1111
    """First seed; the others follow it."""
    ablate: bool = False
    """Further rows. suci: every form of the intervention; mcis: the label-bias-only task where it
    is planted."""
    controls: bool = True
    """The negative control of planted data, without the bias, as a second task."""


RENAMED = {**MSA_RENAMED, "optimizer.decay": "optimizer.weight_decay"}
"""Fields by their names in version 0.1, and today's."""

SMALL: dict[str, dict[str, Any]] = {
    "pooled": {"text_width": 32},
    "tfn": {
        "audio_hidden": 8,
        "vision_hidden": 8,
        "text_hidden": 16,
        "text_out": 8,
        "fused_width": 32,
        "tensor_dropout": 0.3,
    },
    "lmf": {"audio_hidden": 8, "vision_hidden": 16, "text_hidden": 32, "fused_width": 32},
    "mult": {
        "width": 16,
        "heads": 4,
        "layers": 1,
        "text_window": 1,
        "audio_window": 1,
        "vision_window": 1,
        "text_attention_dropout": 0.0,
        "audio_attention_dropout": 0.0,
        "text_dropout": 0.1,
        "embed_dropout": 0.1,
        "out_dropout": 0.1,
    },
    "misa": {"width": 32, "feed_forward": 64},
    "self_mm": {"fused_width": 64},
    "mag": {"text_width": 32},
    "mmim": {"fused_width": 64},
    "corrkd": {"features": 16, "layers": 1, "heads": 4},
}
"""Sizes with which the planted tasks train in minutes on two CPU cores."""

SMALL_SUBJECTS: dict[str, dict[str, Any]] = {
    **SMALL,
    "pooled": {"hidden": (32, 32), "bounded": True},
}
"""The same for planted subjects, whose text is no words."""

MMIM_WEIGHTS = (0.1, 0.1)
"""Weights of MMIM's contrast (alpha), and of its likelihood and entropy (beta)."""

MISA_WEIGHTS = {"mosei": (0.3, 0.8, 1.0)}
"""Weights of difference, similarity and reconstruction by preset; elsewhere MOSI's (0.1, 0.3, 1).
"""

RATES: dict[str, dict[str, float]] = {
    "self_mm": {"sequence_audio": 5.0, "sequence_vision": 5.0, "text_encoder": 0.05},
    "mmim": {"text_encoder": 0.05},
}
"""Multiples of the learning rate by model and part of it: MMSA's for MOSI, whose rest has 1e-3."""

PRESET_RATES: dict[tuple[str, str], dict[str, float]] = {
    ("mosei", "self_mm"): {"sequence_vision": 0.1},
}
"""What a preset has otherwise, by preset and model."""

_PLANTED = DebiasConfig(
    small=True,
    seeds=5,
    optimizer=DebiasOptimizerConfig(
        learning_rate=3e-3,
        batch_size=50,
        epochs=12,
        clip_norm=1e9,
        weight_decay=1e-3,
        choose="last",
    ),
    data=DebiasDataConfig(labels="classes"),
)
_REAL = {
    "mosi": DebiasConfig(),
    "mosei": DebiasConfig(),
    "sims": DebiasConfig(data=DebiasDataConfig(labels="ternary")),
    "humor": DebiasConfig(data=DebiasDataConfig(labels="classes")),
}


def presets(debias: str) -> dict[str, DebiasConfig]:
    """Named runs; the planted task is the one that the method is about."""
    planted = _PLANTED
    if debias == "suci":
        planted = replace(
            planted,
            suci=SuciConfig(width=32, key_width=32),
            optimizer=replace(planted.optimizer, learning_rate=1e-3, batch_size=60, epochs=30),
            # the page's task, as it is: nothing is scaled
            data=replace(planted.data, scale=False),
        )
    else:
        planted = replace(planted, data=replace(planted.data, scale=False))
    return {"planted": planted, **_REAL}
