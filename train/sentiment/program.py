"""`python -m train.msa`: distil a student that bears missing modalities.

python -m train.msa                                    planted data, five seeds
python -m train.msa mosi --data.path FILE --workdir runs/mosi
python -m train.msa mosi --data.path FILE --seeds 5 --ablate

With --model or --debias it trains base models and takes bias away; see
train.sentiment.debiasing.program.
"""

import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from configs.msa import PRESETS, RENAMED, MsaConfig
from corrkd_jax.data import planted
from corrkd_jax.errors import InputError
from train.engine import cli, parallel
from train.engine.loop import run
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.stage import Lanes, lanes_for
from train.engine.workdir import METRICS, Workdir, fresh_folder, make_folder, write_text
from train.sentiment import corrkd, report, results, trained
from train.sentiment.debiasing import program as debias
from train.sentiment.inputs import Inputs, check_source, load, place, release, stage_sets

_HELP = """Distil a student that bears missing modalities.

With --model or --debias: train base models and take bias away; python -m train.msa --model mult
--debias mcis --help documents that."""


def main(argv: Sequence[str]) -> None:
    """Train, evaluate on the test split, report."""
    if debias.asked_for(argv):
        debias.main(argv)
        return
    preset, config, options = cli.parse(argv, "python -m train.msa", _HELP, PRESETS, RENAMED)
    check(config)
    parallel.connect(options.coordinator, options.processes, options.process_id)
    folder = Path(options.workdir) if options.workdir else fresh_folder(preset)
    train(preset, config, options, folder)


def check(config: MsaConfig) -> None:
    """Refuse settings that cannot run, before anything is read.

    Raises:
        InputError: names the option and what would do.
    """
    network = config.network
    check_source(config.data)
    cli.require_seeds(config.first_seed, config.seeds)
    if network.features % network.heads:
        raise InputError(
            f"--network.heads {network.heads} does not divide --network.features {network.features}"
        )
    corrkd.arms(config)


def train(
    preset: str, config: MsaConfig, options: cli.RunOptions, folder: Path
) -> list[results.Row]:
    """One run from files to report; returns the rows of its table."""
    started = time.monotonic()
    saved = {"program": "msa", "preset": preset, **dataclasses.asdict(config)}
    workdir = Workdir(folder, saved, options.resume)
    try:
        config = with_data(config, folder)
        inputs = load(config.data, parallel.compute_dtype(config.network.dtype))
        # only now: a run that cannot start leaves no folder that looks like one
        workdir.claim()
        for note in inputs.dataset.notes:
            say(f"{inputs.dataset.source}: {note}")
        chosen, seeds = config.optimizer, [config.first_seed + i for i in range(config.seeds)]
        smallest = min(len(inputs.sets[name]) for name in stage_sets(inputs))
        if chosen.batch_size > smallest:
            say(
                f"--optimizer.batch-size {chosen.batch_size}: only {smallest} training rows; using "
                "taken"
            )
            chosen = dataclasses.replace(chosen, batch_size=smallest)
        config = dataclasses.replace(config, optimizer=chosen)
        layout = parallel.choose_layout(
            options.split, len(seeds), chosen.batch_size, options.devices
        )
        steps = {name: len(inputs.sets[name]) // chosen.batch_size for name in stage_sets(inputs)}
        pipeline = Pipeline(
            corrkd.build_stages(config, inputs.task, steps, layout.axis_name),
            layout,
            lanes_for(options.lanes),
        )
        facts = facts_of(config, inputs)
        feed, data = place(config.data, inputs, seeds, chosen.batch_size)
        inputs = release(inputs)
        names = list(corrkd.arms(config))
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
            facts.append(
                f"machine: {layout.devices} x {jax.devices()[0].device_kind}, "
                f"{platform.machine()}, jax {jax.__version__}; {seconds:.0f} s from start to report"
            )
            facts += inputs.dataset.notes
            write_results(folder, preset, rows, truth, facts)
            say(f"\n{folder / 'report.md'} ({seconds:.0f} s)")
        return rows
    finally:
        workdir.close()


def facts_of(config: MsaConfig, inputs: Inputs) -> list[str]:
    """Lines of a report on data and labels."""
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in inputs.sets.items())
    shapes = ", ".join(
        f"{m} {x.shape[1]} x {x.shape[2]}" for m, x in inputs.dataset.train.features.items()
    )
    return [
        f"data: {Path(inputs.dataset.source).name} ({inputs.dataset.layout}); rows: {sizes}; "
        f"frames x features: {shapes}",
        f"labels: {inputs.task.mode}; seeds {config.first_seed} to "
        f"{config.first_seed + config.seeds - 1}; epoch chosen on the validation split",
    ]


def with_data(config: MsaConfig, folder: Path) -> MsaConfig:
    """The same run with paths filled in: an empty one stands for planted data in the folder."""
    if config.data.path:
        return config
    target = folder / "data"
    if parallel.is_main():
        make_folder(target)
        planted.write(target, config.data.planted_seed)
    parallel.wait("planted data")
    paths = {"path": str(target / "planted.pkl")}
    paths["teacher_path"] = str(target / "planted_teacher.pkl")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))


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
    rows: list[results.Row],
    truth: results.Truth,
    facts: Sequence[str],
) -> None:
    """Write `results.json` and `report.md`, print the table."""
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
