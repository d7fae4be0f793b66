"""Settings of a data-free distillation checked, its files read, and what follows from both."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.dfkd import DfkdConfig, hosts_that
from corrkd_jax.data import images
from corrkd_jax.data.digits import read_patches
from corrkd_jax.data.image_set import ImageSet
from corrkd_jax.errors import InputError
from train.datafree.arms import arms
from train.engine import cli, parallel
from train.engine.feed import Feed, released
from train.engine.pipeline import FROZEN
from train.engine.progress import Bar, say
from train.images import pretrained


def check(preset: str, config: DfkdConfig) -> None:
    """Refuse settings that cannot run, before anything is read.

    Raises:
        InputError: names the option and what would do.
    """
    optimizer, synthesis, kdci = config.optimizer, config.synthesis, config.compensation
    method = config.method
    cli.require_seeds(config.first_seed, config.seeds)
    # how large the dictionary is changes no row's name
    arms(config, prototypes=1)
    if synthesis.log_base == 1:
        raise InputError("--synthesis.log-base 1: is the base of no logarithm")
    if optimizer.final_learning_rate > optimizer.learning_rate:
        raise InputError(
            f"--optimizer.final-learning-rate {optimizer.final_learning_rate}: must lie between 0 "
            f"and --optimizer.learning-rate {optimizer.learning_rate}"
        )
    if method.selects_images and not 0 < synthesis.teacher_accuracy < 1:
        raise InputError(
            f"--synthesis.teacher-accuracy {synthesis.teacher_accuracy:g}: give the teacher's, "
            "between 0 and 1, as measured on labelled images held out of its training and of the "
            "test set"
        )
    if config.skew != 1 and not method.draws_classes:
        raise InputError(
            f"--skew {config.skew}: {config.host} draws no classes; only "
            f"{hosts_that(lambda other: other.draws_classes)} do"
        )
    if not method.keeps_images and optimizer.steps % synthesis.student_steps:
        raise InputError(
            f"--optimizer.steps {optimizer.steps}: not a multiple of --synthesis.student-steps "
            f"{synthesis.student_steps}"
        )
    if synthesis.joint and method.joint is None:
        raise InputError(
            f"--synthesis.joint: is a step of {hosts_that(lambda other: other.joint is not None)}, "
            f"not of {config.host}"
        )
    if synthesis.joint and (synthesis.steps, synthesis.student_steps) != (1, 1):
        raise InputError(
            "--synthesis.joint: is one step of both; leave --synthesis.steps and "
            "--synthesis.student-steps at 1"
        )
    if synthesis.joint and synthesis.adversarial:
        raise InputError(
            f"--synthesis.adversarial {synthesis.adversarial}: with --synthesis.joint the student "
            "would learn it too; leave it at 0"
        )
    if synthesis.tanh and method.keeps_images:
        raise InputError(
            f"--synthesis.tanh: {config.host} keeps images as bytes, and such a generator makes "
            "none; add --synthesis.no-tanh"
        )
    if (batch := synthesis.batch_size or optimizer.batch_size) > synthesis.keep:
        raise InputError(f"--synthesis.keep {synthesis.keep}: a call alone makes {batch} images")
    if config.kdci and kdci.first >= optimizer.epochs:
        raise InputError(
            f"--compensation.first {kdci.first}: there would be no dictionary in "
            f"{optimizer.epochs} epochs; choose an earlier one"
        )
    if config.data.feed == "grain" and not method.needs_pool:
        raise InputError(
            f"--data.feed grain: {config.host} reads no pool; only "
            f"{hosts_that(lambda other: other.needs_pool)} do"
        )
    if config.data.feed == "grain" and not config.teacher:
        raise InputError("--data.feed grain: give the teacher's weights with --teacher FILE")
    if config.dump and not method.keeps_images:
        raise InputError(f"--dump {config.dump}: {config.host} keeps no images")
    if config.dump and any(Path(config.dump).glob("*.png")):
        raise InputError(f"--dump {config.dump}: holds images already; name another folder")
    if kdci.start == "zero" and not kdci.train_confounder and config.kdci and not config.ablate:
        raise InputError(
            "--compensation.start zero: W_z would stay zero; add --compensation.train-confounder"
        )
    if config.data.size and preset not in images.SIDES:
        raise InputError(
            f"--data.size {config.data.size}: {preset} has a size of its own; only "
            f"{', '.join(images.SIDES)} are scaled"
        )
    if preset != "digits":
        if not config.data.root:
            raise InputError(f"{preset}: give the folder of its files with --data.root DIR")
        if not config.teacher:
            raise InputError("give the teacher's weights with --teacher FILE")
        if method.needs_pool and not config.data.pool:
            raise InputError(
                f"--host {config.host}: give a folder of unlabelled images with --data.pool DIR"
            )


class Loaded(NamedTuple):
    """What a run reads.

    Attributes:
        train: the teacher's own data, where it is to be trained; else None.
        test: images on which the student is evaluated.
        pool: images of another domain, or None.
        teacher: from a file, or None.
    """

    train: ImageSet | None
    test: ImageSet
    pool: ImageSet | None
    teacher: pretrained.Pretrained | None


def load(preset: str, config: DfkdConfig) -> Loaded:
    """Read the files of a configuration and check that they fit each other.

    Raises:
        InputError: see `corrkd_jax.data.images`, `train.images.pretrained`; a teacher or a pool of
            other classes, channels or sizes.
    """
    digits = preset == "digits"
    data = config.data
    test = images.read(preset, data.root, "test", labels=data.labels, size=data.size)
    train = None
    if digits and not config.teacher:
        train = images.read(preset, config.data.root, "train")
    side, channels = test.images.shape[2:]
    pool = None
    if config.method.needs_pool:
        pool = read_patches() if digits and not config.data.pool else None
        pool = pool or images.read_pool(config.data.pool, side, channels)
    for read in (test, pool):
        for note in read.notes if read else ():
            say(f"{read.source}: {note}")
    teacher = None
    if config.teacher:
        teacher = pretrained.load(
            config.teacher, config.teacher_network, len(test.classes), "--teacher-network"
        )
        if teacher.channels != channels:
            raise InputError(
                f"{config.teacher}: takes images of {teacher.channels} channels, {test.source} "
                f"has {channels}"
            )
        if teacher.network.startswith("resnet") and (teacher.side >= 128) != (side >= 128):
            raise InputError(
                f"{config.teacher}: is made for images of {teacher.side} pixels, {test.source} "
                f"has {side}"
            )
    return Loaded(train, test, pool, teacher)


def release(loaded: Loaded) -> Loaded:
    """The same with a single image of all sets but test, and without a teacher's weights."""
    read = {name: x for name in ("train", "pool") if (x := getattr(loaded, name)) is not None}
    teacher = loaded.teacher and replace(loaded.teacher, variables={})
    return loaded._replace(**released(read), teacher=teacher)


def turns_an_epoch(config: DfkdConfig, loaded: Loaded) -> int:
    """Steps of the engine an epoch.

    Raises:
        InputError: a pool that is passed over batch by batch does not fill one.
    """
    optimizer = config.optimizer
    if config.method.passes_over_pool:
        if len(loaded.pool) < optimizer.batch_size:
            raise InputError(
                f"--optimizer.batch-size {optimizer.batch_size}: {loaded.pool.source} has only "
                f"{len(loaded.pool)} images"
            )
        return len(loaded.pool) // optimizer.batch_size
    return optimizer.steps // (1 if config.method.keeps_images else config.synthesis.student_steps)


def places_for(config: DfkdConfig, loaded: Loaded) -> int:
    """Places for images, of hosts that keep them: for as many as will be made or taken.

    Raises:
        InputError: DFND is to take more images than there are.
    """
    settings = config.synthesis
    if config.method.selects_images:
        count = settings.select or max(len(loaded.pool) // 10, 1)
        if count > len(loaded.pool):
            raise InputError(
                f"--synthesis.select {count}: {loaded.pool.source} has only {len(loaded.pool)} "
                "images"
            )
        return count
    calls = min(settings.calls or config.optimizer.epochs, config.optimizer.epochs)
    return min(calls * (settings.batch_size or config.optimizer.batch_size), settings.keep)


def prototypes(config: DfkdConfig, loaded: Loaded, places: int) -> int:
    """Size of the dictionary.

    Args:
        config: of the run.
        loaded: what it reads.
        places: for images that are kept.

    Raises:
        InputError: a dictionary would be built from fewer images than it has prototypes, or of a
            pool that holds fewer.
    """
    kdci, settings, classes = config.compensation, config.synthesis, len(loaded.test.classes)
    count = kdci.prototypes or (512 if classes >= 1000 else 256 if classes >= 100 else 64)
    images = kdci.images
    if config.kdci and config.method.needs_pool:
        usable = places if config.method.selects_images else len(loaded.pool)
        if usable < count:
            raise InputError(
                f"--compensation.prototypes {count}: only {usable} images of {loaded.pool.source} "
                "are used; take fewer prototypes, or more images"
            )
    if config.method.selects_images:
        images = min(images, places)
    elif config.method.keeps_images:
        calls = min(settings.calls or config.optimizer.epochs, kdci.first + 1)
        images = min(images, places, calls * (settings.batch_size or config.optimizer.batch_size))
    if config.kdci and images < count:
        raise InputError(
            f"--compensation.prototypes {count}: the first dictionary is built from {images} "
            "images; take fewer prototypes, or build it later with --compensation.first"
        )
    if config.kdci and images < 8 * count:
        say(f"{count} prototypes of {images} images: eight images or more for each are advisable")
    return count


def streamed(config: DfkdConfig, loaded: Loaded) -> bool:
    """Whether the pool is read from disk rather than put on the device."""
    if loaded.pool is None or loaded.teacher is None or config.data.feed == "device":
        return False
    bytes_ = loaded.pool.nbytes + loaded.test.nbytes
    return config.data.feed == "grain" or bytes_ > parallel.memory() / 2


def surest(
    config: DfkdConfig, pool: ImageSet, count: int, ask: Callable[[np.ndarray], np.ndarray]
) -> ImageSet:
    """Those images of a pool on disk of which the teacher is surest, in that order.

    Several threads read ahead of the teacher, which `predict` does not: a pool may be a million
    files to decode.

    Args:
        config: of the run.
        pool: of the run.
        count: how many.
        ask: `[n, height, width, channels]` uint8 -> `[n]`, how sure the teacher is.
    """
    import grain

    block = min(config.optimizer.batch_size, len(pool))
    calls = -(-len(pool) // block)

    def read(call: int) -> np.ndarray:
        rows = np.minimum(np.arange(call * block, (call + 1) * block), len(pool) - 1)
        return np.asarray(pool.images[rows])

    options = grain.ReadOptions(config.data.threads, 2 * config.data.threads)
    sure = []
    with Bar(len(pool), unit="images") as bar:
        for images in grain.MapDataset.range(calls).map(read).to_iter_dataset(options):
            sure.append(ask(images))
            bar.update(min(block * len(sure), len(pool)), "asking the teacher")
    order = np.argsort(-np.concatenate(sure)[: len(pool)], kind="stable")[:count]
    return ImageSet(np.asarray(pool.images[order]), None, (), pool.source)


def feed_of(config: DfkdConfig, loaded: Loaded, seeds: Sequence[int]) -> Feed | None:
    """What reads a streamed pool batch by batch, for a host that passes over it."""
    if not config.method.passes_over_pool or not streamed(config, loaded):
        return None
    return Feed({"pool": loaded.pool}, seeds, config.data.threads)


def sets(config: DfkdConfig, loaded: Loaded) -> dict[str, Any]:
    """Data as the engine takes them."""
    rows = turns_an_epoch(config, loaded) * config.optimizer.batch_size
    # an epoch has as many steps as these rows make batches; the images come from the host
    data: dict[str, Any] = {
        "valid": loaded.test.take(),
        "steps": {"row": np.ones(rows, np.float32)},
    }
    if loaded.train is not None:
        data["train"] = loaded.train.take()
    if loaded.pool is not None:
        rows = slice(None)
        if config.method.passes_over_pool and streamed(config, loaded):
            count = max(config.optimizer.batch_size, config.compensation.images)
            count = min(count, len(loaded.pool))
            rows = np.random.default_rng(0).choice(len(loaded.pool), count, replace=False)
        data["pool"] = loaded.pool.take(rows)
    if loaded.teacher is not None:
        data[FROZEN] = {"teacher": loaded.teacher.variables}
    return data
