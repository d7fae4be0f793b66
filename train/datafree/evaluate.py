"""A finished data-free distillation on images: its table, classes, predictions of every student."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from corrkd_jax.data import images
from corrkd_jax.data.image_set import ImageSet
from train.datafree.distilling import Selected, among_best
from train.datafree.report import MEANINGS, MODES
from train.datafree.trained import Trained, load_run
from train.engine import cli, tables
from train.engine.predict import predict
from train.engine.progress import say
from train.engine.report import Report
from train.engine.stage import lanes_for
from train.engine.tables import cell
from train.engine.workdir import write_text


@dataclass(frozen=True)
class Answers:
    """Answers of all students to all images.

    Attributes:
        classes: mode -> `[seeds, arms, images]`, the predicted class.
        sure: mode -> the same shape, its probability.
        top5: mode -> the same shape, whether the true class is among the five likeliest.
        labels: `[images]`.
    """

    classes: Mapping[str, np.ndarray]
    sure: Mapping[str, np.ndarray]
    top5: Mapping[str, np.ndarray]
    labels: np.ndarray

    def right(self, mode: str) -> np.ndarray:
        """`[seeds, arms, images]`, whether the predicted class is the true one."""
        return self.classes[mode] == self.labels


@dataclass(frozen=True)
class EvaluateData:
    """The images to evaluate on."""

    path: str = ""
    """Folder of the data set; empty: the one that the run was trained on."""


@dataclass(frozen=True)
class EvaluateOptions:
    """The part of the images, and where the results go."""

    data: EvaluateData = field(default_factory=EvaluateData)
    split: Literal["train", "test"] = "test"
    """Part of the data set."""
    out: str = ""
    """Folder for the results; empty: the run's."""


def evaluate(folder: Path, argv: Sequence[str]) -> None:
    """Write `evaluation.md` and `.html`, `evaluation.json`, `predictions.csv` of a finished run.

    Arguments as of `train.programs`.

    Raises:
        InputError: the run is not finished, or the images do not fit it.
    """
    options = cli.parse_options(
        EvaluateOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    out = Path(options.out) if options.out else folder
    run = load_run(folder)
    config = run.config.data
    root = options.data.path or config.root
    data = images.read(run.preset, root, options.split, labels=config.labels, size=config.size)
    for note in data.notes:
        say(f"{data.source}: {note}")
    run.check(data)
    answers = ask(run, data)
    text = _report(folder, run, data, answers).write(out, "evaluation")
    write_text(out / "evaluation.json", json.dumps(_figures(run, answers), indent=1) + "\n")
    write_text(out / "predictions.csv", _predictions(run, data, answers))
    say(text)
    say(f"{out / 'evaluation.md'}, {out / 'predictions.csv'}")


def ask(run: Trained, data: ImageSet) -> Answers:
    """Every student's answers, a block of images at a time.

    Args:
        run: as brought back.
        data: images with labels that fit the run.
    """
    network = run.network

    def answer(selected: Selected, rows: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        variables, (confounders, prior, _), strength = selected
        both = network.apply(variables, run.read(rows["images"]), confounders, prior, strength)
        logits = {"drop": both.plain, "keep": both.logits}
        return {
            "classes": {mode: jnp.argmax(x, axis=-1) for mode, x in logits.items()},
            "sure": {mode: jnp.max(jax.nn.softmax(x), axis=-1) for mode, x in logits.items()},
            "top5": {mode: among_best(x, rows["labels"], 5) for mode, x in logits.items()},
        }

    block, lanes = min(run.config.optimizer.batch_size, len(data)), lanes_for("auto")
    answers = predict(answer, run.selected, data, depth=2, lanes=lanes, block=block)
    return Answers(**answers, labels=data.labels)


def _by_class(run: Trained, answers: Answers, mode: str) -> np.ndarray:
    """Accuracy by class, `[seeds, arms, classes]`; not a number where there is no image."""
    right, classes = answers.right(mode), range(len(run.classes))
    members = [answers.labels == k for k in classes]
    return np.stack(
        [right[..., m].mean(-1) if m.any() else np.full(right.shape[:2], np.nan) for m in members],
        axis=-1,
    )


def _figures(run: Trained, answers: Answers) -> dict[str, Any]:
    figures: dict[str, Any] = {"classes": list(run.classes), "images": len(answers.labels)}
    for number, name in enumerate(run.arms):
        figures[name] = {
            mode: {
                "accuracy": answers.right(mode)[:, number].mean(-1).tolist(),
                "top5": answers.top5[mode][:, number].mean(-1).tolist(),
                "by_class": [
                    [None if np.isnan(x) else float(x) for x in row]
                    for row in _by_class(run, answers, mode)[:, number]
                ],
            }
            for mode in MODES
        }
    return figures


def _report(folder: Path, run: Trained, data: ImageSet, answers: Answers) -> Report:
    report = Report(
        f"Evaluation of {folder.name}",
        [
            f"run {folder}, preset {run.preset}, host {run.config.host}, student "
            f"{run.config.student}, {tables.seeds_in_words(run.seeds)}",
            f"{data.source}, {len(data)} images; the students of the last epoch, with the "
            "compensation dropped, as they are deployed, and kept",
        ],
    )
    report.add(tables.glossary(run.arms, MEANINGS), tables.spread_in_words(len(run.seeds)))
    with_top5 = len(run.classes) > 5
    names = ["top-1", "top-5"] if with_top5 else ["top-1"]
    lines = []
    for number, name in enumerate(run.arms):
        cells = []
        for mode in MODES:
            figures = [answers.right(mode), *([answers.top5[mode]] if with_top5 else [])]
            cells += [cell(100 * x[:, number].mean(-1)) for x in figures]
        lines.append([name, *cells])
    head = [f"{what}, {mode}" for mode in MODES for what in names]
    report.add(tables.table(["accuracy x 100", *head], lines))
    if len(run.classes) <= 20:
        accuracy = 100 * _by_class(run, answers, "drop").mean(0)
        lines = [
            [name, *(f"{x:.1f}" for x in values)]
            for name, values in zip(run.arms, accuracy, strict=True)
        ]
        report.add(tables.table(["accuracy x 100, drop", *run.classes], lines))
    return report


def _predictions(run: Trained, data: ImageSet, answers: Answers) -> str:
    """One line an arm, seed and image: true class, and the student's alone and compensated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "image", "true", *(x for m in MODES for x in (m, f"p_{m}"))])
    ids = getattr(data.images, "paths", range(len(data)))
    names = np.asarray(run.classes)
    true = names[answers.labels]
    for arm, name in enumerate(run.arms):
        for s, seed in enumerate(run.seeds):
            columns = []
            for mode in MODES:
                columns.append(names[answers.classes[mode][s, arm]])
                columns.append(np.char.mod("%.4f", answers.sure[mode][s, arm]))
            rows = zip(ids, true, *columns, strict=True)
            writer.writerows([name, seed, *row] for row in rows)
    return text.getvalue()
