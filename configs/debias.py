"""Runs of `python -m train.msa --model ... --debias ...`: base models, with bias taken away."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from configs.msa import SourceConfig


@dataclass(frozen=True)
class DebiasDataConfig(SourceConfig):
    """Which file, what its labels mean, who speaks."""

    labels: Literal["score", "binary", "ternary", "seven", "classes"] = "score"
    """score: regression; binary: score > 0; ternary: its sign; seven: rounded; classes: own."""
    subjects: str = ""
    """subjects.csv with video_id,subject_id; empty: the video of an id is its subject."""
    leave_out: str = ""
    """Subjects, separated by commas, who are the test split; empty: the file's own split."""
    validate_on: str = ""
    """Subjects of the validation split with leave_out; empty: about a fifth of the other rows."""
    folds: int = 0
    """Deal all subjects into this many folds and test on number fold of them; 0: no."""
    clusters: int = 0
    """Strata of the dictionary by k-means on mean features instead of subjects; 0: subjects."""


@dataclass(frozen=True)
class McisConfig:
    """Counterfactual inference; nothing is trained."""

    content: Literal["lexicon", "tfidf", "bias_words"] = "lexicon"
    """Which words carry content: a word list, TF-IDF's, or all but the most biased words."""
    lexicon: str = ""
    """Word list, one a line; empty: the planted task's own, elsewhere a small English one."""
    nonverbal: Literal["mean", "keep", "zero"] = "mean"
    """Audio and vision of the context counterfactual."""
    standin: Literal["mean", "zero"] = "mean"
    """What stands for absent input: training means position by position, or zeros."""
    objective: Literal["macro_f1", "weighted_f1", "accuracy", "acc7", "neg_mae"] = "macro_f1"
    """What the coefficients maximise on the validation split."""
    reach: float = 2.0
    """Coefficients are searched from minus to plus this."""
    step: float = 0.1
    """Step of the search."""


@dataclass(frozen=True)
class SuciConfig:
    """Subject causal intervention; a head is trained with the base model."""

    dictionary: Literal["features", "fused"] = "features"
    """A subject's vector: its mean input features, or its mean fused feature, new each epoch."""
    width: int = 128
    """Width of the intervened feature."""
    key_width: int = 256
    """Width of queries and keys."""
    scale: Literal["key", "dictionary"] = "key"
    """Divisor of dot products: root of key_width, or of the dictionary's width as in CCIM."""
    renormalize: bool = False
    """Divide the weights by their sum after the prior; CCIM does not."""


@dataclass(frozen=True)
class DebiasOptimizerConfig:
    """AdamW."""

    rate: float = 1e-3
    """Learning rate."""
    batch: int = 32
    """Rows a step, over all devices."""
    epochs: int = 20
    """Passes over the training split."""
    clip: float = 0.8
    """Gradients longer than this are scaled down to it."""
    decay: float = 0.0
    """Weight decay, apart from the gradient."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run; cosine ends at zero."""
    choose: Literal["best", "last"] = "best"
    """Epoch that is kept: the one of least validation loss, or the last."""
    grouped: bool = True
    """Parts of a model learn at their published multiples of the rate; off: all at the rate."""


@dataclass(frozen=True)
class DebiasConfig:
    """Train a base model and take its bias away."""

    model: Literal["pooled", "tfn", "lmf", "mult", "misa", "self_mm", "mag", "mmim", "corrkd"] = (
        "mult"
    )
    """Base model."""
    debias: Literal["none", "mcis", "suci"] = "none"
    """none: the base model alone; mcis: label and context bias; suci: subjects as confounders."""
    data: DebiasDataConfig = field(default_factory=DebiasDataConfig)
    mcis: McisConfig = field(default_factory=McisConfig)
    suci: SuciConfig = field(default_factory=SuciConfig)
    optimizer: DebiasOptimizerConfig = field(default_factory=DebiasOptimizerConfig)
    network: tuple[str, ...] = ()
    """Attributes of the base model, as width=40 layers=2; see its class in corrkd_jax.models."""
    small: bool = False
    """Start from sizes for the planted tasks instead of the published ones."""
    seeds: int = 1
    """Number of seeds, trained in one program."""
    first_seed: int = 1111
    """Seeds are this, this + 1, ..."""
    ablate: bool = False
    """suci: every form of the intervention; mcis: the label-bias-only task where it is planted."""
    controls: bool = True
    """Planted data: train the negative control, without the bias, as well."""


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
        rate=3e-3, batch=50, epochs=12, clip=1e9, decay=1e-3, choose="last"
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
            optimizer=replace(planted.optimizer, rate=1e-3, batch=60, epochs=30),
            # the page's task, as it is: nothing is scaled
            data=replace(planted.data, scale=False),
        )
    else:
        planted = replace(planted, data=replace(planted.data, scale=False))
    return {"planted": planted, **_REAL}
