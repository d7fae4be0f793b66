"""`python -m train.msa`: distil a student that bears missing modalities.

python -m train.msa                                    planted data, five seeds
python -m train.msa mosi --data.path FILE --workdir runs/mosi
python -m train.msa mosi --data.path FILE --seeds 5 --ablate
"""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from configs.msa import PRESETS, DataConfig, MsaConfig
from corrkd_jax.data import msa, planted
from corrkd_jax.errors import InputError
from train import cli, corrkd, parallel, report, results
from train.batches import Rows
from train.engine import Pipeline
from train.feed import Feed
from train.loop import run
from train.progress import say
from train.protocol import Task, make_task
from train.stage import Lanes, looped, vectorized
from train.workdir import CONFIG, METRICS, Workdir, fresh_folder, read_config, write_text


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A data set, ready for stages.

    Attributes:
        dataset: as read.
        task: what its labels mean.
        sets: `train`, `valid`, `test`, and `teacher` if the teacher has a file of its own.
    """

    dataset: msa.Dataset
    task: Task
    sets: dict[str, Rows]


def load(config: DataConfig, dtype: Any) -> Inputs:
    """Read the files of a configuration, check them, fit the scaler.

    Raises:
        InputError: a file cannot be used; see `corrkd_jax.data.msa.read`.
    """
    vectors = config.word_vectors or None
    dataset = msa.read(config.path, vectors, config.max_frames)
    task = make_task(dataset, config.labels)
    # statistics of the student's training split alone: what will be known at test time
    scaler = msa.fit_scaler(dataset.train, config.clip) if config.scale else None
    splits = {name: getattr(dataset, name) for name in msa.SPLITS}
    sources = dict.fromkeys(splits, dataset.source)
    if config.teacher_path:
        other = msa.read(config.teacher_path, vectors, config.max_frames)
        check_fits(dataset, other)
        make_task(other, config.labels)
        splits["teacher"], sources["teacher"] = other.train, other.source
    sets = {name: Rows(split, scaler, task, sources[name], dtype) for name, split in splits.items()}
    return Inputs(dataset, task, sets)


def check_fits(dataset: msa.Dataset, other: msa.Dataset) -> None:
    """Refuse a second file whose features are not the first one's.

    Raises:
        InputError: names both files, the modality and both sizes.
    """
    for name, array in dataset.train.features.items():
        found = other.train.features[name].shape[2]
        if found != array.shape[2]:
            raise InputError(
                f"{other.source}: train: {name} has {found} features, {dataset.source} has "
                f"{array.shape[2]}; a model takes only one of them"
            )


def main(argv: Sequence[str]) -> None:
    """Train, evaluate on the test split, report."""
    preset, config, options = cli.parse(
        argv, "python -m train.msa", (__doc__ or "").split("\n\n")[0], PRESETS
    )
    check(config)
    parallel.connect(options.coordinator, options.processes, options.process_id)
    folder = Path(options.workdir) if options.workdir else fresh_folder(preset)
    train(preset, config, options, folder)


def check(config: MsaConfig) -> None:
    """Refuse settings that cannot run, before anything is read.

    Raises:
        InputError: names the option and what would do.
    """
    network, chosen = config.network, config.optimizer
    positive = {
        "--seeds": config.seeds,
        "--optimizer.batch": chosen.batch,
        "--optimizer.epochs": chosen.epochs,
        "--optimizer.rate": chosen.rate,
        "--optimizer.validate-every": chosen.validate_every,
        "--network.features": network.features,
        "--network.heads": network.heads,
    }
    for name, value in positive.items():
        if not value > 0:
            raise InputError(f"{name} {value}: must be positive")
    counts = {
        "--optimizer.teacher-epochs": chosen.teacher_epochs,
        "--network.layers": network.layers,
    }
    for name, value in counts.items():
        if value < 0:
            raise InputError(f"{name} {value}: must not be negative")
    if network.features % network.heads:
        raise InputError(
            f"--network.heads {network.heads} does not divide --network.features {network.features}"
        )
    corrkd.arms(config)


def train(
    preset: str, config: MsaConfig, options: cli.RunOptions, folder: Path
) -> list[results.Row]:
    """One run from files to report; returns the rows of its table."""
    from train import trained  # which brings back what this writes, and so imports this module

    started = time.monotonic()
    saved = {"program": "msa", "preset": preset, **dataclasses.asdict(config)}
    workdir = Workdir(folder, saved, options.resume)
    try:
        config = with_data(config, folder)
        inputs = load(config.data, corrkd.compute_dtype(config.network.dtype))
        # only now: a run that cannot start leaves no folder that looks like one
        workdir.claim()
        for note in inputs.dataset.notes:
            say(f"{inputs.dataset.source}: {note}")
        chosen, seeds = config.optimizer, [config.first_seed + i for i in range(config.seeds)]
        smallest = min(len(inputs.sets[name]) for name in stage_sets(inputs))
        if chosen.batch > smallest:
            say(f"--optimizer.batch {chosen.batch}: only {smallest} training rows; using those")
            chosen = dataclasses.replace(chosen, batch=smallest)
        config = dataclasses.replace(config, optimizer=chosen)
        layout = parallel.choose_layout(options.split, len(seeds), chosen.batch, options.devices)
        steps = {name: len(inputs.sets[name]) // chosen.batch for name in stage_sets(inputs)}
        pipeline = Pipeline(
            corrkd.build_stages(config, inputs.task, steps, layout.axis_name),
            layout,
            lanes_for(options.lanes),
        )
        feed, data = place(config, inputs, seeds)
        names = [arm.name for arm in corrkd.arms(config)]
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
        best = {stage.name: tracks[stage.name].best for stage in pipeline.stages}
        trained.save(workdir, inputs, best)
        rows, truth = judge(config, inputs, best, names, lanes_for(options.lanes))
        if parallel.is_main():
            seconds = time.monotonic() - started
            write_results(folder, preset, config, inputs, rows, truth, layout.devices, seconds)
        return rows
    finally:
        workdir.close()


def with_data(config: MsaConfig, folder: Path) -> MsaConfig:
    """The same run with paths filled in: an empty one stands for planted data in the folder."""
    if config.data.path:
        return config
    target = folder / "data"
    if parallel.is_main():
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{target}: cannot be made: {error.strerror}") from error
        planted.write(target, config.data.planted_seed)
    parallel.wait("planted data")
    paths = {"path": str(target / "planted.pkl")}
    paths["teacher_path"] = str(target / "planted_teacher.pkl")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))


def stage_sets(inputs: Inputs) -> list[str]:
    """Names of the sets that stages train on."""
    return [name for name in inputs.sets if name not in ("valid", "test")]


def lanes_for(name: str) -> Lanes:
    """How seeds and arms share a device; `auto` is side by side except on CPU."""
    if name == "auto":
        name = "map" if jax.default_backend() == "cpu" else "vmap"
    return {"map": looped, "vmap": vectorized}[name]


def place(
    config: MsaConfig, inputs: Inputs, seeds: Sequence[int]
) -> tuple[Feed | None, dict[str, Any]]:
    """Put the sets on the device whole, or arrange for the training sets to be streamed."""
    names = stage_sets(inputs)
    streamed = config.data.feed == "grain" or (
        config.data.feed == "auto"
        and sum(inputs.sets[n].nbytes for n in (*names, "valid")) > parallel.memory() / 2
    )
    data = {"valid": inputs.sets["valid"].take()}
    if not streamed:
        return None, data | {name: inputs.sets[name].take() for name in names}
    first = slice(config.optimizer.batch)
    feed = Feed({name: inputs.sets[name] for name in names}, seeds, config.data.threads)
    return feed, data | {name: inputs.sets[name].take(first) for name in names}


def judge(
    config: MsaConfig,
    inputs: Inputs,
    best: dict[str, Any],
    arms: Sequence[str],
    lanes: Lanes,
    split: str = "test",
) -> tuple[list[results.Row], results.Truth]:
    """Results of the selected parameters on a split: the zero-filled teacher, then every arm."""
    network = corrkd.build_network(config.network, inputs.task)

    def forward(params: Any, inputs: Any, valid: Any) -> Any:
        return network.apply({"params": params}, inputs, valid, train=False).logits

    rows = jax.tree.map(jnp.asarray, inputs.sets[split].take())
    key = jax.random.key(corrkd.VALIDATION_KEY)
    teacher = results.predict(forward, best["teacher"], rows, lanes, 1, key)
    student = results.predict(forward, best["student"], rows, lanes, 2, key)
    table = [results.Row(corrkd.TEACHER_ROW, *teacher)]
    for number, name in enumerate(arms):
        table.append(results.Row(name, student[0][:, number], student[1][:, number]))
    truth = results.truth_of(inputs.sets[split].split, inputs.task, inputs.dataset.source)
    return table, truth


def write_results(
    folder: Path,
    preset: str,
    config: MsaConfig,
    inputs: Inputs,
    rows: list[results.Row],
    truth: results.Truth,
    devices: int,
    seconds: float,
) -> None:
    """Write `results.json` and `report.md`, print the table."""
    sizes = ", ".join(f"{name} {len(rows_)}" for name, rows_ in inputs.sets.items())
    shapes = ", ".join(
        f"{m} {x.shape[1]} x {x.shape[2]}" for m, x in inputs.dataset.train.features.items()
    )
    facts = [
        f"data: {Path(inputs.dataset.source).name} ({inputs.dataset.layout}); rows: {sizes}; "
        f"frames x features: {shapes}",
        f"labels: {inputs.task.mode}; seeds {config.first_seed} to "
        f"{config.first_seed + config.seeds - 1}; epoch chosen on the validation split",
        f"machine: {devices} x {jax.devices()[0].device_kind}, {platform.machine()}, "
        f"jax {jax.__version__}; {seconds:.0f} s from start to report",
        *inputs.dataset.notes,
    ]
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    write_text(folder / "results.json", json.dumps(results.to_json(rows, truth), indent=1) + "\n")
    report.write(
        folder,
        rows,
        truth,
        title=f"CorrKD, {preset}",
        preset=preset,
        facts=facts,
        metrics=[json.loads(line) for line in lines],
    )
    say(report.table(rows, truth))
    say("")
    say(report.differences(rows, truth))
    if preset == "planted" and (margins := report.planted_margins(rows, truth)):
        say("\n" + margins)
    say(f"\n{folder / 'report.md'} ({seconds:.0f} s)")


def restore_config(folder: Path) -> tuple[str, MsaConfig]:
    """Preset and configuration of a finished run.

    Raises:
        InputError: the folder is not a run of this program, or of another version of it.
    """
    saved = read_config(folder)
    if not isinstance(saved, dict) or saved.pop("program", None) != "msa":
        raise InputError(f"{folder / CONFIG}: not a run of train.msa")
    if not isinstance(preset := saved.pop("preset", None), str):
        raise InputError(f"{folder / CONFIG}: names no preset; it was not written by train.msa")
    return preset, _dataclass_from(MsaConfig, saved, str(folder / CONFIG))


def _dataclass_from(kind: Any, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}, not a group of fields")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(f"{where}: {unknown[0]} is no field of this version")
    filled = {}
    for name, value in values.items():
        inner = fields[name].type
        if dataclasses.is_dataclass(inner):
            value = _dataclass_from(inner, value, f"{where}: {name}")
        elif isinstance(value, list):
            value = tuple(value)
        filled[name] = value
    return kind(**filled)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
