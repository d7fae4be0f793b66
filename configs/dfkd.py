"""Runs of `python -m train.dfkd`: data-free distillation, with and without KDCI."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Finite, Fraction, NotNegative, Positive, Share

HostName = Literal["deepinv", "fast", "cmi", "dafl", "mosaic", "dfnd", "zskt", "dfq", "dfad"]


@dataclass(frozen=True)
class ImageConfig:
    """The files."""

    root: str = ""
    """Folder of the data set, on whose test part the student is evaluated; digits need none."""
    pool: str = ""
    """Folder of images for dfnd and mosaic, files or batches of CIFAR or ImageNet32, labels unused;
    digits: patches of two photographs."""
    labels: str = ""
    """ImageNet: file of labels of validation images that lie in one folder."""
    size: Annotated[int, NotNegative] = 0
    """Side in pixels to which the images of imagenet and folders are scaled and cut; 0: 224 and
    64."""
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

    @property
    def method(self) -> "Method":
        """What the host is."""
        return HOSTS[self.host]


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


@dataclass(frozen=True)
class Method:
    """A data-free method: how it comes by its images, and its published settings.

    Attributes:
        synthesis: how images are made or picked, 32 x 32 ones.
        optimizer: of the student.
        compensation: when KDCI's dictionary is built.
        keeps_images: images are kept, and a call an epoch adds to them; else new ones are made for
            every step.
        needs_pool: it needs unlabelled images of another domain.
        draws_classes: images are made of classes that are drawn, so that their shares can be
            chosen.
        has_generator: a network makes the images.
        plants_skew: its run on digits has a skew of classes planted, and a report that says what
            this costs and what KDCI wins back.
        by_data: preset -> fields of `synthesis` that differ there.
        joint: the same method with one step of generator and student together, or None.
    """

    synthesis: SynthesisConfig
    optimizer: StudentConfig = field(default_factory=StudentConfig)
    compensation: KdciConfig = field(default_factory=KdciConfig)
    keeps_images: bool = False
    needs_pool: bool = False
    draws_classes: bool = False
    has_generator: bool = True
    plants_skew: bool = False
    by_data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    joint: "Method | None" = None

    @property
    def selects_images(self) -> bool:
        """Whether its images are those of the pool of which the teacher is surest, taken once."""
        return self.needs_pool and self.keeps_images

    @property
    def passes_over_pool(self) -> bool:
        """Whether every step takes a batch of the pool, which the student is shown too."""
        return self.needs_pool and not self.keeps_images


_DIGITS = {"latent": 32, "widths": (32, 32, 32), "keep": 4_000}
_BATCH = {**_DIGITS, "batch_size": 128}
_ADVERSARIAL = SynthesisConfig(latent=256, widths=(256, 128, 64), student_steps=5)
# the benchmark's scripts say 20 and its code replaces that by 1
_IN_TURN = StudentConfig(temperature=1.0)

_JOINT_100 = {"class_prior": 0.5, "activation": 0.1, "balance": 20.0}
# the generators of larger images end in a sigmoid
_JOINT_LARGE = {**_JOINT_100, "tanh": False}

# DFND's code has figures for CIFAR alone
_UNKNOWN_TEACHER = {"teacher_accuracy": 0.0}

_JOINT = Method(
    SynthesisConfig(
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
    ),
    StudentConfig(
        weight_decay=5e-4,
        schedule="steps",
        batch_size=1024,
        epochs=2000,
        steps=120,
        temperature=1.0,
    ),
    by_data={
        # MNIST's weights; the digits' teacher sees pixels as they are, not those of a batch norm
        "digits": {
            **_BATCH,
            "class_prior": 1.0,
            "activation": 0.1,
            "balance": 5.0,
            "tanh": False,
        },
        "cifar100": _JOINT_100,
        "tiny_imagenet": _JOINT_LARGE,
        "imagenet": _JOINT_LARGE,
        "folders": _JOINT_LARGE,
    },
)
"""DAFL's own step and settings (huawei-noah), for CIFAR-10."""

HOSTS: dict[str, Method] = {
    "deepinv": Method(
        SynthesisConfig(
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
        keeps_images=True,
        draws_classes=True,
        has_generator=False,
        plants_skew=True,
        by_data={
            "digits": {
                **_DIGITS,
                "learning_rate": 0.05,
                "steps": 100,
                "calls": 1,
                "batch_size": 200,
                "bn": 1.0,
                "adversarial": 0.0,
                "variation": 0.1,
                "diagonals": False,
                "start_mean": 0.3,
                "start_deviation": 0.3,
                "jitter": 0,
            }
        },
    ),
    "fast": Method(
        SynthesisConfig(
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
        StudentConfig(learning_rate=0.2, final_learning_rate=2e-4, epochs=220),
        keeps_images=True,
        draws_classes=True,
        by_data={"digits": {**_BATCH, "warmup": 2, "reset": 0}},
    ),
    "cmi": Method(
        SynthesisConfig(steps=200, class_prior=1.0, bn=1.0, adversarial=0.5, contrast=0.8),
        keeps_images=True,
        draws_classes=True,
        by_data={"digits": {**_BATCH, "steps": 30, "bank": 512, "bank_draw": 128}},
    ),
    "dafl": Method(
        replace(_ADVERSARIAL, latent=512, class_prior=1.0, activation=1e-3, balance=20.0),
        _IN_TURN,
        by_data={"digits": _BATCH},
        joint=_JOINT,
    ),
    "zskt": Method(replace(_ADVERSARIAL, adversarial=1.0), _IN_TURN, by_data={"digits": _BATCH}),
    "dfq": Method(
        replace(
            _ADVERSARIAL, student_steps=10, adversarial=1.0, bn=1.0, class_prior=1.0, balance=20.0
        ),
        _IN_TURN,
        by_data={"digits": _BATCH},
    ),
    "dfad": Method(
        replace(_ADVERSARIAL, adversarial=1.0),
        StudentConfig(temperature=1.0, epochs=500, steps=50),
        by_data={"digits": _BATCH},
    ),
    "mosaic": Method(
        replace(
            _ADVERSARIAL,
            latent=100,
            adversarial=1.0,
            align=1.0,
            local=1.0,
            balance=10.0,
            log_base=2.0,
        ),
        _IN_TURN,
        needs_pool=True,
        by_data={"digits": _BATCH},
    ),
    "dfnd": Method(
        SynthesisConfig(calls=1, teacher_accuracy=0.9523),
        StudentConfig(temperature=4.0, weight_decay=5e-4, schedule="steps"),
        # images are chosen once, so is their dictionary; elsewhere they change with the student
        KdciConfig(first=0, every=0, ramp=0),
        keeps_images=True,
        needs_pool=True,
        has_generator=False,
        by_data={
            "digits": {**_DIGITS, "select": 400, "teacher_accuracy": 0.98},
            "cifar100": {"teacher_accuracy": 0.7774},
            "svhn": _UNKNOWN_TEACHER,
            "tiny_imagenet": _UNKNOWN_TEACHER,
            "imagenet": _UNKNOWN_TEACHER,
            "folders": _UNKNOWN_TEACHER,
        },
    ),
}
"""Methods with their published settings (zju-vipa's benchmark, Fast-Datafree, MosaicKD, DFND)."""


def hosts_that(hold: Callable[[Method], bool]) -> str:
    """Names of the hosts of which something holds, for messages."""
    return ", ".join(name for name, method in HOSTS.items() if hold(method))


def presets(host: str, joint: bool = False) -> dict[str, DfkdConfig]:
    """Named runs of a host: the data sets.

    Args:
        host: its name.
        joint: whether the host is to have its step of generator and student together, and with it
            other settings; a host that has none keeps its own.

    Raises:
        InputError: no such host.
    """
    if host not in HOSTS:
        raise InputError(f"--host {host}: no such method; choose from {', '.join(HOSTS)}")
    method = HOSTS[host]
    if joint:
        method = method.joint or method

    def run(data: str, **changes: Any) -> DfkdConfig:
        optimizer = replace(method.optimizer, **changes)
        synthesis = replace(method.synthesis, **method.by_data.get(data, {}))
        return DfkdConfig(
            host=host,  # type: ignore[arg-type]
            synthesis=synthesis,
            optimizer=optimizer,
            compensation=method.compensation,
        )

    return {
        "digits": _digits(run("digits"), method.plants_skew),
        "cifar10": run("cifar10"),
        "cifar100": run("cifar100"),
        "svhn": run("svhn", augment=False),
        "tiny_imagenet": replace(run("tiny_imagenet", batch_size=128), student="resnet18"),
        "imagenet": replace(run("imagenet", batch_size=64), student="resnet18"),
        "folders": replace(run("folders", batch_size=128), student="resnet18"),
    }


def _digits(run: DfkdConfig, skewed: bool) -> DfkdConfig:
    """8 x 8 digits, a teacher and a student that train in a minute."""
    return replace(
        run,
        compensation=KdciConfig(
            prototypes=16,
            components=8,
            width=32,
            first=0,
            # the images with the planted skew are made once
            every=0 if skewed else 2,
            ramp=0,
            images=2_000,
        ),
        optimizer=replace(
            run.optimizer,
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
        skew=0.005 if skewed else 1.0,
        ablate=True,
    )
