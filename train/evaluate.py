"""`python -m train.evaluate RUN --data.path FILE`: a finished run on a file.

Prints the seven-subset table and the p-curve, and writes `predictions.csv`, `evaluation.json` and
`evaluation.md` into the run's folder (or `--out`).
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

from configs.msa import MsaConfig
from corrkd_jax.data import masks
from corrkd_jax.errors import InputError
from train import cli, corrkd, msa, report, results
from train.engine import Pipeline
from train.parallel import Layout
from train.progress import say
from train.protocol import scores
from train.workdir import load_model, write_text


@dataclass(frozen=True)
class EvaluateData:
    """Which file to evaluate on."""

    path: str = ""
    """File to evaluate on; empty: the one that the run was trained on."""


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


@dataclass(frozen=True)
class Loaded:
    """A finished run, brought back.

    Attributes:
        preset: it was made from.
        config: of the run, paths filled in.
        inputs: its data, or those asked for.
        models: selected parameters by stage, leading axes seeds (and arms).
        arms: names of the arms.
    """

    preset: str
    config: MsaConfig
    inputs: msa.Inputs
    models: dict[str, Any]
    arms: list[str]


def load_run(folder: Path, path: str = "") -> Loaded:
    """Bring back a finished run, with its own data or another file of the same shapes.

    The scaler always comes from the file the run was trained on.

    Raises:
        InputError: no such run, an unfinished one, or a file that does not fit it.
    """
    preset, config = msa.restore_config(folder)
    config = msa.with_data(config, folder)
    trained = msa.load(config.data, corrkd.compute_dtype(config.network.dtype))
    inputs = trained
    if path and Path(path) != Path(config.data.path):
        other = msa.load(replace(config.data, path=path, teacher_path=""), jnp.float32)
        msa.check_fits(trained.dataset, other.dataset)
        scaler = trained.sets["train"].scaler
        sets = {name: replace(rows, scaler=scaler) for name, rows in other.sets.items()}
        inputs = msa.Inputs(other.dataset, trained.task, sets)
    arms = [arm.name for arm in corrkd.arms(config)]
    like = model_shapes(config, trained)
    return Loaded(preset, config, inputs, load_model(folder, like), arms)


def model_shapes(config: MsaConfig, inputs: msa.Inputs) -> dict[str, Any]:
    """Shapes of the selected parameters that a configuration gives on these data."""
    stages = corrkd.build_stages(config, inputs.task, {"train": 1}, None)
    one = {
        "train": inputs.sets["train"].take(slice(2)),
        "valid": inputs.sets["valid"].take(slice(2)),
    }
    pipeline = Pipeline(stages, Layout("batch", 1), msa.lanes_for("vmap"))
    tracks = pipeline.empty(one, range(config.seeds))
    return {name: track.best for name, track in tracks.items()}


def main(argv: Sequence[str]) -> None:
    """Evaluate a finished run."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        if "-h" not in argv and "--help" not in argv:
            raise InputError("which run? python -m train.evaluate RUN [--data.path FILE]")
        folder = Path("RUN")
    else:
        folder = Path(argv.pop(0))
    options = tyro.cli(
        EvaluateOptions, args=argv, prog="python -m train.evaluate RUN", description=__doc__
    )
    evaluate(folder, options)


def evaluate(folder: Path, options: EvaluateOptions) -> None:
    """Table, curve and predictions of a finished run."""
    run = load_run(folder, options.data.path)
    rows_of = run.inputs.sets[options.split]
    rows, truth = msa.judge(
        run.config, run.inputs, run.models, run.arms, msa.lanes_for("auto"), options.split
    )
    out = Path(options.out) if options.out else folder
    out.mkdir(parents=True, exist_ok=True)
    seeds = [run.config.first_seed + i for i in range(run.config.seeds)]
    facts = [
        f"run {folder}, preset {run.preset}, seeds {seeds[0]} to {seeds[-1]}",
        f"file {Path(run.inputs.dataset.source).name}, split {options.split}, {len(rows_of)} rows",
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
