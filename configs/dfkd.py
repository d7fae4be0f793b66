"""Runs of `python -m train.dfkd`: data-free distillation, with and without KDCI."""

from dataclasses import dataclass, field, replace
from typing import Literal

HostName = Literal["deepinv", "fast", "cmi", "dafl", "mosaic", "dfnd", "zskt", "dfq", "dfad"]

POOLED = ("deepinv", "fast", "cmi", "dfnd")
"""Hosts whose images are kept; the others make new ones for every step."""

OUTSIDE = ("dfnd", "mosaic")
"""Hosts that need a pool of unlabelled images of another domain."""

TARGETED = ("deepinv", "fast", "cmi")
"""Hosts that make images of classes that are drawn, so that their shares can be chosen."""


@dataclass(frozen=True)
class ImageConfig:
    """Which files."""

    root: str = ""
    """Folder of the data set; its test part judges the student. Digits need none."""
    pool: str = ""
    """Folder of images for dfnd and mosaic, files or batches of CIFAR or ImageNet32, labels unused;
    digits: patches of two photographs."""
    labels: str = ""
    """ImageNet: labels of validation files that lie in one folder."""
    feed: Literal["auto", "device", "grain"] = "auto"
    """The pool of dfnd and mosaic. device: it lives on the device; grain: it is read from disk,
    batch by batch; auto: what fits."""
    threads: int = 4
    """Reading threads when the pool is read from disk."""


@dataclass(frozen=True)
class SynthesisConfig:
    """How the host makes or picks its images; the defaults shown are the chosen host's."""

    rate: float = 1e-3
    """Adam's learning rate of the generator, or of the images themselves (deepinv)."""
    latent_rate: float = 1e-3
    """Learning rate of the latents (cmi, fast)."""
    momentum: float = 0.5
    """Adam's first decay."""
    second_momentum: float = 0.999
    """Adam's second decay."""
    steps: int = 1
    """Descents of a call (deepinv, cmi, fast) or generator steps before the student's turn."""
    student_steps: int = 1
    """Student steps on new images after the generator's turn; of the hosts that keep no images."""
    joint: bool = False
    """dafl: generator and student take one step together, on the same images, as in DAFL's own
    code, whose settings are then the defaults; else they take turns, as in zju-vipa's benchmark."""
    calls: int = 0
    """Epochs that begin with a call for a batch of images; 0: all."""
    latent: int = 256
    """Length of a latent."""
    widths: tuple[int, int, int] = (128, 128, 64)
    """Channels of the generator at a quarter, half and the full size of the images."""
    tanh: bool = False
    """The generator has biases and ends in tanh and a batch norm, as DAFL's own and DFAD's: what it
    makes is normalised already (hosts that keep no images); else it ends in a sigmoid."""
    epsilon: float = 1e-5
    """Added to the variance in the generator's inner batch norms; DAFL's own code has 0.8."""
    batch: int = 0
    """Images of a call; 0: as many as --optimizer.batch."""
    keep: int = 60_000
    """Most images that are kept; then the oldest give way."""
    select: int = 0
    """dfnd: how many images of the pool to take, the surest ones; 0: a tenth."""
    class_prior: float = 0.0
    """Weight of the cross-entropy with a class."""
    bn: float = 0.0
    """Weight of the distance to the teacher's batch norm statistics."""
    adversarial: float = 0.0
    """Weight of what the student gets wrong."""
    adversarial_temperature: float = 1.0
    """Temperature of that divergence. zju-vipa's scripts say 20, but the published figures of zskt,
    dfq and mosaic were made at 1; deepinv has DeepInversion's 3; fast, cmi and dfad use none."""
    reverse: bool = True
    """deepinv: of the Jensen-Shannon divergence, KL(mean || answer), as its published code computes
    it by torch's order of arguments; else the textbook's KL(answer || mean)."""
    activation: float = 0.0
    """Weight of the teacher's features' magnitude."""
    balance: float = 0.0
    """Weight of all classes alike in a batch."""
    log_base: float = 2.718281828459045
    """Base of the logarithm in balance: 10 in DAFL's own code, 2 in MosaicKD's, else e."""
    variation: float = 0.0
    """Weight of the total variation of images."""
    diagonals: bool = True
    """Total variation also along both diagonals."""
    norm: float = 0.0
    """Weight of the norm of images (deepinv)."""
    contrast: float = 0.0
    """Weight of CMI's contrast of images with each other."""
    contrast_temperature: float = 0.2
    """Temperature of that contrast."""
    bank: int = 40_960
    """Descriptors that CMI remembers."""
    bank_draw: int = 4_096
    """Descriptors of the memory that a step is contrasted with."""
    align: float = 0.0
    """Weight of the teacher's certainty (mosaic)."""
    local: float = 0.0
    """Weight of patches that pass for real ones (mosaic)."""
    bn_momentum: float = 0.0
    """Share of earlier calls in the statistics that bn compares (fast)."""
    meta: Literal["fomaml", "reptile"] = "fomaml"
    """How fast's generator learns from the descents of its copies."""
    warmup: int = 0
    """Calls before adversarial counts (fast); the student waits as many epochs."""
    reset: int = 0
    """Calls after the warm-up when fast draws its generator's first layer anew; 0: never."""
    start_mean: float = 0.0
    """Mean of the noise that deepinv starts from, of normalised images."""
    start_deviation: float = 1.0
    """Its deviation."""
    jitter: int = 0
    """Pixels by which deepinv rolls the batch to and fro, with a random flip."""
    accuracy: float = 0.0
    """dfnd: of the teacher; the diagonal of the noise matrix. Its code has a figure for CIFAR-10's
    and for CIFAR-100's; other teachers' must be given (0: not yet)."""


@dataclass(frozen=True)
class KdciConfig:
    """The compensation of the student's prediction."""

    prototypes: int = 0
    """Size of the dictionary; 0: 64, 256 from 100 classes on, 512 from 1000 on."""
    feature: Literal["logits", "softmax", "penultimate"] = "logits"
    """What of the teacher's answers is clustered."""
    site: Literal["logits", "penultimate"] = "logits"
    """What of the student is compensated."""
    attention: Literal["additive", "dot"] = "additive"
    """How a prediction weighs the dictionary."""
    width: int = 256
    """Width of queries and keys."""
    components: int = 0
    """Principal components to cluster in; 0: all up to 16, else at most 64 with 95 % of all."""
    start: Literal["identity", "zero", "xavier"] = "identity"
    """W_z at the beginning; zero makes the first step the host's own."""
    train_confounder: bool = False
    """Train W_z."""
    train_prediction: bool = False
    """Give the student's own prediction a trained W_s too."""
    prior_scale: Literal["none", "count", "renormalize"] = "none"
    """Weights of the dictionary as they are, times its size, or divided by their sum."""
    first: int = 20
    """Epochs before the first dictionary, without compensation."""
    every: int = 20
    """Epochs from one dictionary to the next; 0: the first one stays."""
    ramp: int = 1
    """Epochs in which the compensation rises to its strength."""
    images: int = 10_000
    """Most images that a dictionary is built from."""


@dataclass(frozen=True)
class StudentConfig:
    """SGD of the student, and of the compensation with it."""

    rate: float = 0.1
    """Learning rate."""
    momentum: float = 0.9
    """Share of the direction that a step keeps."""
    decay: float = 1e-4
    """Weight decay."""
    clip: float = 0.0
    """Gradients longer than this are scaled down to it; 0: none are."""
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    """Learning rate over the run; steps: a tenth from 40 % on and again from 80 %."""
    lowest: float = 0.0
    """Learning rate at the end of the cosine."""
    batch: int = 256
    """Images a step, over all devices."""
    epochs: int = 200
    """Epochs; each begins with a synthesis where images are kept."""
    steps: int = 400
    """Student steps an epoch."""
    temperature: float = 20.0
    """Of the distillation."""
    augment: bool = True
    """Crop kept images at random from four pixels of padding, and flip them."""


@dataclass(frozen=True)
class TeacherConfig:
    """Training of the digits' teacher; other data sets bring theirs."""

    network: str = "mlp256_128"
    """Its network."""
    epochs: int = 167
    """Passes over the training part."""
    rate: float = 2e-3
    """AdamW's learning rate, falling along a cosine."""
    decay: float = 1e-3
    """Weight decay."""
    batch: int = 128
    """Images a step."""
    noise: float = 0.1
    """Deviation of the noise on images in [0, 1]."""


@dataclass(frozen=True)
class DfkdConfig:
    """Distil a student without the teacher's data."""

    host: HostName = "deepinv"
    """Where images come from."""
    kdci: bool = True
    """Train the host with KDCI beside the host alone."""
    data: ImageConfig = field(default_factory=ImageConfig)
    teacher: str = ""
    """File of the teacher's weights: .pth, .safetensors or .npz; digits train theirs."""
    teacher_network: str = ""
    """Its network, such as wrn40_2; empty: as the weights' names and shapes say."""
    student: str = "wrn16_1"
    """The student's network."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    compensation: KdciConfig = field(default_factory=KdciConfig)
    optimizer: StudentConfig = field(default_factory=StudentConfig)
    training: TeacherConfig = field(default_factory=TeacherConfig)
    skew: float = 1.0
    """Share of the last class over that of the first among the classes drawn; 1: all alike."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of the networks; auto: bfloat16 on accelerators, float32 on CPU."""
    seeds: int = 3
    """Number of seeds, trained in one program."""
    first_seed: int = 0
    """Seeds are this, this + 1, ..."""
    ablate: bool = False
    """Train every control of the table, not only the host with and without KDCI."""
    arms: tuple[str, ...] = ()
    """Only these rows of the table, by name."""
    dump: str = ""
    """Folder for the images that are kept, a PNG each, of the first seed under KDCI."""


_ADVERSARIAL = SynthesisConfig(latent=256, widths=(256, 128, 64), student_steps=5)
HOSTS: dict[str, SynthesisConfig] = {
    "deepinv": SynthesisConfig(
        rate=0.1,
        second_momentum=0.99,
        steps=1000,
        class_prior=1.0,
        bn=10.0,
        adversarial=1.0,
        adversarial_temperature=3.0,
        variation=1e-3,
        jitter=4,
    ),
    "fast": SynthesisConfig(
        rate=3e-3,
        latent_rate=0.01,
        steps=5,
        class_prior=0.4,
        bn=10.0,
        adversarial=1.1,
        bn_momentum=0.9,
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
    "dfnd": SynthesisConfig(calls=1, accuracy=0.9523),
}
"""Published settings for 32 x 32 images (zju-vipa's benchmark, Fast-Datafree, MosaicKD, DFND)."""

_OPTIMIZERS = {
    "deepinv": StudentConfig(),
    "fast": StudentConfig(rate=0.2, lowest=2e-4, epochs=220),
    "cmi": StudentConfig(),
    # the benchmark's scripts say 20 and its code replaces that by 1
    **dict.fromkeys(("dafl", "zskt", "dfq", "mosaic"), StudentConfig(temperature=1.0)),
    "dfad": StudentConfig(temperature=1.0, epochs=500, steps=50),
    "dfnd": StudentConfig(temperature=4.0, decay=5e-4, schedule="steps"),
}

JOINT = SynthesisConfig(
    joint=True,
    rate=0.02,
    momentum=0.9,
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
    decay=5e-4, schedule="steps", batch=1024, epochs=2000, steps=120, temperature=1.0
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
        hundred = replace(cifar, synthesis=replace(synthesis, accuracy=0.7774))
    # DFND's code has no figure for teachers of these
    svhn = replace(cifar, synthesis=replace(synthesis, accuracy=0.0))
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
        "tiny_imagenet": replace(large, optimizer=replace(optimizer, batch=128)),
        "imagenet": replace(large, optimizer=replace(optimizer, batch=64)),
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
            rate=0.05,
            steps=100,
            calls=1,
            batch=200,
            bn=1.0,
            adversarial=0.0,
            variation=0.1,
            diagonals=False,
            start_mean=0.3,
            start_deviation=0.3,
            jitter=0,
        ),
        "fast": replace(small, batch=128, warmup=2, reset=0),
        "cmi": replace(small, batch=128, steps=30, bank=512, bank_draw=128),
        "dfnd": replace(small, select=400, accuracy=0.98),
    }
    return DfkdConfig(
        host=host,
        synthesis=own.get(host, replace(small, batch=128)),
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
            rate=0.05,
            lowest=0.0,
            clip=5.0,
            batch=128,
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
