"""`python -m train.msa`: distil a student robust to missing modalities.

python -m train.msa                                    planted data, five seeds
python -m train.msa mosi --data.path FILE --workdir runs/mosi
python -m train.msa mosi --data.path FILE --seeds 5 --ablate

With --model or --debias it trains base models and takes bias away; see
train.sentiment.debiasing.program.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from configs.msa import PRESETS, RENAMED, MsaConfig
from corrkd_jax.errors import InputError
from train.engine import cli, parallel
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.run import Run, begin
from train.engine.tables import seeds_in_words
from train.engine.workdir import write_text
from train.sentiment import corrkd, report, results, trained
from train.sentiment.debiasing import program as debiasing
from train.sentiment.evaluate import evaluate, evaluate_models, with_data
from train.sentiment.export import export
from train.sentiment.inputs import (
    Inputs,
    check_source,
    described,
    load,
    place,
    release,
    stage_sets,
)

__all__ = ["NAME", "evaluate", "export", "main", "train"]

NAME = "msa"

_HELP = """Distil a student robust to missing modalities.

With --model or --debias: train base models and take bias away; python -m train.msa --model mult
--debias mcis --help documents that."""


def main(argv: Sequence[str]) -> None:
    """Train, evaluate on the test split, report."""
    if debiasing.asked_for(argv):
        debiasing.main(argv)
        return
    preset, config, options = cli.parse(argv, "python -m train.msa", _HELP, PRESETS, RENAMED)
    check(config)
    train(preset, config, options, begin(options, NAME, preset))


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
    with Run(NAME, preset, config, options, folder) as run:
        config = with_data(config, folder)
        inputs = load(config.data, parallel.compute_dtype(config.network.dtype))
        # only now: a run that cannot start leaves no folder that looks like one
        run.workdir.claim()
        for note in inputs.dataset.notes:
            say(f"{inputs.dataset.source}: {note}")
        settings = config.optimizer
        smallest = min(len(inputs.sets[name]) for name in stage_sets(inputs))
        if settings.batch_size > smallest:
            say(
                f"--optimizer.batch-size {settings.batch_size}: only {smallest} training rows; "
                "using those"
            )
            settings = dataclasses.replace(settings, batch_size=smallest)
        config = dataclasses.replace(config, optimizer=settings)
        layout, lanes = run.layout(settings.batch_size), run.lanes()
        steps = {name: len(inputs.sets[name]) // settings.batch_size for name in stage_sets(inputs)}
        stages = corrkd.build_stages(config, inputs.task, steps, layout.axis_name)
        pipeline = Pipeline(stages, layout, lanes)
        facts = facts_of(config, inputs)
        feed, data = place(config.data, inputs, run.seeds, settings.batch_size)
        inputs = release(inputs)
        arms = list(corrkd.arms(config))
        tracks = run.train(pipeline, data, arms, feed)
        best = {stage.name: tracks[stage.name].best for stage in pipeline.stages}
        trained.save(run.workdir, inputs, best)
        rows, truth = evaluate_models(config, inputs, best, arms, lanes)
        if parallel.is_main():
            facts += [run.machine(), *inputs.dataset.notes]
            write_results(run, preset, rows, truth, facts)
            say(f"\n{folder / 'report.md'} ({run.seconds:.0f} s)")
        return rows


def facts_of(config: MsaConfig, inputs: Inputs) -> list[str]:
    """Lines of a report on data and labels."""
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [
        described(inputs),
        f"labels: {inputs.task.mode}; {seeds_in_words(seeds)}; epoch chosen on the validation "
        "split",
    ]


def write_results(
    run: Run, preset: str, rows: list[results.Row], truth: results.Truth, facts: Sequence[str]
) -> None:
    """Write `results.json` and the report, print the table."""
    figures = json.dumps(results.to_json(rows, truth), indent=1) + "\n"
    write_text(run.folder / "results.json", figures)
    page = report.build(
        rows,
        truth,
        title=f"CorrKD, {preset}",
        preset=preset,
        facts=facts,
        folder=run.folder,
        metrics=run.metrics(),
    )
    page.write(run.folder)
    say(report.table(rows, truth))
    say("")
    say(report.differences(rows, truth))
    if preset == "planted" and (claims := report.planted_claims(rows, truth)):
        say("\n" + claims.table())
