"""A finished de-biasing run on a file: its table, and predictions of every model."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from corrkd_jax.errors import InputError
from train.engine import cli
from train.engine.progress import say
from train.engine.report import Report
from train.engine.stage import lanes_for
from train.engine.tables import seeds_in_words
from train.engine.workdir import write_text
from train.sentiment.debiasing.inputs import load
from train.sentiment.debiasing.models import build_model
from train.sentiment.debiasing.report import Table, introduction, parts_of, titles
from train.sentiment.debiasing.results import outputs, table_of
from train.sentiment.debiasing.trained import Trained, load_run
from train.sentiment.evaluate import EvaluateOptions
from train.sentiment.inputs import Inputs
from train.sentiment.task import predicted_classes, scores
from train.sentiment.trained import check_features


def evaluate(folder: Path, argv: Sequence[str]) -> None:
    """Write `evaluation.md`, `evaluation.json` and `predictions.csv` of a finished run.

    Nothing is searched or fitted here: scaler, dictionary, stand-ins and coefficients are the
    run's. Arguments as of `train.programs`.

    Raises:
        InputError: the run is not finished, or the file cannot be used.
    """
    options = cli.parse_options(
        EvaluateOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    out, split = Path(options.out) if options.out else folder, options.split
    run = load_run(folder)
    inputs = read(run, folder, options.data.path)
    splits = [s for s in inputs.sets if s == split or (split == "test" and s.startswith("test"))]
    model = build_model(run.config, run.task)
    lanes = lanes_for("auto")
    answers = outputs(run.config, model, run.selected, inputs, splits, run.absent, lanes)
    table = table_of(answers, inputs, splits, run.arms, run.config.seeds, run.coefficients)
    facts = [
        f"run {folder}, preset {run.preset}, model {run.config.model}, de-biasing "
        f"{run.config.debias}, {seeds_in_words(run.seeds)}",
        f"file {Path(inputs.dataset.source).name}, "
        + ", ".join(f"{name} {len(inputs.sets[name])} rows" for name in splits),
        *inputs.dataset.notes,
    ]
    page = Report(f"Evaluation of {folder.name}", facts)
    planted = not (options.data.path or run.config.data.path)
    named = titles(run.config, planted)
    page.add(*introduction([table], named, planted), *parts_of(table, named))
    text = page.write(out, "evaluation")
    write_text(out / "evaluation.json", json.dumps(table.to_json(), indent=1) + "\n")
    write_text(out / "predictions.csv", _predictions(table, inputs, run.seeds))
    say(text)
    say(f"{out / 'evaluation.md'}, {out / 'predictions.csv'}")


def read(run: Trained, folder: Path, path: str) -> Inputs:
    """A file as the run's models take it: its labels, its scaler, its words where they count.

    Raises:
        InputError: the file cannot be read, or does not fit.
    """
    config, data = run.config, run.config.data
    path = path or data.path
    if not path:
        planted = sorted((folder / "data").glob("planted_*.pkl"))
        if not planted:
            raise InputError(f"{folder / 'data'}: the planted file is gone; name one: --data.path")
        path = str(planted[0])
    if (data.folds or data.leave_out) and Path(path).resolve() != Path(data.path).resolve():
        say(f"{path}: judged by its own splits; the run's split by subject is for {data.path}")
        fold = 0 if data.folds else data.fold
        data = replace(data, folds=0, fold=fold, leave_out="", validate_on="")
    config = replace(config, data=replace(data, path=path))
    loaded, _ = load(config, training=False)
    check_features(run.shapes, loaded.dataset)
    sets = {
        name: replace(rows, scaler=run.scaler, task=run.task) for name, rows in loaded.sets.items()
    }
    return replace(loaded, task=run.task, sets=sets)


def _predictions(table: Table, inputs: Inputs, seeds: Sequence[int]) -> str:
    """One line a row, split, seed and sample: truth, prediction, outputs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    width = next(iter(next(iter(table.outputs.values())).values())).shape[-1]
    head = ["model", "split", "seed", "id", "true_class", "counts", "true_score"]
    writer.writerow([*head, "predicted_class", "predicted_score", *[f"o{k}" for k in range(width)]])
    for row, by_split in table.outputs.items():
        for split, answers in by_split.items():
            truth, ids = table.truths[split], inputs.sets[split].split.ids
            predicted = np.asarray(predicted_classes(answers, truth.task.mode))
            scored = None
            if truth.scores is not None:
                scored = np.asarray(scores(answers, truth.task.mode))
            for s, seed in enumerate(seeds):
                for n, name in enumerate(ids):
                    true = "" if truth.scores is None else truth.scores[n]
                    mine = "" if scored is None else f"{float(scored[s, n]):.6f}"
                    counts = int(truth.weights[n, 0] > 0)
                    start = [row, split, seed, name, truth.classes[n, 0], counts, true]
                    texts = [f"{x:.6f}" for x in answers[s, n]]
                    writer.writerow([*start, predicted[s, n], mine, *texts])
    return text.getvalue()
