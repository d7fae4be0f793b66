"""`python -m train.msa --model MODEL --debias METHOD`: base models, with bias taken away.

python -m train.msa --model mult --debias mcis          planted label and context bias
python -m train.msa --model misa --debias suci          planted subject confounder
python -m train.msa mosi --data.path FILE --data.word-vectors GLOVE --model tfn --debias mcis
python -m train.msa mosi --data.path FILE --model mult --debias suci
"""

import dataclasses
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.debias import RENAMED, DebiasConfig, presets
from corrkd_jax.data import msa, planted_bias, planted_subjects, subjects, words
from corrkd_jax.errors import InputError
from train.engine import cli, parallel
from train.engine.loop import run
from train.engine.parallel import compute_dtype
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.stage import lanes_for
from train.engine.workdir import Workdir, fresh_folder, write_text
from train.sentiment import inputs
from train.sentiment.debiasing import counterfactual
from train.sentiment.debiasing import report as debias_report
from train.sentiment.debiasing import trained as debias_trained
from train.sentiment.debiasing.arms import arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.dictionary import mean_features
from train.sentiment.debiasing.forward import Selected
from train.sentiment.debiasing.models import build_model
from train.sentiment.debiasing.report import Table
from train.sentiment.inputs import Inputs, place
from train.sentiment.results import truth_of


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
    parallel.connect(options.coordinator, options.processes, options.process_id)
    folder = (
        Path(options.workdir)
        if options.workdir
        else fresh_folder(f"{preset}-{config.model}-{config.debias}")
    )
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
    started = time.monotonic()
    planted = not config.data.path
    tasks: dict[str, Any] = {"": None}
    if planted and config.debias != "none":
        tasks = planted_tasks(config)
    saved = {"program": "debias", "preset": preset, **dataclasses.asdict(config)}
    reports, pipeline = [], None
    for name, write in tasks.items():
        own = folder / name if name else folder
        workdir = Workdir(own, saved, options.resume)
        try:
            data = config.data
            if planted:
                write = write or planted_bias.write
                if parallel.is_main():
                    write(own / "data", config.data.planted_seed)
                parallel.wait("planted data")
                file = next((own / "data").glob("planted_*.pkl"))
                data = dataclasses.replace(data, path=str(file))
            if name:
                say(f"\n{name.replace('-', ' ')}:")
            table, pipeline = _run_task(
                preset, dataclasses.replace(config, data=data), options, workdir, pipeline
            )
            reports.append((name, table))
        finally:
            workdir.close()
    if parallel.is_main():
        seconds = time.monotonic() - started
        _report(folder, preset, config, reports, seconds)


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


def load(config: DebiasConfig, training: bool = True) -> tuple[Inputs, int]:
    """Read a file; add the columns that the method needs.

    Args:
        config: of the run.
        training: without it subjects are left alone: a dictionary needs none of new rows.

    Returns:
        The sets, and the number of strata, 0 unless a method intervenes.

    Raises:
        InputError: see `corrkd_jax.data`; a file without words for the context term, rows without
            a subject, a single subject, a subject in train and in test.
    """
    dtype = compute_dtype("float32")
    loaded = inputs.load(config.data, dtype)
    dataset = loaded.dataset
    columns: dict[str, dict[str, np.ndarray]] = {
        name: {"index": np.arange(len(rows), dtype=np.int32)} for name, rows in loaded.sets.items()
    }
    strata = 0
    if config.debias == "mcis":
        rule = _content_rule(config, dataset)
        for name, split in dataset.splits.items():
            where = f"{dataset.source}: {name}"
            columns[name]["content"] = words.content_mask(split, rule, where)
    if config.debias == "suci" and training:
        strata, column = _strata(config, dataset, loaded)
        for name, own in column.items():
            columns[name]["subject"] = own
    sets = {
        name: dataclasses.replace(rows, more=columns[name]) for name, rows in loaded.sets.items()
    }
    return dataclasses.replace(loaded, sets=sets), strata


def check_data(config: DebiasConfig, loaded: Inputs) -> None:
    """Refuse data that the model or the search cannot use, before anything is trained.

    Raises:
        InputError: a search by scores where the labels are none; a model that moves every word by
            what is heard and seen with it, and frames that are not those of the words.
    """
    dataset, goal = loaded.dataset, config.mcis.objective
    if config.debias == "mcis" and goal in ("acc7", "neg_mae") and not loaded.task.has_scores:
        raise InputError(
            f"--mcis.objective {goal}: needs scores, and --data.labels {config.data.labels} has "
            "none; choose macro_f1, weighted_f1 or accuracy"
        )
    if config.model != "mag":
        return
    for name, split in dataset.splits.items():
        frames = {m: x.shape[1] for m, x in split.features.items()}
        for modality in ("audio", "vision"):
            if frames[modality] not in (1, frames["text"]):
                raise InputError(
                    f"{dataset.source}: {name}: {modality} has {frames[modality]} frames, text "
                    f"{frames['text']}; --model mag needs aligned data, or one frame an utterance"
                )


def _content_rule(config: DebiasConfig, dataset: msa.Dataset) -> words.Rule:
    where = f"{dataset.source}: train"
    if config.mcis.content == "tfidf":
        return words.tfidf(dataset.train, where)
    if config.mcis.content == "bias_words":
        classes = msa.labels(dataset.train, "ternary", dataset.source)[0][:, 0]
        return words.keep_bias_words(dataset.train, classes, where)
    if config.mcis.lexicon:
        return words.lexicon(config.mcis.lexicon)
    if Path(dataset.source).name == "planted_bias.pkl":
        return words.lexicon(planted_bias.LEXICON)
    return words.lexicon()


def _strata(
    config: DebiasConfig, dataset: msa.Dataset, loaded: Inputs
) -> tuple[int, dict[str, np.ndarray]]:
    """Number of strata and the stratum of every row, -1 where it is not one of training's."""
    if config.data.clusters:
        from sklearn.cluster import KMeans

        means = {name: np.asarray(mean_features(rows.take())) for name, rows in loaded.sets.items()}
        if config.data.clusters > len(means["train"]):
            raise InputError(
                f"--data.clusters {config.data.clusters}: there are only {len(means['train'])} "
                "training rows"
            )
        model = KMeans(config.data.clusters, n_init=4, random_state=0).fit(means["train"])
        return config.data.clusters, {
            name: model.predict(x).astype(np.int32) for name, x in means.items()
        }
    names = subjects.all_subject_names(dataset, config.data.subjects or None)
    pairs = [("train", "test"), ("valid", "test")]
    if dataset.layout != "mustard" or config.data.folds or config.data.leave_out:
        # MUStARD has no part for validation: its reader takes rows, and so speakers, of training
        pairs.append(("train", "valid"))
    for pair in pairs:
        subjects.check_disjoint(dataset, names, pair)
    others = [name for name in names if name != "train"]
    known, numbers = subjects.encode(
        names["train"], *(names[name] for name in others), source=dataset.source
    )
    return len(known), dict(zip(["train", *others], numbers, strict=True))


def _run_task(
    preset: str,
    config: DebiasConfig,
    options: cli.RunOptions,
    workdir: Workdir,
    pipeline: Pipeline | None,
) -> tuple[Table, Pipeline]:
    """Train on one file and judge every test split; reuses a pipeline of the same shapes."""
    loaded, strata = load(config)
    check_data(config, loaded)
    workdir.claim()
    for note in loaded.dataset.notes:
        say(f"{loaded.dataset.source}: {note}")
    rows = len(loaded.sets["train"])
    chosen = config.optimizer
    if chosen.batch_size > rows:
        say(f"--optimizer.batch-size {chosen.batch_size}: only {rows} training rows; using those")
        chosen = dataclasses.replace(chosen, batch_size=rows)
        config = dataclasses.replace(config, optimizer=chosen)
    seeds = [config.first_seed + i for i in range(config.seeds)]
    layout = parallel.choose_layout(options.split, len(seeds), chosen.batch_size, options.devices)
    # small models leave a CPU idle one at a time
    lanes = lanes_for("vmap" if config.small and options.lanes == "auto" else options.lanes)
    model = build_model(config, loaded.task, layout.axis_name)
    names = list(arms(config, strata))
    if pipeline is None:
        stage = BaseStage(
            config, preset, loaded.task, model, strata, rows // chosen.batch_size, layout.axis_name
        )
        pipeline = Pipeline([stage.stage()], layout, lanes)
    absent = _absent(config, loaded)
    feed, data = place(config.data, loaded, seeds, chosen.batch_size)
    splits = [name for name in loaded.sets if name != "train"]
    loaded = inputs.release(loaded, splits)
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
    best = tracks["base"].best
    # statistics over shards are those of training; inference needs no axis
    model = build_model(config, loaded.task)
    found = outputs(config, model, best, loaded, splits, absent, lanes)
    coefficients: dict[str, np.ndarray] = {}
    if config.debias == "mcis":
        source = loaded.dataset.source
        valid = {
            name: (found[name], truth_of(loaded.sets[name].split, loaded.task, source))
            for name in ("valid", "valid_biased")
            if name in splits
        }
        coefficients = counterfactual.search(config.mcis, valid, loaded.task)
    debias_trained.save(workdir, loaded, best, strata, absent, coefficients)
    tests = [name for name in splits if name.startswith("test")]
    return table_of(found, loaded, tests, names, config.seeds, coefficients), pipeline


def _absent(config: DebiasConfig, loaded: Inputs) -> Any:
    """Content-free input, from the training split; None without counterfactuals."""
    if config.debias != "mcis":
        return None
    train = jax.tree.map(jnp.asarray, loaded.sets["train"].take())
    return counterfactual.stand_ins(train, config.mcis.standin)


def outputs(
    config: DebiasConfig,
    model: Any,
    chosen: Selected,
    loaded: Inputs,
    splits: Sequence[str],
    absent: Any,
    lanes: Any,
) -> dict[str, counterfactual.Outputs]:
    """What every model says of some splits, seeds and arms side by side as models.

    Args:
        config: of the run.
        model: of `build_model`.
        chosen: leading axes seeds and arms.
        loaded: of `load`.
        splits: names.
        absent: of `counterfactual.stand_ins`, or None.
        lanes: how the models share the device.
    """
    chosen = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), chosen)
    found = {}
    for name in splits:
        taken = jax.tree.map(jnp.asarray, loaded.sets[name].take())
        found[name] = counterfactual.run(model, chosen, taken, lanes, absent, config.mcis.nonverbal)
    return found


def table_of(
    found: dict[str, counterfactual.Outputs],
    loaded: Inputs,
    splits: Sequence[str],
    rows: Sequence[str],
    seeds: int,
    coefficients: Mapping[str, np.ndarray],
) -> Table:
    """The table of some splits: a row an arm, or a row a pair of coefficients.

    Args:
        found: of `outputs`.
        loaded: of `load`.
        splits: names.
        rows: the arms.
        seeds: of the run.
        coefficients: row -> `[seeds, 2]`; empty without counterfactuals.
    """
    source = loaded.dataset.source
    truths = {name: truth_of(loaded.sets[name].split, loaded.task, source) for name in splits}
    if coefficients:
        shown = {
            row: {name: counterfactual.purified(found[name], own) for name in splits}
            for row, own in coefficients.items()
        }
    else:
        by_arm = {
            name: found[name].factual.reshape(seeds, len(rows), *found[name].factual.shape[1:])
            for name in splits
        }
        shown = {
            row: {name: by_arm[name][:, number] for name in splits}
            for number, row in enumerate(rows)
        }
    return Table(shown, truths, coefficients)


def _report(
    folder: Path,
    preset: str,
    config: DebiasConfig,
    reports: Sequence[tuple[str, Table]],
    seconds: float,
) -> None:
    facts = [
        f"model {config.model}, de-biasing {config.debias}; seeds {config.first_seed} to "
        f"{config.first_seed + config.seeds - 1}",
        f"machine: {jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}, "
        f"jax {jax.__version__}; {seconds:.0f} s from start to report",
    ]
    planted = not config.data.path
    text = debias_report.text(
        f"{config.model}, {config.debias}, {preset}", config, reports, facts, planted
    )
    debias_report.figures(folder / "figures", reports)
    write_text(folder / "report.md", text)
    figures = {name or "main": table.to_json() for name, table in reports}
    write_text(folder / "results.json", json.dumps(figures, indent=1) + "\n")
    say(text)
    say(f"{folder / 'report.md'} ({seconds:.0f} s)")
