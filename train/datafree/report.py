"""What a person reads of a data-free distillation: a table, paired gains, gates, what they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.dfkd import DfkdConfig
from train.datafree import pictures
from train.datafree.arms import ALONE, BALANCED, FLAT, KDCI, RANDOM, SCALED, pictured
from train.engine import tables
from train.engine.report import Report, evaluate_and_export
from train.engine.tables import Claims, cell, paired, points

MEANINGS = {
    BALANCED: "the host on substitution data whose classes are alike",
    ALONE: "the method that KDCI is added to, on substitution data as they come",
    KDCI: "the same with the compensation by a dictionary of confounders",
    "trained W_z": "its projection trained as well",
    RANDOM: "noise of the dictionary's mean and spread in its place, a control",
    FLAT: "equal shares in the place of the prior, a control",
    SCALED: "the prior times the number of prototypes",
    "teacher": "what all of them learn from",
}
"""What the rows of the table stand for."""
MODES = ("drop", "keep")
ENOUGH_SEEDS = 10
_SHOWN_CLASSES = 20


@dataclass(frozen=True)
class Results:
    """Figures of all arms.

    Attributes:
        names: of the arms, in order.
        right: mode -> `[seeds, arms, classes]`, right answers on the test set, last epoch.
        rows: `[classes]` of the test set.
        top5: `[seeds, arms]`, top-5 accuracy with the compensation dropped, last epoch.
        best: mode -> `[seeds, arms]`, accuracy at its best epoch on the test set.
        histogram: `[seeds, arms, classes]`, shares of classes among the substitution data.
        losses: metric -> `[seeds, arms, epochs]`, of training.
        teacher: its accuracy, `[seeds]`, or `[1]` of one from a file; None: not known.
    """

    names: tuple[str, ...]
    right: Mapping[str, np.ndarray]
    rows: np.ndarray
    top5: np.ndarray
    best: Mapping[str, np.ndarray]
    histogram: np.ndarray
    losses: Mapping[str, np.ndarray]
    teacher: np.ndarray | None

    def accuracy(self, name: str, mode: str) -> np.ndarray:
        """Accuracy at the last epoch, `[seeds]`."""
        return self.right[mode][:, self.names.index(name)].sum(-1) / self.rows.sum()

    def by_class(self, name: str, mode: str) -> np.ndarray:
        """Accuracy of every class at the last epoch, `[seeds, classes]`."""
        return self.right[mode][:, self.names.index(name)] / np.maximum(self.rows, 1)

    def rare(self, name: str, mode: str, count: int = 5) -> np.ndarray:
        """Mean accuracy of the classes that the host's substitution data hold least, `[seeds]`."""
        held_by = ALONE if ALONE in self.names else name
        shares = self.histogram[:, self.names.index(held_by)]
        # of equal shares the later class is the rarer
        least = np.argsort(shares[:, ::-1], axis=-1, kind="stable")[:, :count]
        least = shares.shape[-1] - 1 - least
        return np.take_along_axis(self.by_class(name, mode), least, axis=-1).mean(-1)

    def divergence(self, name: str) -> np.ndarray:
        """KL of the substitution data's classes from equal shares, in nats, `[seeds]`."""
        shares = self.histogram[:, self.names.index(name)]
        logs = np.log(np.where(shares > 0, shares * shares.shape[-1], 1))
        return np.sum(shares * logs, axis=-1)

    def to_json(self) -> dict[str, Any]:
        """All figures as plain lists."""
        figures: dict[str, Any] = {}
        for number, name in enumerate(self.names):
            figures[name] = {
                "histogram": self.histogram[:, number].tolist(),
                "divergence": self.divergence(name).tolist(),
                "drop_top5": self.top5[:, number].tolist(),
                **{
                    mode: {
                        "accuracy": self.accuracy(name, mode).tolist(),
                        "best": self.best[mode][:, number].tolist(),
                        "rare": self.rare(name, mode).tolist(),
                        "by_class": self.by_class(name, mode).tolist(),
                    }
                    for mode in MODES
                },
            }
        if self.teacher is not None:
            figures["teacher"] = self.teacher.tolist()
        return figures


def build(
    preset: str,
    config: DfkdConfig,
    results: Results,
    picture: np.ndarray,
    facts: Sequence[str],
    folder: Path,
) -> Report:
    """The report of a run and its figures.

    Args:
        preset: of the run.
        config: of the run.
        results: of the run.
        picture: of the substitution data of `arms.pictured` and the first seed, by epoch,
            `[height, width, channels]` uint8.
        facts: lines above the table.
        folder: of the run.
    """
    report = Report(f"Data-free distillation: {config.host}, {preset}", facts)
    seeds = len(results.accuracy(results.names[0], "drop"))
    known = [*results.names, *(["teacher"] if results.teacher is not None else [])]
    report.add(
        _reading(preset, config),
        tables.glossary(known, MEANINGS),
        tables.spread_in_words(seeds),
        _accuracies(results),
    )
    if ALONE in results.names and len(results.names) > 1:
        report.add(_gains(results))
    # where features are compensated, the student does not stand without
    mode = "drop" if config.compensation.site == "logits" else "keep"
    report.add(_classes(results, mode), _substitution(results))
    if gates := planted_gates(preset, config, results):
        report.section("What was planted", gates)
    shares = {name: results.histogram[:, i] for i, name in enumerate(results.names)}
    # rows that differ in the student alone have the same images
    planted = {name: x for name, x in shares.items() if name in (BALANCED, ALONE)} or shares
    histogram = pictures.class_histogram(planted, "substitution data")
    report.figure("classes.png", "classes of the substitution data", histogram)
    accuracy = {name: results.by_class(name, mode) for name in _compared(results)}
    title = f"accuracy by class, last epoch, {mode}"
    report.figure("accuracy.png", title, pictures.class_accuracy(accuracy, title))
    title = f"substitution data of {pictured(results.names)}, seed {config.first_seed}, by epoch"
    report.add(f"{title}:")
    report.figure("images.png", title, pictures.png(picture))
    evaluated = "accuracy by class and predictions.csv; --data.path DIR: of other images"
    report.next_steps(evaluate_and_export(folder, evaluated, "a student to use elsewhere"))
    return report


def _accuracies(results: Results) -> str:
    head = [f"{what}, {mode}" for mode in MODES for what in ("last", "best", "rare 5")]
    if with_top5 := len(results.rows) > 5:
        head.append("top-5, drop")
    lines = []
    for number, name in enumerate(results.names):
        columns = [
            values
            for mode in MODES
            for values in (
                results.accuracy(name, mode),
                results.best[mode][:, number],
                results.rare(name, mode),
            )
        ]
        if with_top5:
            columns.append(results.top5[:, number])
        lines.append([name, *(cell(100 * values) for values in columns)])
    if results.teacher is not None:
        lines.append(["*teacher*", cell(100 * results.teacher), *[""] * (len(head) - 1)])
    return tables.table(["accuracy x 100", *head], lines)


def _gains(results: Results) -> str:
    lines = []
    for name in results.names:
        if name == ALONE:
            continue
        drop, keep = (gain(results, name, mode) for mode in MODES)
        each = drop["each"]
        signs = f"{sum(x > 0 for x in each)} of {len(each)}"
        differences = " ".join(f"{x:+.1f}" for x in each)
        lines.append([name, points(drop), differences, signs, points(keep)])
    head = [f"last epoch, minus {ALONE}", "drop", "each seed", "positive", "keep"]
    return tables.table(head, lines)


def gain(results: Results, name: str, mode: str, base: str = ALONE) -> dict[str, Any]:
    """Paired difference in points of an arm's last accuracy and another's, dropped."""
    return paired(results.accuracy(name, mode), results.accuracy(base, "drop"))


def _compared(results: Results) -> tuple[str, ...]:
    """The rows whose classes are compared: the host and KDCI, or what there is."""
    return tuple(name for name in (ALONE, KDCI) if name in results.names) or results.names


def _classes(results: Results, mode: str) -> str:
    classes = len(results.rows)
    by_class = classes <= _SHOWN_CLASSES
    head = list(map(str, range(classes))) if by_class else ["best class", "median", "worst class"]
    lines = []
    for name in _compared(results):
        accuracy = 100 * results.by_class(name, mode).mean(0)
        extremes = (accuracy.max(), np.median(accuracy), accuracy.min())
        lines.append([name, *(f"{x:.1f}" for x in (accuracy if by_class else extremes))])
    return tables.table([f"accuracy by class x 100, last, {mode}", *head], lines)


def _substitution(results: Results) -> str:
    classes = results.histogram.shape[-1]
    by_class = classes <= _SHOWN_CLASSES
    head = ["KL to uniform, nats", *(map(str, range(classes)) if by_class else ["rarest class"])]
    lines = []
    for number, name in enumerate(results.names):
        shares = 100 * results.histogram[:, number].mean(0)
        cells = [f"{x:.1f}" for x in (shares if by_class else [shares.min()])]
        lines.append([name, cell(results.divergence(name)), *cells])
    return tables.table(["substitution data, % by the teacher", *head], lines)


def planted_gates(preset: str, config: DfkdConfig, results: Results) -> str:
    """What the digits' planted skew was to show, and whether it did; empty where none is planted.

    Of too few seeds, a line that says so.
    """
    needed = {BALANCED, ALONE, KDCI, RANDOM}
    if preset != "digits" or not config.method.plants_skew or not needed <= set(results.names):
        return ""
    seeds = len(results.accuracy(ALONE, "drop"))
    if seeds < ENOUGH_SEEDS:
        return (
            f"Not judged: {seeds} seeds are too few for differences of this size; "
            f"--seeds {ENOUGH_SEEDS}."
        )
    return planted_claims(results).table()


def planted_claims(results: Results) -> Claims:
    """What the planted skew was to show, of results with the balanced and the random control."""
    claims = Claims("claim", "measured", "required")

    def claim(name: str, measured: float, least: float, most: float = np.inf) -> None:
        required = f">= {least:g}" if most == np.inf else f"<= {most:g}"
        claims.add(name, f"{measured:.2f}", required, holds=bool(least <= measured <= most))

    kdci = gain(results, KDCI, "drop")
    claim("the skew costs, points", -gain(results, ALONE, "drop", BALANCED)["mean"], 4.0)
    claim("KDCI gains, points", kdci["mean"], 0.5)
    seeds, positive = len(kdci["each"]), sum(x > 0 for x in kdci["each"])
    claim(f"KDCI gains in so many of {seeds} seeds", positive, np.ceil(0.7 * seeds))
    change = abs(gain(results, KDCI, "keep")["mean"])
    claim("kept, it changes by so many points at most", change, -np.inf, 2.0)
    beyond = gain(results, KDCI, "drop", RANDOM)["mean"]
    claim("KDCI minus random dictionary, points", beyond, 0.0)
    if results.teacher is not None:
        claim("least teacher's accuracy, %", 100 * results.teacher.min(), 97.5)
    kd = results.losses["kd"]
    fell = float(np.isfinite(kd).all() and (kd[..., -1] < kd[..., 0]).all())
    claim("every distillation loss is finite and falls", fell, 1.0)
    return claims


def _reading(preset: str, config: DfkdConfig) -> str:
    parts = [
        "Columns: `last`, the last epoch, is the figure to quote: nothing of the test set chose "
        "it. `best` is the best epoch on the test set, as published tables have it. `rare 5` is "
        "the mean over the five classes of which the host's substitution data have least. `drop` "
        "evaluates the student alone, as it is deployed, `keep` the compensated prediction with "
        "the stored dictionary."
    ]
    if preset == "digits" and config.method.plants_skew:
        parts.append(
            "What this shows: how much a planted skew of the substitution data's classes costs a "
            "student on real digits, and how much of it the compensation wins back, seed by seed, "
            "beside a dictionary of noise and one without its prior. What it does not show: the "
            "published gains. They are of CIFAR and ImageNet, of students whose baselines are "
            "weak, and no public code reproduces them. Digits are easy, the effect is a few "
            "points, and single seeds differ by as much: three seeds say little about the order "
            "of rows."
        )
    return "\n\n".join(parts)
