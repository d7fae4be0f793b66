"""`python -m train.evaluate RUN --data.path FILE`: a finished run on a file.

Prints the seven-subset table and the p-curve, and writes `predictions.csv`, `evaluation.json` and
`evaluation.md` into the run's folder (or `--out`). A run of `train.quadruped` needs no file; see
`train.control.evaluation.evaluate`.
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from configs.msa import DataConfig
from corrkd_jax.data import masks
from corrkd_jax.data import msa as files
from corrkd_jax.errors import InputError
from train.datafree import evaluate as datafree_evaluate
from train.engine import cli, parallel
from train.engine.finished import program_of
from train.engine.progress import say
from train.engine.stage import lanes_for
from train.engine.workdir import make_folder, write_text
from train.sentiment import program as msa
from train.sentiment import report, results
from train.sentiment.debiasing import evaluate as debias_evaluate
from train.sentiment.inputs import Inputs
from train.sentiment.rows import Rows
from train.sentiment.task import check_known, scores
from train.sentiment.trained import Trained, check_features, load_run


@dataclass(frozen=True)
class EvaluateData:
    """Which file to evaluate on."""

    path: str = ""
    """File to evaluate on, or folder of images; empty: the one that the run was trained on."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Which part of it, and where the results go."""

    data: EvaluateData = field(default_factory=EvaluateData)
    split: Literal["train", "valid", "test"] = "test"
    """Split of the file."""
    out: str = ""
    """Folder for the results; empty: the run's."""
    legacy_f1_order: bool = False
    """Add MulT's swapped-argument F1, only to compare with old tables."""


def main(argv: Sequence[str]) -> None:
    """Evaluate a finished run."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        if "-h" not in argv and "--help" not in argv:
            raise InputError("which run? python -m train.evaluate RUN [--data.path FILE]")
        folder = Path("RUN")
    else:
        folder = Path(argv.pop(0))
        if program_of(folder) == "quadruped":
            # brings a simulator, which others need not load
            from train.control.evaluation import evaluate as quadruped_evaluate

            quadruped_evaluate.main(folder, argv)
            return
    options = tyro.cli(
        EvaluateOptions, args=argv, prog="python -m train.evaluate RUN", description=__doc__
    )
    evaluate(folder, options)


def evaluate(folder: Path, options: EvaluateOptions) -> None:
    """Table, curve and predictions of a finished run."""
    program, out = program_of(folder), Path(options.out) if options.out else folder
    if program == "dfkd":
        datafree_evaluate.evaluate(folder, options.data.path, options.split, out)
        return
    if program == "debias":
        debias_evaluate.evaluate(folder, options.data.path, options.split, out)
        return
    run = load_run(folder)
    config = msa.with_data(run.config, folder)
    if options.data.path:
        config = replace(config, data=replace(config.data, path=options.data.path))
    inputs = inputs_for(run, config.data)
    rows_of = inputs.sets[options.split]
    lanes = lanes_for("auto")
    rows, truth = msa.judge(config, inputs, run.models, run.arms, lanes, options.split)
    make_folder(out)
    seeds = [run.config.first_seed + i for i in range(run.config.seeds)]
    facts = [
        f"run {folder}, preset {run.preset}, seeds {seeds[0]} to {seeds[-1]}",
        f"file {Path(inputs.dataset.source).name}, split {options.split}, {len(rows_of)} rows",
    ]
    parts = [
        f"# Evaluation of {folder.name}",
        "\n".join(f"* {fact}" for fact in facts),
        report.table(rows, truth),
        report.curve_table(rows, truth),
    ]
    if truth.scores is not None:
        parts.append(report.sentiment_table(rows, truth))
    if options.legacy_f1_order:
        parts.append("Legacy F1 (truth and prediction swapped; compare with old tables only)")
        parts.append(report.table(rows, truth, legacy_order=True))
    text = "\n\n".join(parts) + "\n"
    write_text(out / "evaluation.md", text)
    write_text(out / "evaluation.json", json.dumps(results.to_json(rows, truth), indent=1) + "\n")
    write_text(out / "predictions.csv", predictions_csv(rows, rows_of.split.ids, truth, seeds))
    say(text)
    say(f"{out / 'evaluation.md'}, {out / 'predictions.csv'}")


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


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
