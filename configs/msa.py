"""Runs of `python -m train.msa`: multimodal sentiment analysis with missing modalities."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from corrkd_jax.ranges import Fraction, NotNegative, Positive


@dataclass(frozen=True)
class SourceConfig:
    """The file, and how it is read."""

    path: str = ""
    """File or folder in one of the layouts of docs/data.md; empty: planted data."""
    word_vectors: str = ""
    """File of word vectors in GloVe's text format, for layouts that hold words; it replaces text
    features."""
    vocabulary: str = ""
    """BERT's vocab.txt, which tells the words of MMSA files that hold text_bert."""
    scale: bool = True
    """Scaling of every feature to mean 0 and deviation 1 of the train split; off: values as they
    are."""
    clip: Annotated[float, Positive] = 5.0
    """Largest magnitude of a scaled feature; larger ones are cut to it."""
    max_frames: Annotated[int, Positive] = 50
    """Longest sequence that is taken from layouts of variable length."""
    context: bool = False
    """UR-FUNNY: the sentences before the punchline begin each sequence."""
    fold: Annotated[int, NotNegative] = 0
    """MUStARD: number of a fold of split_indices.p, from 1; 0: train on all shows but FRIENDS, test
    on it."""
    feed: Literal["auto", "device", "grain"] = "auto"
    """Where the data live. device: on the device; grain: on disk, and batches stream from there;
    auto: on the device if they fit."""
    threads: Annotated[int, Positive] = 2
    """Number of reading threads when batches stream from disk."""
    planted_seed: Annotated[int, NotNegative] = 0
    """Seed of the planted data."""


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """The files, and what their labels mean."""

    teacher_path: str = ""
    """Another file, whose train split trains the teacher; empty: the student's file."""
    labels: Literal["binary", "ternary", "seven", "classes", "single"] = "binary"
    """Meaning of the labels. binary: score > 0, zeros left out; ternary: the score's sign; seven:
    the rounded score; classes: the file's own; single: which of the file's binary tasks is 1
    (IEMOCAP's emotions by one head)."""


@dataclass(frozen=True)
class NetworkConfig:
    """Teacher and student; the defaults are the paper's where it says, MulT's elsewhere."""

    features: Annotated[int, Positive] = 40
    """Width d of each modality."""
    layers: Annotated[int, NotNegative] = 4
    """Depth of the encoders."""
    heads: Annotated[int, Positive] = 10
    """Number of attention heads; it must divide the width."""
    embed_dropout: Annotated[float, Fraction] = 0.25
    """Dropout rate on embedded input."""
    attention_dropout: Annotated[float, Fraction] = 0.1
    """Dropout rate on attention weights."""
    relu_dropout: Annotated[float, Fraction] = 0.1
    """Dropout rate inside the feed-forward parts."""
    residual_dropout: Annotated[float, Fraction] = 0.1
    """Dropout rate on what each branch adds."""
    head_dropout: Annotated[float, Fraction] = 0.1
    """Dropout rate in the classification head."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of the encoders; auto: bfloat16 on accelerators, float32 on CPU."""


@dataclass(frozen=True)
class LossConfig:
    """The student's objective; every choice that the paper leaves open."""

    scd: Annotated[float, NotNegative] = 1.0
    """Weight of sample-level contrastive distillation."""
    cpd: Annotated[float, NotNegative] = 1.0
    """Weight of category-guided prototype distillation."""
    rcd: Annotated[float, NotNegative] = 1.0
    """Weight of response-disentangled consistency distillation."""
    margin: Annotated[float, NotNegative] = 1.2
    """Distance beyond which a negative pair no longer counts (eta)."""
    normalize: bool = True
    """Normalisation of joint features to unit length in the contrastive term."""
    reduction: Literal["mean", "sum"] = "mean"
    """Reduction of the contrastive term over pairs; sum is the paper's letter and swamps the task
    loss."""
    prototype_distance: Literal["square", "norm"] = "square"
    """Distance of two cosines in the prototype term."""
    count_absent: bool = False
    """Division of the prototype term by all classes, also where a batch lacks some."""
    negatives: Literal["all", "next"] = "all"
    """Product pairs of the consistency term: all other rows of a batch, or the one that follows."""
    renormalize: bool = False
    """Renormalisation of the non-target responses to a sum of one, as in decoupled KD."""
    statistics_hidden: Annotated[int, Positive] = 64
    """Width of the statistics networks."""
    kd_temperature: Annotated[float, Positive] = 1.0
    """Temperature of the KL arm."""
    dkd_alpha: Annotated[float, NotNegative] = 1.0
    """Weight of the target part in the decoupled-KD arm."""
    dkd_beta: Annotated[float, NotNegative] = 8.0
    """Weight of the non-target part in the decoupled-KD arm."""
    dkd_temperature: Annotated[float, Positive] = 4.0
    """Temperature of the decoupled-KD arm."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for teacher and student alike."""

    learning_rate: Annotated[float, Positive] = 4e-3
    """Learning rate."""
    batch_size: Annotated[int, Positive] = 64
    """Rows a step, over all devices; the losses couple them."""
    epochs: Annotated[int, Positive] = 50
    """Passes of the student over its data."""
    teacher_epochs: Annotated[int, NotNegative] = 0
    """Passes of the teacher over its data; 0: as many as the student's."""
    clip_norm: Annotated[float, Positive] = 0.8
    """Largest norm of the gradient; a longer one is scaled down to it, that of the statistics
    networks apart."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate over the run; cosine ends at zero."""
    validate_every: Annotated[int, Positive] = 1
    """Epochs from one look at the validation split to the next; the best epoch is kept."""


@dataclass(frozen=True)
class MsaConfig:
    """A student robust to missing modalities, distilled from a teacher that sees everything."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seeds: Annotated[int, Positive] = 1
    """Number of seeds, trained side by side."""
    first_seed: Annotated[int, NotNegative] = 1111
    """First seed; the others follow it."""
    ablate: bool = False
    """Every arm of the paper's ablation, not only MRM + CE and CorrKD."""
    arms: tuple[str, ...] = ()
    """Rows of the ablation that are trained, by name; --ablate trains all of them in any case."""
    sweep: tuple[str, ...] = ()
    """Arms over hyper-parameters: learning_rate, margin, scd, cpd or rcd, as margin=0.8,1.2,1.6."""
    student_start: Literal["random", "teacher"] = "random"
    """Start of the student: its own seed, or the teacher's parameters."""


RENAMED = {
    "optimizer.rate": "optimizer.learning_rate",
    "optimizer.batch": "optimizer.batch_size",
    "optimizer.clip": "optimizer.clip_norm",
}
"""Fields by their names in version 0.1, and today's."""

PRESETS: dict[str, MsaConfig] = {
    "planted": MsaConfig(
        data=DataConfig(labels="classes"),
        network=NetworkConfig(features=24, layers=1, heads=4),
        losses=LossConfig(statistics_hidden=32),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, epochs=100, teacher_epochs=9, schedule="cosine", validate_every=20
        ),
        seeds=5,
        # --ablate adds the others; these show the effect and its control in a few minutes
        arms=("MRM + CE", "MRM + CE + KL", "CorrKD", "CorrKD, shuffled teacher"),
    ),
    "mosi": MsaConfig(),
    "mosei": MsaConfig(
        network=NetworkConfig(heads=8),
        losses=LossConfig(margin=1.0),
        optimizer=OptimizerConfig(learning_rate=2e-3, batch_size=32, epochs=20),
    ),
    "iemocap": MsaConfig(
        data=DataConfig(labels="classes"),
        losses=LossConfig(margin=1.4),
        optimizer=OptimizerConfig(epochs=30),
    ),
}
"""Named runs; what they leave out is the paper's MOSI setting."""
