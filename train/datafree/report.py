"""What a person reads of a data-free distillation: a table, paired gains, gates, what they mean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.dfkd import DfkdConfig
from train.datafree import pictures
from train.datafree.arms import ALONE, BALANCED, KDCI, RANDOM, pictured
from train.engine.tables import cell, line, paired
from train.engine.workdir import write_text

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
        own = ALONE if ALONE in self.names else name
        shares = self.histogram[:, self.names.index(own)]
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
        found: dict[str, Any] = {}
        for number, name in enumerate(self.names):
            found[name] = {
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
            found["teacher"] = self.teacher.tolist()
        return found


def write(
    folder: Path,
    preset: str,
    config: DfkdConfig,
    results: Results,
    picture: np.ndarray,
    facts: Sequence[str],
) -> str:
    """Write `results.json`, the figures and `report.md`; returns the latter's text.

    Args:
        folder: of the run.
        preset: of the run.
        config: of the run.
        results: of the run.
        picture: of the substitution data of `arms.pictured` and the first seed, by epoch,
            `[height, width, channels]` uint8.
        facts: lines above the table.
    """
    write_text(folder / "results.json", json.dumps(results.to_json(), indent=1) + "\n")
    pictures.save_png(folder / "figures" / "images.png", picture)
    shares = {name: results.histogram[:, i] for i, name in enumerate(results.names)}
    # rows that differ in the student alone have the same images
    planted = {name: x for name, x in shares.items() if name in (BALANCED, ALONE)} or shares
    pictures.class_histogram(folder / "figures" / "classes.png", planted, "substitution data")
    parts = [
        f"# Data-free distillation: {config.host}, {preset}",
        "\n".join(f"* {fact}" for fact in facts),
        _accuracies(results),
    ]
    if ALONE in results.names and len(results.names) > 1:
        parts.append(_gains(results))
    # where features are compensated, the student does not stand without
    mode = "drop" if config.compensation.site == "logits" else "keep"
    parts += [_classes(results, mode), _substitution(results)]
    if (checks := gates(preset, config, results)) is not None:
        parts.append("## Gates\n" + checks)
    parts.append(_reading(preset, config))
    parts.append("![classes of the substitution data](figures/classes.png)")
    accuracy = {name: results.by_class(name, mode) for name in _compared(results)}
    title = f"accuracy by class, last epoch, {mode}"
    pictures.class_accuracy(folder / "figures" / "accuracy.png", accuracy, title)
    parts.append(f"![{title}](figures/accuracy.png)")
    title = f"substitution data of {pictured(results.names)}, seed {config.first_seed}, by epoch"
    parts.append(f"{title}:\n\n![{title}](figures/images.png)")
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.md", text)
    return text


def _accuracies(results: Results) -> str:
    head = [f"{what}, {mode}" for mode in MODES for what in ("last", "best", "rare 5")]
    if more := len(results.rows) > 5:
        head.append("top-5, drop")
    lines = [line("accuracy x 100", head), "|---" * (len(head) + 1) + "|"]
    for number, name in enumerate(results.names):
        cells = []
        for mode in MODES:
            columns = (
                results.accuracy(name, mode),
                results.best[mode][:, number],
                results.rare(name, mode),
            )
            cells += [cell(100 * values) for values in columns]
        if more:
            cells.append(cell(100 * results.top5[:, number]))
        lines.append(line(name, cells))
    if results.teacher is not None:
        lines.append(line("*teacher*", [cell(100 * results.teacher)] + [""] * (len(head) - 1)))
    return "\n".join(lines)


def _gains(results: Results) -> str:
    head = ["drop", "each seed", "positive", "keep"]
    lines = [line(f"last epoch, minus {ALONE}", head), "|---" * (len(head) + 1) + "|"]
    for name in results.names:
        if name == ALONE:
            continue
        gains = {mode: gain(results, name, mode) for mode in MODES}
        each = gains["drop"]["each"]
        lines.append(
            line(
                name,
                [
                    f"{gains['drop']['mean']:+.2f} ± {gains['drop']['std']:.2f}",
                    " ".join(f"{x:+.1f}" for x in each),
                    f"{sum(x > 0 for x in each)} of {len(each)}",
                    f"{gains['keep']['mean']:+.2f} ± {gains['keep']['std']:.2f}",
                ],
            )
        )
    return "\n".join(lines)


def gain(results: Results, name: str, mode: str, base: str = ALONE) -> dict[str, Any]:
    """Paired difference in points of an arm's last accuracy and another's, dropped."""
    return paired(results.accuracy(name, mode), results.accuracy(base, "drop"))


def _compared(results: Results) -> tuple[str, ...]:
    """The rows whose classes are compared: the host and KDCI, or what there is."""
    return tuple(name for name in (ALONE, KDCI) if name in results.names) or results.names


def _classes(results: Results, mode: str) -> str:
    classes = len(results.rows)
    shown = classes <= _SHOWN_CLASSES
    head = list(map(str, range(classes))) if shown else ["best class", "median", "worst class"]
    lines = [line(f"accuracy by class x 100, last, {mode}", head), "|---" * (len(head) + 1) + "|"]
    for name in _compared(results):
        own = 100 * results.by_class(name, mode).mean(0)
        cells = own if shown else (own.max(), np.median(own), own.min())
        lines.append(line(name, [f"{x:.1f}" for x in cells]))
    return "\n".join(lines)


def _substitution(results: Results) -> str:
    classes = results.histogram.shape[-1]
    shown = classes <= _SHOWN_CLASSES
    head = ["KL to uniform, nats", *(map(str, range(classes)) if shown else ["rarest class"])]
    lines = [line("substitution data, % by the teacher", head), "|---" * (len(head) + 1) + "|"]
    for number, name in enumerate(results.names):
        shares = 100 * results.histogram[:, number].mean(0)
        cells = [f"{x:.1f}" for x in (shares if shown else [shares.min()])]
        lines.append(line(name, [cell(results.divergence(name)), *cells]))
    return "\n".join(lines)


def gates(preset: str, config: DfkdConfig, results: Results) -> str | None:
    """The claims of the digits' table and whether they hold; None where there are none."""
    wanted = {BALANCED, ALONE, KDCI, RANDOM}
    if preset != "digits" or not config.method.plants_skew or not wanted <= set(results.names):
        return None
    seeds = len(results.accuracy(ALONE, "drop"))
    if seeds < ENOUGH_SEEDS:
        return (
            f"Not judged: {seeds} seeds are too few for differences of this size; "
            f"--seeds {ENOUGH_SEEDS}."
        )
    lines = [line("claim", ["measured", "required", ""]), "|---" * 4 + "|"]

    def claim(what: str, measured: float, least: float, most: float = np.inf) -> None:
        asked = f">= {least:g}" if most == np.inf else f"<= {most:g}"
        verdict = "holds" if least <= measured <= most else "MISSED"
        lines.append(line(what, [f"{measured:.2f}", asked, verdict]))

    kdci = gain(results, KDCI, "drop")
    claim("the skew costs, points", -gain(results, ALONE, "drop", BALANCED)["mean"], 4.0)
    claim("KDCI gains, points", kdci["mean"], 0.5)
    positive = sum(x > 0 for x in kdci["each"])
    claim(f"KDCI gains in so many of {seeds} seeds", positive, np.ceil(0.7 * seeds))
    kept = abs(gain(results, KDCI, "keep")["mean"])
    claim("kept, it changes by so many points at most", kept, -np.inf, 2.0)
    beyond = gain(results, KDCI, "drop", RANDOM)["mean"]
    claim("KDCI minus random dictionary, points", beyond, 0.0)
    if results.teacher is not None:
        claim("least teacher's accuracy, %", 100 * results.teacher.min(), 97.5)
    kd = results.losses["kd"]
    fell = float(np.isfinite(kd).all() and (kd[..., -1] < kd[..., 0]).all())
    claim("every distillation loss is finite and falls", fell, 1.0)
    return "\n".join(lines)


def _reading(preset: str, config: DfkdConfig) -> str:
    parts = [
        "`last` is the figure to quote: nothing of the test set chose it. `best` is the best "
        "epoch on the test set, as published tables have it. `keep` judges the compensated "
        "prediction with the stored dictionary, `drop` the student alone, as it is deployed."
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
