"""A finished distillation on a file: its table, its curve, predictions of every model."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from configs.msa import DataConfig, MsaConfig
from corrkd_jax.data import masks, planted
from corrkd_jax.data import msa as files
from train.engine import cli, parallel, tables
from train.engine.progress import say
from train.engine.report import Report
from train.engine.stage import Lanes, lanes_for
from train.engine.workdir import make_folder, write_text
from train.sentiment import corrkd, report, results
from train.sentiment.inputs import Inputs
from train.sentiment.rows import Rows
from train.sentiment.task import check_known, scores
from train.sentiment.trained import Trained, check_features, load_run


@dataclass(frozen=True)
class EvaluateData:
    """The file to evaluate on."""

    path: str = ""
    """File in one of the layouts of docs/data.md; empty: the one that the run was trained on."""


@dataclass(frozen=True)
class EvaluateOptions:
    """The part of the file, and where the results go."""

    data: EvaluateData = field(default_factory=EvaluateData)
    split: Literal["train", "valid", "test"] = "test"
    """Split of the file."""
    out: str = ""
    """Folder for the results; empty: the run's."""


@dataclass(frozen=True)
class DistillationOptions(EvaluateOptions):
    """The part of the file, where the results go, and one older metric."""

    legacy_f1_order: bool = False
    """MulT's F1 with truth and prediction swapped as well, only to compare with old tables."""


def evaluate(folder: Path, argv: Sequence[str]) -> None:
    """Table, curve and predictions of a finished run; arguments as of `train.programs`."""
    options = cli.parse_options(
        DistillationOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    out = Path(options.out) if options.out else folder
    run = load_run(folder)
    config = with_data(run.config, folder)
    if options.data.path:
        config = replace(config, data=replace(config.data, path=options.data.path))
    inputs = inputs_for(run, config.data)
    rows_of = inputs.sets[options.split]
    rows, truth = evaluate_models(
        config, inputs, run.stages, run.arms, lanes_for("auto"), options.split
    )
    page = Report(
        f"Evaluation of {folder.name}",
        [
            f"run {folder}, preset {run.preset}, {tables.seeds_in_words(run.seeds)}",
            f"file {Path(inputs.dataset.source).name}, split {options.split}, {len(rows_of)} rows",
            *inputs.dataset.notes,
        ],
    )
    page.add(
        report.MEANING,
        tables.glossary([row.name for row in rows], report.MEANINGS),
        tables.spread_in_words(len(run.seeds)),
        report.table(rows, truth),
        report.curve_table(rows, truth),
    )
    if truth.scores is not None:
        page.add(report.sentiment_table(rows, truth))
    if options.legacy_f1_order:
        page.add(
            "Legacy F1 (truth and prediction swapped; compare with old tables only)",
            report.table(rows, truth, legacy_order=True),
        )
    text = page.write(out, "evaluation")
    write_text(out / "evaluation.json", json.dumps(results.to_json(rows, truth), indent=1) + "\n")
    write_text(out / "predictions.csv", predictions_csv(rows, rows_of.split.ids, truth, run.seeds))
    say(text)
    say(f"{out / 'evaluation.md'}, {out / 'predictions.csv'}")


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
    return replace(config, data=replace(config.data, **paths))


def evaluate_models(
    config: MsaConfig,
    inputs: Inputs,
    best: dict[str, Any],
    arms: Sequence[str],
    lanes: Lanes,
    split: str = "test",
) -> tuple[list[results.Row], results.Truth]:
    """Results of the selected parameters on a split: the zero-filled teacher, then every arm.

    Args:
        config: of the run.
        inputs: the sets.
        best: stage -> selected parameters, leading axes seeds (and arms).
        arms: names of the arms.
        lanes: how the models share the device.
        split: name of the set.
    """
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


def inputs_for(run: Trained, config: DataConfig) -> Inputs:
    """A file as the run's networks take it: its labels, its scaler.

    Raises:
        InputError: the file cannot be read, does not fit, or has labels the run does not know.
    """
    vectors = config.word_vectors or None
    dataset = files.read(
        config.path,
        vectors,
        config.max_frames,
        context=config.context,
        fold=config.fold or None,
    )
    check_features(run.shapes, dataset)
    check_known(dataset, run.task)
    told = files.label_notes(dataset.train, run.task.mode, dataset.source, "train")
    dataset = replace(dataset, notes=(*dataset.notes, *told))
    dtype = parallel.compute_dtype(run.config.network.dtype)
    sets = {
        name: Rows(getattr(dataset, name), run.scaler, run.task, dataset.source, dtype)
        for name in files.SPLITS
    }
    return Inputs(dataset, run.task, sets)


def predictions_csv(
    rows: Sequence[results.Row], ids: Sequence[str], truth: results.Truth, seeds: Sequence[int]
) -> str:
    """One line a model, seed, subset, sample and task: truth, prediction, probabilities."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = rows[0].subsets.shape[-1]
    head = ["model", "seed", "subset", "id", "task", "true_class", "counts", "true_score"]
    writer.writerow(
        [*head, "predicted_class", "predicted_score", *[f"p{k}" for k in range(classes)]]
    )
    for row in rows:
        logits = jnp.asarray(row.subsets)
        probabilities = np.asarray(jax.nn.softmax(logits, axis=-1))
        predicted = np.asarray(results.predicted_classes(logits, truth.task.mode))
        s, c, n, t = (axis.ravel() for axis in np.indices(predicted.shape))
        blank = np.full(n.shape, "")
        scored = blank if truth.scores is None else _decimals(scores(logits, truth.task.mode))
        columns = [
            np.full(n.shape, row.name),
            np.asarray(seeds)[s],
            np.asarray(masks.SUBSET_NAMES)[c],
            np.asarray(ids)[n],
            np.asarray(truth.task.names)[t],
            truth.classes[n, t],
            (truth.weights[n, t] > 0).astype(int),
            blank if truth.scores is None else truth.scores[n],
            predicted.ravel(),
            scored,
            *[_decimals(probabilities[..., k]) for k in range(classes)],
        ]
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    return text.getvalue()


def _decimals(values: Any) -> np.ndarray:
    return np.char.mod("%.6f", np.asarray(values).ravel())
