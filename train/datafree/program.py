"""`python -m train.dfkd`: distil a student without the teacher's data, de-confounded by KDCI.

python -m train.dfkd                                   real digits, skewed substitution data
python -m train.dfkd cifar10 --host fast --data.root DIR --teacher wrn40_2.pth --student wrn16_1
python -m train.dfkd digits --host dfnd                another host on the digits
python -m train.dfkd cifar10 --host dafl --synthesis.joint ...     DAFL's own step and schedule
"""

import dataclasses
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.dfkd import RENAMED, DfkdConfig, presets
from corrkd_jax.data import images
from corrkd_jax.errors import InputError
from corrkd_jax.losses.selection import confidence
from corrkd_jax.models.backbones import named
from train.datafree import hosts, pictures, report, trained
from train.datafree.arms import arms, pictured
from train.datafree.distilling import Distilling, DistillStage
from train.datafree.hosts.networks import Networks, build_student
from train.datafree.inputs import (
    Loaded,
    check,
    feed_of,
    kept,
    load,
    prototypes,
    release,
    sets,
    streamed,
    surest,
    turns_an_epoch,
)
from train.datafree.report import Results
from train.engine import cli, parallel
from train.engine.loop import run
from train.engine.parallel import compute_dtype
from train.engine.pipeline import Pipeline, Track
from train.engine.progress import Bar, say
from train.engine.stage import Lanes, Stage, lanes_for, vectorized
from train.engine.workdir import METRICS, Workdir, fresh_folder
from train.images.image_teacher import TeacherStage
from train.images.normalization import doubt, first_gap

NAME = "dfkd"


def main(argv: Sequence[str]) -> None:
    """Train teacher (where none is given) and students, evaluate, report."""
    # defaults depend on the host, and on whether DAFL takes its own step
    defaults = presets(_host(argv) or "deepinv", "--synthesis.joint" in argv)
    preset, config, options = cli.parse(
        argv, "python -m train.dfkd", (__doc__ or "").split("\n\n")[0], defaults, RENAMED
    )
    check(preset, config)
    parallel.connect(options.coordinator, options.processes, options.process_id)
    folder = options.workdir or fresh_folder(f"dfkd-{preset}-{config.host}")
    train(preset, config, options, Path(folder))


def _host(argv: Sequence[str]) -> str:
    """The value of `--host`, on which the defaults depend; of several the last, as options go."""
    host = ""
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--host":
            host = value if equals else "".join(argv[number + 1 : number + 2])
    return host


def build(preset: str, config: DfkdConfig, loaded: Loaded, layout: parallel.Layout) -> list[Any]:
    """The stages' owners in training order: the teacher's, if it is trained, and the student's."""
    side, channels = loaded.test.images.shape[2:]
    classes, dtype = len(loaded.test.classes), compute_dtype(config.dtype)
    axis_name = layout.axis_name
    name = loaded.teacher.network if loaded.teacher else config.teacher_training.network
    normalization = loaded.teacher and loaded.teacher.normalization
    generator, latent = hosts.build_generator(config, side, channels, axis_name, dtype)
    networks = Networks(
        teacher=named.build(name, classes, side, axis_name, dtype).network,
        student=build_student(config, classes, side, axis_name, dtype),
        generator=generator,
        normalization=normalization or images.NORMALIZATIONS[preset],
        latent=latent,
        side=side,
        channels=channels,
        classes=classes,
        axis_name=axis_name,
    )
    image = jnp.zeros((1, side, side, channels))
    for option, network in (
        ("--student " + config.student, networks.student.backbone),
        ("the teacher, " + name, networks.teacher),
    ):
        try:
            jax.eval_shape(network.init, jax.random.key(0), image)
        except ValueError as error:
            raise InputError(f"{option}: {error}") from error
    _, features = jax.eval_shape(networks.teacher.init_with_output, jax.random.key(0), image)[0]
    kdci = config.compensation
    width = features.shape[-1] if kdci.feature == "penultimate" else classes
    if kdci.components > width:
        raise InputError(
            f"--compensation.components {kdci.components}: the teacher's {kdci.feature} have only "
            f"{width}; take as many or fewer"
        )
    count = config.synthesis.batch_size or config.optimizer.batch_size
    if count % layout.shards:
        raise InputError(
            f"--synthesis.batch-size {count}: does not divide among {layout.shards} devices; "
            "choose a multiple, or fewer with --devices"
        )
    turns, places = turns_an_epoch(config, loaded), kept(config, loaded)
    student = DistillStage(
        config,
        networks,
        hosts.build(config, networks, config.optimizer.epochs * turns, places),
        prototypes(config, loaded, places),
        turns * (1 if config.method.keeps_images else config.synthesis.student_steps),
        places,
        loaded.test.white,
    )
    if loaded.train is None:
        return [student]
    plan, white = config.teacher_training, loaded.train.white
    teacher = TeacherStage(
        plan,
        networks.teacher,
        lambda x: networks.read(x, white),
        plan.epochs * (len(loaded.train) // plan.batch_size),
        axis_name,
    )
    return [teacher, student]


def train(preset: str, config: DfkdConfig, options: cli.RunOptions, folder: Path) -> Results:
    """One run from files to report."""
    started = time.monotonic()
    saved = {"program": NAME, "preset": preset, **dataclasses.asdict(config)}
    workdir = Workdir(folder, saved, options.resume)
    try:
        loaded = load(preset, config)
        seeds = [config.first_seed + i for i in range(config.seeds)]
        layout = parallel.choose_layout(
            options.split, len(seeds), config.optimizer.batch_size, options.devices
        )
        owners = build(preset, config, loaded, layout)
        student: DistillStage = owners[-1]
        names = list(arms(config, student.prototypes))
        if not names:
            raise InputError(f"--arms {' '.join(config.arms)}: no such rows in this table")
        workdir.claim()
        # networks this small leave a CPU idle one at a time, but for convolutions, which it is
        # slow at with kernels side by side
        small = preset == "digits" and student.networks.generator is None
        small &= options.lanes == "auto"
        lanes = lanes_for("vmap" if small else options.lanes)
        stages: list[Stage] = [owner.stage() for owner in owners]
        pipeline = Pipeline(stages, layout, lanes)
        feed = feed_of(config, loaded, seeds)
        if config.method.selects_images and streamed(config, loaded):
            loaded = narrowed(config, student, loaded)
        told = None
        if loaded.teacher is not None:
            told = np.array([teacher_accuracy(student.networks, loaded)])
            if doubts := normalization_doubt(student.networks, loaded):
                say(doubts)
        data = sets(config, loaded)
        loaded = release(loaded)
        tracks = run(
            pipeline,
            data,
            seeds,
            names,
            workdir,
            feed=feed,
            resume=options.resume,
            fused=options.fused,
            save_every=options.save_every,
        )
        results = judge(config, student, loaded.test, tracks, names, lanes)
        if told is not None:
            results = dataclasses.replace(results, teacher=told)
        state: Distilling = tracks["student"].state
        trained.save(workdir, loaded, student, names, state)
        if parallel.is_main():
            seconds = time.monotonic() - started
            facts = [
                f"data: {loaded.test.source}, {len(loaded.test)} test images; student "
                f"{config.student}; host {config.host}; seeds {seeds[0]} to {seeds[-1]}",
                f"machine: {layout.devices} x {jax.devices()[0].device_kind}, "
                f"{platform.machine()}, jax {jax.__version__}; {seconds:.0f} s from start to "
                "report",
            ]
            state = jax.tree.map(lambda x: x[0, names.index(pictured(names))], state)
            made = pictures.by_epoch(state.pictures, student.shown_epochs)
            text = report.write(folder, preset, config, results, made, facts)
            say(text)
            if config.dump:
                rows, written = state.pool.rows, int(state.pool.written)
                pictures.dump(Path(config.dump), pictures.in_order(rows, written))
            say(f"{folder / 'report.md'} ({seconds:.0f} s); {folder / METRICS} has every epoch")
        return results
    finally:
        workdir.close()


def narrowed(config: DfkdConfig, student: DistillStage, loaded: Loaded) -> Loaded:
    """The same with those images alone that DFND takes of a pool which stays on disk."""
    networks = student.networks

    @jax.jit
    def ask(variables: Any, images: Any) -> Any:
        return confidence(networks.teacher.apply(variables, networks.read(images))[0])

    def sure(images: np.ndarray) -> np.ndarray:
        return np.asarray(ask(loaded.teacher.variables, images))

    return loaded._replace(pool=surest(config, loaded.pool, kept(config, loaded), sure))


def teacher_accuracy(networks: Networks, loaded: Loaded) -> float:
    """Share of the test images on which a teacher from a file is right; says so if few."""

    @jax.jit
    def right(variables: Any, rows: Any) -> Any:
        logits, _ = networks.teacher.apply(
            variables, networks.read(rows["images"], loaded.test.white)
        )
        return jnp.sum(jnp.argmax(logits, axis=-1) == rows["labels"])

    test, block, found = loaded.test, 256, 0
    with Bar(len(test), unit="images") as bar:
        for first in range(0, len(test), block):
            # images without a label fill the last block up
            rows = test.take(np.minimum(np.arange(first, first + block), len(test) - 1))
            rows["labels"][len(test) - first :] = -1
            found += int(right(loaded.teacher.variables, rows))
            bar.update(min(first + block, len(test)), "judging the teacher")
    accuracy, chance = found / len(test), 1 / len(test.classes)
    if accuracy < 2 * chance:
        say(
            f"the teacher is right on {accuracy:.1%} of {test.source}, chance is {chance:.1%}: was "
            "it trained on these classes, and with this normalisation? (train.convert notes "
            "another with --trained-on)"
        )
    return accuracy


def normalization_doubt(networks: Networks, loaded: Loaded) -> str:
    """Whether a teacher from a file seems to have been trained with another normalisation.

    Of the statistics of a few hundred test images before its first batch norm; their labels, and
    whether it is right, do not count.
    """
    variables, test = loaded.teacher.variables, loaded.test
    if "batch_stats" not in variables:
        return ""
    images = test.take(np.linspace(0, len(test) - 1, 256).astype(int))["images"]
    gap = jax.jit(partial(first_gap, networks.teacher.clone(axis_name=None)))(
        variables, networks.read(images, test.white)
    )
    return doubt(gap, networks.normalization)


def judge(
    config: DfkdConfig,
    student: DistillStage,
    test: images.ImageSet,
    tracks: dict[str, Track],
    names: Sequence[str],
    lanes: Lanes = vectorized,
) -> Results:
    """Results of the last epoch on the test set, and of the best."""
    track = tracks["student"]
    # what inference does not look at stays on the host
    state = track.state._replace(optimizer=(), own=(), pool=None, extra=(), pictures=())
    count, block = len(test), min(config.optimizer.batch_size, len(test))

    def counts(state: Distilling, batch: Any) -> Any:
        return student.evaluate(state, batch)

    judged = jax.jit(lanes(lanes(counts, (0, None)), (0, None)))
    totals: Any = 0.0
    for first in range(0, count, block):
        batch = jax.tree.map(jnp.asarray, test.take(slice(first, first + block)))
        found = jax.tree.map(np.asarray, judged(state, batch))
        totals = found if first == 0 else jax.tree.map(np.add, totals, found)
    history = track.history["valid"]
    teacher = None
    if "teacher" in tracks:
        teacher = tracks["teacher"].history["valid"]["score"][:, -1]
    return Results(
        names=tuple(names),
        right={mode: totals[mode] for mode in ("keep", "drop")},
        rows=totals["rows"][0, 0],
        top5=totals["drop_top5"].sum(-1) / totals["rows"].sum(-1),
        best={mode: history[mode].max(-1) for mode in ("keep", "drop")},
        histogram=state.histogram,
        losses=track.history["train"],
        teacher=teacher,
    )
