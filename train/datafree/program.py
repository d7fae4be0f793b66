"""`python -m train.dfkd`: distil a student without the teacher's data, de-confounded by KDCI.

python -m train.dfkd                                   real digits, skewed substitution data
python -m train.dfkd cifar10 --host fast --data.root DIR --teacher wrn40_2.pth --student wrn16_1
python -m train.dfkd digits --host dfnd                another host on the digits
python -m train.dfkd cifar10 --host dafl --synthesis.joint ...     DAFL's own step and schedule
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.dfkd import RENAMED, DfkdConfig, presets
from corrkd_jax.data import images
from corrkd_jax.errors import InputError
from corrkd_jax.losses.selection import confidence
from corrkd_jax.models.backbones import named
from train.datafree import hosts, pictures, report, trained
from train.datafree.arms import arms, pictured
from train.datafree.distilling import Distilling, DistillStage
from train.datafree.evaluate import evaluate
from train.datafree.export import export
from train.datafree.hosts.networks import Networks, build_student
from train.datafree.inputs import (
    Loaded,
    check,
    feed_of,
    load,
    places_for,
    prototypes,
    release,
    sets,
    streamed,
    surest,
    turns_an_epoch,
)
from train.datafree.report import Results
from train.engine import cli, parallel
from train.engine.parallel import compute_dtype
from train.engine.pipeline import Pipeline, Track
from train.engine.predict import predict
from train.engine.progress import say
from train.engine.run import Run, begin
from train.engine.stage import Lanes, vectorized
from train.engine.tables import seeds_in_words
from train.engine.workdir import METRICS, write_text
from train.images.image_teacher import TeacherStage
from train.images.normalization import doubt, first_gap
from train.images.pretrained import Pretrained

__all__ = ["NAME", "evaluate", "export", "main", "train"]

NAME = "dfkd"
_DEFAULT_HOST = "deepinv"


def main(argv: Sequence[str]) -> None:
    """Train teacher (where none is given) and students, evaluate, report."""
    # defaults depend on the host, and on whether it takes its step of both networks together
    defaults = presets(_host(argv) or _DEFAULT_HOST, "--synthesis.joint" in argv)
    preset, config, options = cli.parse(
        argv, "python -m train.dfkd", (__doc__ or "").split("\n\n")[0], defaults, RENAMED
    )
    check(preset, config)
    train(preset, config, options, begin(options, NAME, f"{NAME}-{preset}-{config.host}"))


def _host(argv: Sequence[str]) -> str:
    """The value of `--host`, on which the defaults depend; of several the last, as options go."""
    host = ""
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--host":
            host = value if equals else "".join(argv[number + 1 : number + 2])
    return host


def build(preset: str, config: DfkdConfig, loaded: Loaded, layout: parallel.Layout) -> list[Any]:
    """The stages' owners in training order: the teacher's, if it is trained, and the student's.

    Args:
        preset: of the run.
        config: of the run.
        loaded: what it reads.
        layout: how it lies on the devices.

    Raises:
        InputError: a network does not take these images, a number does not fit them or the
            devices.
    """
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
    turns, places = turns_an_epoch(config, loaded), places_for(config, loaded)
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
    training, white = config.teacher_training, loaded.train.white
    teacher = TeacherStage(
        training,
        networks.teacher,
        lambda x: networks.read(x, white),
        training.epochs * (len(loaded.train) // training.batch_size),
        axis_name,
    )
    return [teacher, student]


def train(preset: str, config: DfkdConfig, options: cli.RunOptions, folder: Path) -> Results:
    """One run from files to report.

    Args:
        preset: that the configuration was made from.
        config: of the run.
        options: how the run is carried out.
        folder: for everything that it writes.

    Returns:
        Figures of all arms.

    Raises:
        InputError: the folder holds another run, or files and settings do not fit each other.
    """
    with Run(NAME, preset, config, options, folder) as run:
        loaded = load(preset, config)
        layout = run.layout(config.optimizer.batch_size)
        owners = build(preset, config, loaded, layout)
        student: DistillStage = owners[-1]
        names = list(arms(config, student.prototypes))
        run.workdir.claim()
        # networks this small leave a CPU idle one at a time, but for convolutions, which it is
        # slow at with kernels side by side
        lanes = run.lanes(small=preset == "digits" and student.networks.generator is None)
        pipeline = Pipeline([owner.stage() for owner in owners], layout, lanes)
        feed = feed_of(config, loaded, run.seeds)
        if config.method.selects_images and streamed(config, loaded):
            loaded = narrowed(config, student, loaded)
        accuracy = None
        if loaded.teacher is not None:
            say(teacher_line(config, loaded.teacher))
            accuracy = np.array([teacher_accuracy(student.networks, loaded)])
            if doubts := normalization_doubt(student.networks, loaded):
                say(doubts)
        data = sets(config, loaded)
        loaded = release(loaded)
        tracks = run.train(pipeline, data, names, feed)
        results = evaluate_students(student, loaded.test, tracks, names, lanes)
        if accuracy is not None:
            results = dataclasses.replace(results, teacher=accuracy)
        state: Distilling = tracks["student"].state
        trained.save(run.workdir, loaded, student, names, state)
        if parallel.is_main():
            facts = [
                f"data: {loaded.test.source}, {len(loaded.test)} test images; host "
                f"{config.host}; {seeds_in_words(run.seeds)}",
                f"student {config.student}; teacher {teacher_of(config)}",
                run.machine(),
            ]
            if loaded.teacher:
                facts.append(teacher_line(config, loaded.teacher))
            # of the first seed
            state = jax.tree.map(lambda x: x[0, names.index(pictured(names))], state)
            by_epoch = pictures.by_epoch(state.pictures, student.shown_epochs)
            write_results(run, preset, config, results, by_epoch, facts)
            if config.dump:
                rows, written = state.pool.rows, int(state.pool.written)
                pictures.dump(Path(config.dump), pictures.in_order(rows, written))
            say(f"{folder / 'report.md'} ({run.seconds:.0f} s); {folder / METRICS} has every epoch")
        return results


def write_results(
    run: Run,
    preset: str,
    config: DfkdConfig,
    results: Results,
    picture: np.ndarray,
    facts: Sequence[str],
) -> None:
    """Write `results.json` and the report, and print it; arguments as of `report.build`."""
    write_text(run.folder / "results.json", json.dumps(results.to_json(), indent=1) + "\n")
    say(report.build(preset, config, results, picture, facts, run.folder).write(run.folder))


def teacher_of(config: DfkdConfig) -> str:
    """Where a run's teacher comes from, in words."""
    if config.teacher:
        return f"{config.teacher_network or 'as its weights say'}, {Path(config.teacher).name}"
    return f"{config.teacher_training.network}, trained by this run on real images, one a seed"


def narrowed(config: DfkdConfig, student: DistillStage, loaded: Loaded) -> Loaded:
    """The same with those images alone that the host takes of a pool which stays on disk."""
    networks = student.networks

    @jax.jit
    def ask(variables: Any, images: Any) -> Any:
        return confidence(networks.teacher.apply(variables, networks.read(images))[0])

    def sure(images: np.ndarray) -> np.ndarray:
        return np.asarray(ask(loaded.teacher.variables, images))

    return loaded._replace(pool=surest(config, loaded.pool, places_for(config, loaded), sure))


def teacher_line(config: DfkdConfig, teacher: Pretrained) -> str:
    """What a teacher's file was taken for, and by what."""
    network = "--teacher-network" if config.teacher_network else "its weights' names and shapes"
    usual = "its file" if teacher.normalization else "the data set's usual constants"
    return (
        f"teacher: {Path(config.teacher).name} is a {teacher.network} by {network}; normalisation "
        f"by {usual}"
    )


def teacher_accuracy(networks: Networks, loaded: Loaded) -> float:
    """Share of the test images on which a teacher from a file is right; says so if few."""
    test = loaded.test

    def right(variables: Any, rows: Mapping[str, Array]) -> Array:
        logits, _ = networks.teacher.apply(variables, networks.read(rows["images"], test.white))
        return jnp.argmax(logits, axis=-1) == rows["labels"]

    answers = predict(right, loaded.teacher.variables, test, doing="evaluating the teacher")
    accuracy, chance = int(answers.sum()) / len(test), 1 / len(test.classes)
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


def evaluate_students(
    student: DistillStage,
    test: images.ImageSet,
    tracks: Mapping[str, Track],
    names: Sequence[str],
    lanes: Lanes = vectorized,
) -> Results:
    """Results of the last epoch on the test set, and of the best.

    Args:
        student: the stage.
        test: images with labels.
        tracks: stage -> what its training left, leading axes seeds and arms.
        names: of the arms.
        lanes: how the students share the device.
    """
    track = tracks["student"]
    block = min(student.config.optimizer.batch_size, len(test))
    answers = predict(
        student.right, student.select(track.state), test, depth=2, lanes=lanes, block=block
    )
    classes = len(test.classes)

    def by_class(right: np.ndarray) -> np.ndarray:
        counts = np.zeros((*right.shape[:-1], classes), np.float32)
        np.add.at(counts, (..., test.labels), right)
        return counts

    right = {name: by_class(values) for name, values in answers.items()}
    rows = np.bincount(test.labels, minlength=classes).astype(np.float32)
    history = track.history["valid"]
    teacher = None
    if "teacher" in tracks:
        teacher = tracks["teacher"].history["valid"]["score"][:, -1]
    return Results(
        names=tuple(names),
        right={mode: right[mode] for mode in report.MODES},
        rows=rows,
        top5=right["drop_top5"].sum(-1) / rows.sum(),
        best={mode: history[mode].max(-1) for mode in report.MODES},
        histogram=track.state.histogram,
        losses=track.history["train"],
        teacher=teacher,
    )
