"""Runs of `python -m train.dfkd`: data-free distillation, with and without KDCI."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from corrkd_jax.ranges import Finite, Fraction, NotNegative, Positive, Share

HostName = Literal["deepinv", "fast", "cmi", "dafl", "mosaic", "dfnd", "zskt", "dfq", "dfad"]

POOLED = ("deepinv", "fast", "cmi", "dfnd")
"""Hosts whose images are kept; the others make new ones for every step."""

OUTSIDE = ("dfnd", "mosaic")
"""Hosts that need a pool of unlabelled images of another domain."""

TARGETED = ("deepinv", "fast", "cmi")
"""Hosts that make images of classes that are drawn, so that their shares can be chosen."""


@dataclass(frozen=True)
class ImageConfig:
    """The files."""

    root: str = ""
    """Folder of the data set, whose test part judges the student; digits need none."""
    pool: str = ""
    """Folder of images for dfnd and mosaic, files or batches of CIFAR or ImageNet32, labels unused;
    digits: patches of two photographs."""
    labels: str = ""
    """ImageNet: file of labels of validation images that lie in one folder."""
    feed: Literal["auto", "device", "grain"] = "auto"
    """Place of the pool of dfnd and mosaic. device: it lives on the device; grain: it is read from
    disk, batch by batch; auto: on the device if it fits."""
    threads: Annotated[int, Positive] = 4
    """Number of reading threads when the pool is read from disk."""


@dataclass(frozen=True)
class SynthesisConfig:
    """How the host makes or picks its images; the defaults shown are the chosen host's."""

    learning_rate: Annotated[float, Positive] = 1e-3
    """Adam's learning rate of the generator, or of the images themselves (deepinv)."""
    latent_learning_rate: Annotated[float, NotNegative] = 1e-3
    """Learning rate of the latents (cmi, fast)."""
    beta1: Annotated[float, Fraction] = 0.5
    """Adam's decay of the mean of gradients."""
    beta2: Annotated[float, Fraction] = 0.999
    """Adam's decay of the mean of their squares."""
    steps: Annotated[int, Positive] = 1
    """Descents of a call (deepinv, cmi, fast) or generator steps before the student's turn."""
    student_steps: Annotated[int, Positive] = 1
    """Student steps on new images after the generator's turn; of the hosts that keep no images."""
    joint: bool = False
    """One step of generator and student together, on the same images, as in DAFL's own code, whose
    settings are then the defaults (dafl); off: they take turns, as in zju-vipa's benchmark."""
    calls: Annotated[int, NotNegative] = 0
    """Number of epochs that begin with a call for a batch of images; 0: all."""
    latent: Annotated[int, Positive] = 256
    """Length of a latent."""
    widths: Annotated[tuple[int, int, int], Positive] = (128, 128, 64)
    """Channels of the generator at a quarter, half and the full size of the images."""
    tanh: bool = False
    """Biases in the generator, and tanh and a batch norm at its end, as in DAFL's own and DFAD's,
    so that its images are normalised already (hosts that keep no images); off: a sigmoid at its
    end."""
    epsilon: Annotated[float, Positive] = 1e-5
    """Number added to the variance in the generator's inner batch norms; DAFL's own code has
    0.8."""
    batch_size: Annotated[int, NotNegative] = 0
    """Images of a call; 0: as many as --optimizer.batch-size."""
    keep: Annotated[int, Positive] = 60_000
    """Largest number of images that are kept; beyond it the oldest give way."""
    select: Annotated[int, NotNegative] = 0
    """Number of images that dfnd takes of the pool, the surest ones; 0: a tenth."""
    class_prior: Annotated[float, NotNegative] = 0.0
    """Weight of the cross-entropy with a class."""
    bn: Annotated[float, NotNegative] = 0.0
    """Weight of the distance to the teacher's batch norm statistics."""
    adversarial: Annotated[float, NotNegative] = 0.0
    """Weight of the student's error on the images."""
    adversarial_temperature: Annotated[float, Positive] = 1.0
    """Temperature of that divergence. zju-vipa's scripts say 20, but the published figures of zskt,
    dfq and mosaic were made at 1; deepinv has DeepInversion's 3; fast, cmi and dfad use none."""
    reverse: bool = True
    """Direction of deepinv's Jensen-Shannon divergence: KL(mean || answer), as its published code
    computes it by torch's order of arguments; off: the textbook's KL(answer || mean)."""
    activation: Annotated[float, NotNegative] = 0.0
    """Weight of the magnitude of the teacher's features."""
    balance: Annotated[float, NotNegative] = 0.0
    """Weight of the balance of classes in a batch."""
    log_base: Annotated[float, Positive] = 2.718281828459045
    """Base of the logarithm in balance: 10 in DAFL's own code, 2 in MosaicKD's, else e."""
    variation: Annotated[float, NotNegative] = 0.0
    """Weight of the total variation of images."""
    diagonals: bool = True
    """Total variation along both diagonals as well."""
    norm: Annotated[float, NotNegative] = 0.0
    """Weight of the norm of images (deepinv)."""
    contrast: Annotated[float, NotNegative] = 0.0
    """Weight of CMI's contrast of images with each other."""
    contrast_temperature: Annotated[float, Positive] = 0.2
    """Temperature of that contrast."""
    bank: Annotated[int, Positive] = 40_960
    """Number of descriptors that CMI remembers."""
    bank_draw: Annotated[int, Positive] = 4_096
    """Number of remembered descriptors that a step is contrasted with."""
    align: Annotated[float, NotNegative] = 0.0
    """Weight of the teacher's certainty (mosaic)."""
    local: Annotated[float, NotNegative] = 0.0
    """Weight of patches that pass for real ones (mosaic)."""
    ema_decay: Annotated[float, Fraction] = 0.0
    """Decay of the running mean over calls of the statistics that bn compares (fast)."""
    meta: Literal["fomaml", "reptile"] = "fomaml"
    """Rule by which fast's generator learns from the descents of its copies."""
    warmup: Annotated[int, NotNegative] = 0
    """Number of calls before adversarial counts (fast); the student waits as many epochs."""
    reset: Annotated[int, NotNegative] = 0
    """Number of calls after the warm-up at which fast draws its generator's first layer anew; 0:
    never."""
    start_mean: Annotated[float, Finite] = 0.0
    """Mean of the noise that deepinv starts from, of normalised images."""
    start_deviation: Annotated[float, NotNegative] = 1.0
    """Deviation of that noise."""
    jitter: Annotated[int, NotNegative] = 0
    """Pixels by which deepinv rolls the batch to and fro, with a random flip."""
    teacher_accuracy: Annotated[float, Share] = 0.0
    """Accuracy of the teacher (dfnd), the diagonal of the noise matrix. Its code has a figure for
    CIFAR-10's and for CIFAR-100's; other teachers' must be given (0: not yet)."""


@dataclass(frozen=True)
class KdciConfig:
    """The compensation of the student's prediction."""

    prototypes: Annotated[int, NotNegative] = 0
    """Size of the dictionary; 0: 64, 256 from 100 classes on, 512 from 1000 on."""
    feature: Literal["logits", "softmax", "penultimate"] = "logits"
    """Part of the teacher's answers that is clustered."""
    site: Literal["logits", "penultimate"] = "logits"
    """Part of the student that is compensated."""
    attention: Literal["additive", "dot"] = "additive"
    """Form of the attention by which a prediction weighs the dictionary."""
    width: Annotated[int, Positive] = 256
    """Width of queries and keys."""
    components: Annotated[int, NotNegative] = 0
    """Number of principal components to cluster in; 0: all up to 16, else at most 64 with 95 % of
    all."""
    start: Literal["identity", "zero", "xavier"] = "identity"
    """Start of W_z; zero makes the first step the host's own."""
    train_confounder: bool = False
    """Training of W_z."""
    train_prediction: bool = False
    """A trained W_s for the student's own prediction too."""
    prior_scale: Literal["none", "count", "renormalize"] = "none"
    """Scale of the dictionary's weights: as they are, times its size, or divided by their sum."""
    first: Annotated[int, NotNegative] = 20
    """Number of epochs before the first dictionary, without compensation."""
    every: Annotated[int, NotNegative] = 20
    """Number of epochs from one dictionary to the next; 0: the first one stays."""
    ramp: Annotated[int, NotNegative] = 1
    """Number of epochs in which the compensation rises to its strength."""
    images: Annotated[int, Positive] = 10_000
    """Largest number of images that a dictionary is built from."""


@dataclass(frozen=True)
class StudentConfig:
    """SGD of the student, and of the compensation with it."""

    learning_rate: Annotated[float, Positive] = 0.1
    """Learning rate."""
    momentum: Annotated[float, Fraction] = 0.9
    """Share of the direction that a step keeps."""
    weight_decay: Annotated[float, NotNegative] = 1e-4
    """Weight decay."""
    clip_norm: Annotated[float, NotNegative] = 0.0
    """Largest norm of the gradient; a longer one is scaled down to it; 0: no limit."""
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    """Course of the learning rate over the run; steps: a tenth from 40 % on and again from 80 %."""
    final_learning_rate: Annotated[float, NotNegative] = 0.0
    """Learning rate at the end of the cosine."""
    batch_size: Annotated[int, Positive] = 256
    """Images a step, over all devices."""
    epochs: Annotated[int, Positive] = 200
    """Number of epochs; each begins with a synthesis where images are kept."""
    steps: Annotated[int, Positive] = 400
    """Steps of the student in an epoch."""
    temperature: Annotated[float, Positive] = 20.0
    """Temperature of the distillation."""
    augment: bool = True
    """Random crops of kept images from four pixels of padding, and random flips."""


@dataclass(frozen=True)
class TeacherConfig:
    """Training of the digits' teacher; other data sets bring theirs."""

    network: str = "mlp256_128"
    """Network of the teacher."""
    epochs: Annotated[int, Positive] = 167
    """Passes over the training part."""
    learning_rate: Annotated[float, Positive] = 2e-3
    """AdamW's learning rate, falling along a cosine."""
    weight_decay: Annotated[float, NotNegative] = 1e-3
    """Weight decay."""
    batch_size: Annotated[int, Positive] = 128
    """Images a step."""
    noise: Annotated[float, NotNegative] = 0.1
    """Deviation of the noise on images in [0, 1]."""


@dataclass(frozen=True)
class DfkdConfig:
    """A student distilled without the teacher's data."""

    host: HostName = "deepinv"
    """Data-free method from which images come."""
    kdci: bool = True
    """KDCI beside the host alone."""
    data: ImageConfig = field(default_factory=ImageConfig)
    teacher: str = ""
    """File of the teacher's weights: .pth, .safetensors or .npz; digits train theirs."""
    teacher_network: str = ""
    """Network of the teacher, such as wrn40_2; empty: as the weights' names and shapes say."""
    student: str = "wrn16_1"
    """Network of the student."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    compensation: KdciConfig = field(default_factory=KdciConfig)
    optimizer: StudentConfig = field(default_factory=StudentConfig)
    teacher_training: TeacherConfig = field(default_factory=TeacherConfig)
    skew: Annotated[float, Positive] = 1.0
    """Share of the last class over that of the first among the classes drawn; 1: all alike."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of the networks; auto: bfloat16 on accelerators, float32 on CPU."""
    seeds: Annotated[int, Positive] = 3
    """Number of seeds, trained in one program."""
    first_seed: Annotated[int, NotNegative] = 0
    """First seed; the others follow it."""
    ablate: bool = False
    """Every control of the table, not only the host with and without KDCI."""
    arms: tuple[str, ...] = ()
    """Rows of the table that are trained, by name; empty: all."""
    dump: str = ""
    """Folder for the images that are kept, a PNG each, of the first seed under KDCI."""


RENAMED = {
    "optimizer.rate": "optimizer.learning_rate",
    "optimizer.decay": "optimizer.weight_decay",
    "optimizer.clip": "optimizer.clip_norm",
    "optimizer.lowest": "optimizer.final_learning_rate",
    "optimizer.batch": "optimizer.batch_size",
    "synthesis.rate": "synthesis.learning_rate",
    "synthesis.latent_rate": "synthesis.latent_learning_rate",
    "synthesis.momentum": "synthesis.beta1",
    "synthesis.second_momentum": "synthesis.beta2",
    "synthesis.batch": "synthesis.batch_size",
    "synthesis.bn_momentum": "synthesis.ema_decay",
    "synthesis.accuracy": "synthesis.teacher_accuracy",
    "training.network": "teacher_training.network",
    "training.epochs": "teacher_training.epochs",
    "training.rate": "teacher_training.learning_rate",
    "training.decay": "teacher_training.weight_decay",
    "training.batch": "teacher_training.batch_size",
    "training.noise": "teacher_training.noise",
}
"""Fields by their names in version 0.1, and today's."""

_ADVERSARIAL = SynthesisConfig(latent=256, widths=(256, 128, 64), student_steps=5)
HOSTS: dict[str, SynthesisConfig] = {
    "deepinv": SynthesisConfig(
        learning_rate=0.1,
        beta2=0.99,
        steps=1000,
        class_prior=1.0,
        bn=10.0,
        adversarial=1.0,
        adversarial_temperature=3.0,
        variation=1e-3,
        jitter=4,
    ),
    "fast": SynthesisConfig(
        learning_rate=3e-3,
        latent_learning_rate=0.01,
        steps=5,
        class_prior=0.4,
        bn=10.0,
        adversarial=1.1,
        ema_decay=0.9,
        warmup=20,
        reset=120,
    ),
    "cmi": SynthesisConfig(steps=200, class_prior=1.0, bn=1.0, adversarial=0.5, contrast=0.8),
    "dafl": replace(_ADVERSARIAL, latent=512, class_prior=1.0, activation=1e-3, balance=20.0),
    "zskt": replace(_ADVERSARIAL, adversarial=1.0),
    "dfq": replace(
        _ADVERSARIAL, student_steps=10, adversarial=1.0, bn=1.0, class_prior=1.0, balance=20.0
    ),
    "dfad": replace(_ADVERSARIAL, adversarial=1.0),
    "mosaic": replace(
        _ADVERSARIAL,
        latent=100,
        adversarial=1.0,
        align=1.0,
        local=1.0,
        balance=10.0,
        log_base=2.0,
    ),
    "dfnd": SynthesisConfig(calls=1, teacher_accuracy=0.9523),
}
"""Published settings for 32 x 32 images (zju-vipa's benchmark, Fast-Datafree, MosaicKD, DFND)."""

_OPTIMIZERS = {
    "deepinv": StudentConfig(),
    "fast": StudentConfig(learning_rate=0.2, final_learning_rate=2e-4, epochs=220),
    "cmi": StudentConfig(),
    # the benchmark's scripts say 20 and its code replaces that by 1
    **dict.fromkeys(("dafl", "zskt", "dfq", "mosaic"), StudentConfig(temperature=1.0)),
    "dfad": StudentConfig(temperature=1.0, epochs=500, steps=50),
    "dfnd": StudentConfig(temperature=4.0, weight_decay=5e-4, schedule="steps"),
}

JOINT = SynthesisConfig(
    joint=True,
    learning_rate=0.02,
    beta1=0.9,
    latent=1000,
    tanh=True,
    epsilon=0.8,
    log_base=10.0,
    class_prior=0.05,
    activation=0.01,
    balance=5.0,
)
"""DAFL's own settings (huawei-noah) for CIFAR-10; `JOINT_WEIGHTS` has those of other data."""

JOINT_WEIGHTS: dict[str, dict[str, float]] = {
    "cifar100": {"class_prior": 0.5, "activation": 0.1, "balance": 20.0},
    "mnist": {"class_prior": 1.0, "activation": 0.1, "balance": 5.0},
}

_JOINT_OPTIMIZER = StudentConfig(
    weight_decay=5e-4,
    schedule="steps",
    batch_size=1024,
    epochs=2000,
    steps=120,
    temperature=1.0,
)


def presets(host: str, joint: bool = False) -> dict[str, DfkdConfig]:
    """Named runs of a host, the data sets; an unknown host is refused where options are read.

    Args:
        host: its name.
        joint: whether DAFL is to have its own step, and with it its own settings.
    """
    host = host if host in HOSTS else "deepinv"
    synthesis, optimizer = HOSTS[host], _OPTIMIZERS[host]
    joint &= host == "dafl"
    if joint:
        synthesis, optimizer = JOINT, _JOINT_OPTIMIZER
    # a pool is chosen once, so is its dictionary; else the images change with the student
    kdci = KdciConfig(first=0, every=0, ramp=0) if host == "dfnd" else KdciConfig()
    cifar = DfkdConfig(host=host, synthesis=synthesis, optimizer=optimizer, compensation=kdci)
    hundred = cifar
    if host == "dfnd":
        hundred = replace(cifar, synthesis=replace(synthesis, teacher_accuracy=0.7774))
    # DFND's code has no figure for teachers of these
    svhn = replace(cifar, synthesis=replace(synthesis, teacher_accuracy=0.0))
    large = replace(svhn, student="resnet18")
    if joint:
        hundred = replace(cifar, synthesis=replace(synthesis, **JOINT_WEIGHTS["cifar100"]))
        # the generators of larger images end in a sigmoid
        large = replace(large, synthesis=replace(hundred.synthesis, tanh=False))
    return {
        "digits": _digits(host, synthesis, optimizer),
        "cifar10": cifar,
        "cifar100": hundred,
        "svhn": replace(svhn, optimizer=replace(optimizer, augment=False)),
        "tiny_imagenet": replace(large, optimizer=replace(optimizer, batch_size=128)),
        "imagenet": replace(large, optimizer=replace(optimizer, batch_size=64)),
    }


def _digits(host: str, synthesis: SynthesisConfig, optimizer: StudentConfig) -> DfkdConfig:
    """8 x 8 digits, a teacher and a student that train in a minute; shares of classes skewed."""
    small = replace(synthesis, latent=32, widths=(32, 32, 32), keep=4_000)
    if synthesis.joint:
        # the digits' teacher sees pixels as they are, not those of a batch norm
        small = replace(small, **JOINT_WEIGHTS["mnist"], tanh=False)
    own = {
        "deepinv": replace(
            small,
            learning_rate=0.05,
            steps=100,
            calls=1,
            batch_size=200,
            bn=1.0,
            adversarial=0.0,
            variation=0.1,
            diagonals=False,
            start_mean=0.3,
            start_deviation=0.3,
            jitter=0,
        ),
        "fast": replace(small, batch_size=128, warmup=2, reset=0),
        "cmi": replace(small, batch_size=128, steps=30, bank=512, bank_draw=128),
        "dfnd": replace(small, select=400, teacher_accuracy=0.98),
    }
    return DfkdConfig(
        host=host,
        synthesis=own.get(host, replace(small, batch_size=128)),
        compensation=KdciConfig(
            prototypes=16,
            components=8,
            width=32,
            first=0,
            every=0 if host == "deepinv" else 2,
            ramp=0,
            images=2_000,
        ),
        optimizer=replace(
            optimizer,
            learning_rate=0.05,
            final_learning_rate=0.0,
            clip_norm=5.0,
            batch_size=128,
            epochs=10,
            steps=80,
            temperature=4.0,
            schedule="cosine",
            augment=False,
        ),
        student="mlp16",
        skew=0.005 if host == "deepinv" else 1.0,
        ablate=True,
    )
