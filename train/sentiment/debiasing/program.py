"""`python -m train.msa --model MODEL --debias METHOD`: base models, with bias taken away.

python -m train.msa --model mult --debias mcis          planted label and context bias
python -m train.msa --model misa --debias suci          planted subject confounder
python -m train.msa mosi --data.path FILE --data.word-vectors GLOVE --model tfn --debias mcis
python -m train.msa mosi --data.path FILE --model mult --debias suci
"""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.debias import RENAMED, DebiasConfig, presets
from corrkd_jax.data import planted_bias, planted_subjects
from corrkd_jax.errors import InputError
from train.engine import cli, parallel
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.run import Run, begin
from train.engine.tables import seeds_in_words
from train.engine.workdir import write_text
from train.sentiment import inputs
from train.sentiment.debiasing import counterfactual, trained
from train.sentiment.debiasing import report as debias_report
from train.sentiment.debiasing.arms import arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.evaluate import evaluate
from train.sentiment.debiasing.export import export
from train.sentiment.debiasing.inputs import check_data, load
from train.sentiment.debiasing.models import build_model
from train.sentiment.debiasing.report import Table
from train.sentiment.debiasing.results import outputs, table_of
from train.sentiment.inputs import Inputs, described, place
from train.sentiment.results import truth_of

__all__ = ["NAME", "asked_for", "evaluate", "export", "main", "train"]

NAME = "debias"


def asked_for(argv: Sequence[str]) -> bool:
    """Whether a command line is for this program rather than for distillation."""
    return any(word.split("=")[0] in ("--model", "--debias") for word in argv)


def main(argv: Sequence[str]) -> None:
    """Train a base model, take its bias away, report."""
    preset, config, options = cli.parse(
        argv,
        "python -m train.msa",
        (__doc__ or "").split("\n\n")[0],
        presets(_method(argv)),
        RENAMED,
    )
    check(config)
    folder = begin(options, NAME, f"{preset}-{config.model}-{config.debias}")
    train(preset, config, options, folder)


def _method(argv: Sequence[str]) -> str:
    """The value of `--debias`, on which the planted task depends."""
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--debias":
            return value if equals else "".join(argv[number + 1 : number + 2])
    return "none"


def check(config: DebiasConfig) -> None:
    """Refuse settings that cannot run, before anything is read.

    Raises:
        InputError: names the option and what would do.
    """
    inputs.check_source(config.data)
    cli.require_seeds(config.first_seed, config.seeds)
    steps = config.mcis.reach / config.mcis.step
    if abs(steps - round(steps)) > 1e-6 * steps:
        raise InputError(
            f"--mcis.step {config.mcis.step}: does not divide --mcis.reach {config.mcis.reach}, "
            "so that a coefficient of zero would lie off the grid"
        )
    if config.debias == "suci" and config.data.clusters == 1:
        raise InputError("--data.clusters 1: one stratum leaves nothing to adjust; give 2 or more")
    build_model(config, inputs.Task("binary", 2, ("sentiment",)))


def train(preset: str, config: DebiasConfig, options: cli.RunOptions, folder: Path) -> None:
    """One run from files to report: the task and, where it is planted, its controls."""
    planted = not config.data.path
    tasks: dict[str, Any] = {"": None}
    if planted and config.debias != "none":
        tasks = planted_tasks(config)
    reports: list[tuple[str, Table]] = []
    facts: list[str] = []
    whole: Run | None = None
    pipeline = None
    # the first task's folder is the run's, and its clock too
    with contextlib.ExitStack() as stack:
        for name, write in tasks.items():
            run = Run(NAME, preset, config, options, folder / name if name else folder)
            stack.enter_context(run)
            data = config.data
            if planted:
                write = write or planted_bias.write
                if parallel.is_main():
                    write(run.folder / "data", config.data.planted_seed)
                parallel.wait("planted data")
                file = next((run.folder / "data").glob("planted_*.pkl"))
                data = dataclasses.replace(data, path=str(file))
            if name:
                say(f"\n{name.replace('-', ' ')}:")
            with_file = dataclasses.replace(config, data=data)
            table, read, pipeline = _run_task(preset, with_file, run, pipeline)
            reports.append((name, table))
            facts += [f"{name}, {fact}" if name else fact for fact in read]
            whole = whole or run
    if parallel.is_main() and whole is not None:
        _report(whole, preset, config, reports, facts)


def planted_tasks(config: DebiasConfig) -> dict[str, Any]:
    """Writers of the planted data by the name of the task; the method's own has none."""
    if config.debias == "suci":
        tasks = {"": planted_subjects.write}
        if config.controls:
            tasks["control-no-confounder"] = lambda folder, seed: planted_subjects.write(
                folder, seed, confounded=False
            )
        return tasks
    tasks = {"": planted_bias.write}
    if config.ablate:
        tasks["label-bias-only"] = lambda folder, seed: planted_bias.write(
            folder, seed, planted_bias.LABEL_BIASED
        )
    if config.controls:
        tasks["control-no-bias"] = lambda folder, seed: planted_bias.write(
            folder, seed, planted_bias.UNBIASED
        )
    return tasks


def _run_task(
    preset: str, config: DebiasConfig, run: Run, pipeline: Pipeline | None
) -> tuple[Table, list[str], Pipeline]:
    """Train on one file and evaluate every test split; reuses a pipeline of the same shapes.

    Returns:
        The table, what was read, and the pipeline.
    """
    loaded, strata = load(config)
    check_data(config, loaded)
    run.workdir.claim()
    facts = [described(loaded), *loaded.dataset.notes]
    for note in loaded.dataset.notes:
        say(f"{loaded.dataset.source}: {note}")
    rows = len(loaded.sets["train"])
    settings = config.optimizer
    if settings.batch_size > rows:
        say(f"--optimizer.batch-size {settings.batch_size}: only {rows} training rows; using those")
        settings = dataclasses.replace(settings, batch_size=rows)
        config = dataclasses.replace(config, optimizer=settings)
    layout = run.layout(settings.batch_size)
    lanes = run.lanes(small=config.small)
    model = build_model(config, loaded.task, layout.axis_name)
    names = list(arms(config, strata))
    if pipeline is None:
        steps = rows // settings.batch_size
        stage = BaseStage(config, preset, loaded.task, model, strata, steps, layout.axis_name)
        pipeline = Pipeline([stage.stage()], layout, lanes)
    absent = _absent(config, loaded)
    feed, data = place(config.data, loaded, run.seeds, settings.batch_size)
    splits = [name for name in loaded.sets if name != "train"]
    loaded = inputs.release(loaded, splits)
    best = run.train(pipeline, data, names, feed)["base"].best
    # statistics over shards are those of training; inference needs no axis
    model = build_model(config, loaded.task)
    answers = outputs(config, model, best, loaded, splits, absent, lanes)
    coefficients: dict[str, np.ndarray] = {}
    if config.debias == "mcis":
        source = loaded.dataset.source
        valid = {
            name: (answers[name], truth_of(loaded.sets[name].split, loaded.task, source))
            for name in ("valid", "valid_biased")
            if name in splits
        }
        coefficients = counterfactual.search(config.mcis, valid, loaded.task)
    trained.save(run.workdir, loaded, best, strata, absent, coefficients)
    tests = [name for name in splits if name.startswith("test")]
    table = table_of(answers, loaded, tests, names, config.seeds, coefficients)
    return table, facts, pipeline


def _absent(config: DebiasConfig, loaded: Inputs) -> Any:
    """Content-free input, from the training split; None without counterfactuals."""
    if config.debias != "mcis":
        return None
    train = jax.tree.map(jnp.asarray, loaded.sets["train"].take())
    return counterfactual.stand_ins(train, config.mcis.standin)


def _report(
    run: Run,
    preset: str,
    config: DebiasConfig,
    reports: Sequence[tuple[str, Table]],
    facts: Sequence[str],
) -> None:
    chosen = "last" if config.optimizer.choose == "last" else "chosen on the validation split"
    facts = [
        f"model {config.model}, de-biasing {config.debias}; {seeds_in_words(run.seeds)}; epoch: "
        f"{chosen}",
        *facts,
        run.machine(),
    ]
    title = f"{config.model}, {config.debias}, {preset}"
    planted = not config.data.path
    page = debias_report.build(title, config, reports, facts, planted, run.folder)
    text = page.write(run.folder)
    figures = {name or "main": table.to_json() for name, table in reports}
    write_text(run.folder / "results.json", json.dumps(figures, indent=1) + "\n")
    say(text)
    say(f"{run.folder / 'report.md'} ({run.seconds:.0f} s)")
