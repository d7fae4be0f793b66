"""A finished data-free distillation on images: its table, classes, predictions of every student."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from corrkd_jax.data import images
from corrkd_jax.data.image_set import ImageSet
from train.datafree.distilling import Selected
from train.datafree.trained import Trained, load_run
from train.engine import cli
from train.engine.progress import Bar, say
from train.engine.stage import lanes_for
from train.engine.tables import cell, line
from train.engine.workdir import make_folder, write_text

MODES = ("drop", "keep")


@dataclass(frozen=True)
class Answers:
    """What all students say of all images.

    Attributes:
        classes: mode -> `[seeds, arms, images]`, the predicted class.
        sure: mode -> the same shape, its probability.
        top5: mode -> the same shape, whether the truth is among the five likeliest.
        labels: `[images]`.
    """

    classes: dict[str, np.ndarray]
    sure: dict[str, np.ndarray]
    top5: dict[str, np.ndarray]
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
    """Write `evaluation.md`, `evaluation.json` and `predictions.csv` of a finished run.

    Arguments as of `train.programs`.

    Raises:
        InputError: the run is not finished, or the images do not fit it.
    """
    options = cli.parse_options(
        EvaluateOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    out = Path(options.out) if options.out else folder
    run = load_run(folder)
    data = run.config.data
    found = images.read(
        run.preset, options.data.path or data.root, options.split, labels=data.labels
    )
    run.check(found)
    answers = ask(run, found)
    seeds = [run.config.first_seed + i for i in range(run.config.seeds)]
    text = _tables(folder, run, found, answers, seeds)
    make_folder(out)
    write_text(out / "evaluation.md", text)
    write_text(out / "evaluation.json", json.dumps(_figures(run, answers), indent=1) + "\n")
    write_text(out / "predictions.csv", _predictions(run, found, answers, seeds))
    say(text)
    say(f"{out / 'evaluation.md'}, {out / 'predictions.csv'}")


def ask(run: Trained, data: ImageSet) -> Answers:
    """Every student's answers, a block of images at a time."""
    network, lanes = run.network, lanes_for("auto")

    def one(chosen: Selected, pixels: Array, labels: Array) -> dict[str, dict[str, Array]]:
        answer = network.apply(
            chosen.variables,
            run.read(pixels),
            chosen.dictionary.confounders,
            chosen.dictionary.prior,
            chosen.strength,
        )
        return {
            mode: _said(logits, labels)
            for mode, logits in (("drop", answer.plain), ("keep", answer.logits))
        }

    answer = jax.jit(lanes(lanes(one, (0, None, None)), (0, None, None)))
    chosen = jax.tree.map(jnp.asarray, run.chosen)
    parts = [answer(chosen, pixels, labels) for pixels, labels in _blocks(run, data)]
    # the last block was filled up
    joined = jax.tree.map(lambda *x: np.concatenate(x, axis=-1)[..., : len(data)], *parts)
    figures = {
        what: {mode: joined[mode][what] for mode in MODES} for what in ("classes", "sure", "top5")
    }
    return Answers(**figures, labels=data.labels)


def _blocks(run: Trained, data: ImageSet) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    count, block = len(data), min(run.config.optimizer.batch_size, len(data))
    with Bar(count, unit="images") as bar:
        for first in range(0, count, block):
            bar.update(first, "judging")
            rows = data.take(np.minimum(np.arange(first, first + block), count - 1))
            yield rows["images"], rows["labels"]
        bar.update(count, "judging")


def _said(logits: Array, labels: Array) -> dict[str, Array]:
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    return {
        "classes": jnp.argmax(logits, axis=-1),
        "sure": jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1),
        "top5": jnp.sum(logits > own, axis=1) < 5,
    }


def _by_class(run: Trained, answers: Answers, mode: str) -> np.ndarray:
    """Accuracy by class, `[seeds, arms, classes]`; not a number where there is no image."""
    right, classes = answers.right(mode), range(len(run.classes))
    members = [answers.labels == k for k in classes]
    return np.stack(
        [right[..., m].mean(-1) if m.any() else np.full(right.shape[:2], np.nan) for m in members],
        axis=-1,
    )


def _figures(run: Trained, answers: Answers) -> dict[str, Any]:
    found: dict[str, Any] = {"classes": list(run.classes), "images": len(answers.labels)}
    for number, name in enumerate(run.arms):
        found[name] = {
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
    return found


def _tables(folder: Path, run: Trained, data: ImageSet, answers: Answers, seeds: list[int]) -> str:
    five = len(run.classes) > 5
    names = ["top-1", "top-5"] if five else ["top-1"]
    head = [f"{what}, {mode}" for mode in MODES for what in names]
    lines = [line("accuracy x 100", head), "|---" * (len(head) + 1) + "|"]
    for number, name in enumerate(run.arms):
        cells = []
        for mode in MODES:
            figures = [answers.right(mode)] + ([answers.top5[mode]] if five else [])
            cells += [cell(100 * x[:, number].mean(-1)) for x in figures]
        lines.append(line(name, cells))
    parts = [
        f"# Evaluation of {folder.name}",
        f"* run {folder}, preset {run.preset}, host {run.config.host}, student "
        f"{run.config.student}, seeds {seeds[0]} to {seeds[-1]}\n"
        f"* {data.source}, {len(data)} images; the students of the last epoch, with the "
        "compensation dropped, as they are deployed, and kept",
        "\n".join(lines),
    ]
    if len(run.classes) <= 20:
        lines = [line("accuracy x 100, drop", run.classes), "|---" * (len(run.classes) + 1) + "|"]
        for name, figures in zip(
            run.arms, _by_class(run, answers, "drop").swapaxes(0, 1), strict=True
        ):
            lines.append(line(name, [f"{x:.1f}" for x in 100 * figures.mean(0)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _predictions(run: Trained, data: ImageSet, answers: Answers, seeds: list[int]) -> str:
    """One line an arm, seed and image: truth, and what the student says alone and compensated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "image", "true", *(x for m in MODES for x in (m, f"p_{m}"))])
    ids = getattr(data.images, "paths", range(len(data)))
    names = np.asarray(run.classes)
    truth = names[answers.labels]
    for arm, name in enumerate(run.arms):
        for s, seed in enumerate(seeds):
            said = []
            for mode in MODES:
                said.append(names[answers.classes[mode][s, arm]])
                said.append(np.char.mod("%.4f", answers.sure[mode][s, arm]))
            rows = zip(ids, truth, *said, strict=True)
            writer.writerows([name, seed, *row] for row in rows)
    return text.getvalue()
