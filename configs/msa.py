"""Runs of `python -m train.msa`: multimodal sentiment analysis with missing modalities."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class SourceConfig:
    """Which file, and how it is read."""

    path: str = ""
    """File or folder in one of the layouts of docs/data.md; empty: planted data."""
    word_vectors: str = ""
    """Word vectors in GloVe's text format, for layouts that hold words; rebuilds text from them."""
    vocabulary: str = ""
    """BERT's vocab.txt, to tell the words of MMSA files that hold text_bert."""
    scale: bool = True
    """z-score every feature by its mean and deviation on the train split; off: literal values."""
    clip: float = 5.0
    """Scaled features are clipped to plus and minus this."""
    max_frames: int = 50
    """Longest sequence taken from layouts of variable length."""
    context: bool = False
    """UR-FUNNY: the sentences before the punchline begin each sequence."""
    fold: int = 0
    """MUStARD: a fold of split_indices.p, from 1; 0: train on all shows but FRIENDS, test on it."""
    feed: Literal["auto", "device", "grain"] = "auto"
    """device: the data live on the device; grain: batches stream from disk; auto: what fits."""
    threads: int = 2
    """Reading threads when batches stream from disk."""
    planted_seed: int = 0
    """Seed of the planted data."""


@dataclass(frozen=True)
class DataConfig(SourceConfig):
    """Which files, and what their labels mean."""

    teacher_path: str = ""
    """Another file whose train split trains the teacher; empty: the same as the student's."""
    labels: Literal["binary", "ternary", "seven", "classes", "single"] = "binary"
    """binary: score > 0, zeros left out; ternary: its sign; seven: rounded; classes: the file's;
    single: which of the file's binary tasks is 1 (IEMOCAP's emotions by one head)."""


@dataclass(frozen=True)
class NetworkConfig:
    """Teacher and student; the defaults are the paper's where it says, MulT's elsewhere."""

    features: int = 40
    """Width d of each modality."""
    layers: int = 4
    """Depth of the encoders."""
    heads: int = 10
    """Attention heads; must divide the width."""
    embed_dropout: float = 0.25
    """Dropout on embedded input."""
    attention_dropout: float = 0.1
    """Dropout on attention weights."""
    relu_dropout: float = 0.1
    """Dropout inside the feed-forward parts."""
    residual_dropout: float = 0.1
    """Dropout on what each branch adds."""
    head_dropout: float = 0.1
    """Dropout in the classification head."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of the encoders; auto: bfloat16 on accelerators, float32 on CPU."""


@dataclass(frozen=True)
class LossConfig:
    """The student's objective; every choice that the paper leaves open."""

    scd: float = 1.0
    """Weight of sample-level contrastive distillation."""
    cpd: float = 1.0
    """Weight of category-guided prototype distillation."""
    rcd: float = 1.0
    """Weight of response-disentangled consistency distillation."""
    margin: float = 1.2
    """Distance beyond which a negative pair no longer counts (eta)."""
    normalize: bool = True
    """Unit-normalise joint features in the contrastive term."""
    reduction: Literal["mean", "sum"] = "mean"
    """Contrastive term over pairs; sum is the paper's letter and swamps the task loss."""
    prototype_distance: Literal["square", "norm"] = "square"
    """Distance of two cosines in the prototype term."""
    count_absent: bool = False
    """Divide the prototype term by all classes, also where a batch lacks some."""
    negatives: Literal["all", "next"] = "all"
    """Product pairs of the consistency term: all other rows of a batch, or the one that follows."""
    renormalize: bool = False
    """Let the non-target responses sum to one, as decoupled KD does."""
    statistics_hidden: int = 64
    """Width of the statistics networks."""
    kd_temperature: float = 1.0
    """Temperature of the KL arm."""
    dkd_alpha: float = 1.0
    """Weight of the target part in the decoupled-KD arm."""
    dkd_beta: float = 8.0
    """Weight of the non-target part in the decoupled-KD arm."""
    dkd_temperature: float = 4.0
    """Temperature of the decoupled-KD arm."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for teacher and student alike."""

    rate: float = 4e-3
    """Learning rate."""
    batch: int = 64
    """Rows a step, over all devices; the losses couple them."""
    epochs: int = 50
    """Passes of the student over its data."""
    teacher_epochs: int = 0
    """Passes of the teacher over its data; 0: as many as the student's."""
    clip: float = 0.8
    """Gradients longer than this are scaled down to it; statistics networks apart."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run; cosine ends at zero."""
    validate_every: int = 1
    """Epochs from one look at the validation split to the next; the best one is kept."""


@dataclass(frozen=True)
class MsaConfig:
    """Distil a student that bears missing modalities from a teacher that saw everything."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seeds: int = 1
    """Number of seeds, trained side by side."""
    first_seed: int = 1111
    """Seeds are this, this + 1, ..."""
    ablate: bool = False
    """Train every arm of the paper's ablation, not only MRM + CE and CorrKD."""
    arms: tuple[str, ...] = ()
    """Only these rows of the ablation, by name; --ablate trains all of them in any case."""
    sweep: tuple[str, ...] = ()
    """Arms over hyper-parameters: rate, margin, scd, cpd or rcd, as margin=0.8,1.2,1.6."""
    student_start: Literal["random", "teacher"] = "random"
    """Where the student starts: from its own seed, or from the teacher's parameters."""


PRESETS: dict[str, MsaConfig] = {
    "planted": MsaConfig(
        data=DataConfig(labels="classes"),
        network=NetworkConfig(features=24, layers=1, heads=4),
        losses=LossConfig(statistics_hidden=32),
        optimizer=OptimizerConfig(
            rate=2e-3, epochs=100, teacher_epochs=9, schedule="cosine", validate_every=20
        ),
        seeds=5,
        # --ablate adds the others; these show the effect and its control in a few minutes
        arms=("MRM + CE", "MRM + CE + KL", "CorrKD", "CorrKD, shuffled teacher"),
    ),
    "mosi": MsaConfig(),
    "mosei": MsaConfig(
        network=NetworkConfig(heads=8),
        losses=LossConfig(margin=1.0),
        optimizer=OptimizerConfig(rate=2e-3, batch=32, epochs=20),
    ),
    "iemocap": MsaConfig(
        data=DataConfig(labels="classes"),
        losses=LossConfig(margin=1.4),
        optimizer=OptimizerConfig(epochs=30),
    ),
}
"""Named runs; what they leave out is the paper's MOSI setting."""
