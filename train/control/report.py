"""What a person reads of a quadruped run: who survives what, margins with verdicts, figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.quadruped import QuadrupedConfig
from corrkd_jax.errors import InputError
from train.control import detector_report, throughput
from train.control.reflection import Gate
from train.control.robots import CONDITIONS, joint_names
from train.control.throughput import Rate
from train.control.watching import Watched
from train.engine.progress import say
from train.engine.tables import cell, line
from train.engine.workdir import write_text

NAMES = {
    "ours": "ours",
    "no-reflection": "no reflection",
    "mix": "Mix (one network)",
    "normal": "Normal (healthy only)",
    "tuned": "ours, tuned",
}
ORACLE, LEARNED, BLIND = "ours, oracle switch", "ours, learned switch", "ours, healthy head only"


class Row(NamedTuple):
    """Survival and summed reward of one policy with one switch, `[seeds, conditions]`."""

    survival: np.ndarray
    reward: np.ndarray


class Results(NamedTuple):
    """What the report is made from.

    Attributes:
        rows: of the table, by name.
        watched: the detector's own figures, None without one.
        gates: probability of reflection -> a test a seed; empty for robots other than the toy.
    """

    rows: Mapping[str, Row]
    watched: Watched | None
    gates: Mapping[float, Sequence[Gate]]


def row_name(arm: str, switch: str) -> str:
    """Name of a row: of an arm, and of what chooses its head."""
    if arm == "ours":
        return {"oracle": ORACLE, "learned": LEARNED, "blind": BLIND}[switch]
    return f"{NAMES[arm]}, {switch} switch" if switch != "blind" else NAMES[arm]


def table(rows: Mapping[str, Row], field: str, scale: float) -> str:
    """One field of every row by condition, mean and deviation over seeds."""
    title = {"survival": "survival x 100", "reward": "reward of an episode"}[field]
    lines = [line(title, CONDITIONS), "|---" * (len(CONDITIONS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(line(name, [cell(scale * x) for x in getattr(row, field).T]))
    return "\n".join(lines)


def margins(results: Results) -> str:
    """What the surrogate was built to show, and whether it did; the least favourable seed too."""
    rows = results.rows
    lines = [line("claim", ["measured", "worst seed", "required", ""]), "|---" * 5 + "|"]

    def claim(name: str, values: np.ndarray, least: float, form: str = "{:.3f}") -> None:
        verdict = "holds" if values.mean() >= least else "MISSED"
        shown = [form.format(x) for x in (values.mean(), values.min())]
        lines.append(line(name, [*shown, ">= " + form.format(least), verdict]))

    health, loss, locked = range(3)
    if ORACLE in rows:
        own = rows[ORACLE].survival
        claim("survival, health", own[:, health], 0.98)
        claim("survival, power loss, oracle switch", own[:, loss], 0.95)
        blind = rows[BLIND].survival[:, loss]
        claim("fall, power loss, healthy head only", 1 - blind, 0.75)
    if LEARNED in rows:
        difference = rows[LEARNED].survival - rows[ORACLE].survival
        for at in (health, loss, locked):
            name = f"learned minus oracle switch, {CONDITIONS[at]}"
            claim(name, difference[:, at], -0.05, "{:+.3f}")
    other = row_name("no-reflection", "oracle")
    if ORACLE in rows and other in rows:
        difference = rows[ORACLE].survival - rows[other].survival
        for at in (loss, locked):
            name = f"with minus without reflection, {CONDITIONS[at]}"
            claim(name, difference[:, at], -0.02, "{:+.3f}")
    return "\n".join(lines)


def gate_table(gates: Mapping[float, Sequence[Gate]]) -> str:
    """Kolmogorov-Smirnov tests of first states, and verdicts."""
    head = ["p, speed (least seed)", "p, tilt", "mean speed minus healthy", "required", ""]
    lines = [line("faulty episodes start", head), "|---" * 6 + "|"]
    for rho, each in gates.items():
        p = np.array([gate.p for gate in each])
        off = np.array([gate.difference[0] for gate in each])
        worst = off[np.abs(off).argmax()]
        if rho:
            holds = p.min() > 0.01 and np.abs(off).max() < 0.05
            name, required = "from their partners", "p > 0.01, within 0.05"
        else:
            holds = p[:, 0].max() < 0.01
            name, required = "at rest", "p < 0.01"
        cells = [*(f"{x:.2g}" for x in p.min(axis=0)), f"{worst:+.3f}", required]
        lines.append(line(name, [*cells, "holds" if holds else "MISSED"]))
    return "\n".join(lines)


def write(
    folder: Path,
    title: str,
    config: QuadrupedConfig,
    results: Results,
    facts: Sequence[str],
    metrics: Sequence[Mapping[str, Any]],
    rates: Sequence[Rate],
) -> None:
    """Write `report.md`, `results.json` and figures; print the tables.

    Args:
        folder: of the run.
        title: heading.
        config: of the run.
        results: what it found.
        facts: lines on robots, seeds and machine.
        metrics: rows of `metrics.jsonl`, for the training curves.
        rates: control steps a second of its stages; empty if they are not known.

    Raises:
        InputError: the disk refuses.
    """
    parts = [f"# {title}", "\n".join(f"* {fact}" for fact in facts)]
    if results.rows:
        parts.append(
            "## Survival\nWhole episodes without a fall, x 100. The fault strikes at a step "
            "anywhere in the episode, so that a policy which it always fells survives a little."
        )
        parts.append(table(results.rows, "survival", 100))
        parts.append(table(results.rows, "reward", 1))
        parts.append("![survival by condition](figures/survival.png)")
    if results.rows and config.robot == "surrogate":
        parts.append("## What was planted\n" + margins(results))
    if results.watched:
        parts.append(
            "## Detector\nIn the loop: what it says switches the heads. Joints and steps of robots "
            "that stand; the first verdicts after an onset count as well unless said otherwise."
        )
        parts += detector_report.tables(results.watched)
        parts.append("![confusion and delay](figures/detector.png)")
    if results.gates:
        parts.append("## Reflection\n" + gate_table(results.gates))
    parts.append("## Training\n![survival in training](figures/training.png)")
    if rates:
        parts.append(throughput.table(rates))
    text = "\n\n".join(parts) + "\n"
    try:
        _training_figure(folder / "figures" / "training.png", metrics)
        if results.rows:
            _survival_figure(folder / "figures" / "survival.png", results.rows)
        if results.watched:
            counts, joints = results.watched.joints.sum(axis=0), joint_names(config.robot)
            detector_report.write(folder / "figures", results.watched, counts, joints)
    except OSError as error:
        raise InputError(f"{folder / 'figures'}: cannot be written: {error.strerror}") from error
    write_text(folder / "report.md", text)
    write_text(folder / "results.json", json.dumps(to_json(results), indent=1) + "\n")
    say(text)


def to_json(results: Results) -> dict[str, Any]:
    """All figures as plain lists."""
    return {
        "conditions": list(CONDITIONS),
        "rows": {
            name: {field: x.tolist() for field, x in row._asdict().items()}
            for name, row in results.rows.items()
        },
        "detector": results.watched and detector_report.to_json(results.watched),
        "reflection": {
            str(rho): [gate._asdict() for gate in each] for rho, each in results.gates.items()
        },
    }


def _survival_figure(path: Path, rows: Mapping[str, Row]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes, wide = figure.subplots(), 0.8 / len(rows)
    for number, (name, row) in enumerate(rows.items()):
        place = np.arange(len(CONDITIONS)) + (number - (len(rows) - 1) / 2) * wide
        values = 100 * row.survival
        axes.bar(place, values.mean(axis=0), wide, yerr=values.std(axis=0), label=name)
    axes.set_xticks(np.arange(len(CONDITIONS)), CONDITIONS)
    axes.set(ylabel="survival x 100")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)


def _training_figure(path: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Survival of the exploring policies by group and arm, recall of the detector."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    policies, detector = figure.subplots(1, 2)
    shown = [row for row in metrics if row["stage"] == "policies"]
    styles = {"healthy": "-", "power_loss": "--", "locked": ":"}
    for number, arm in enumerate(dict.fromkeys(row["arm"] for row in shown)):
        for group, style in styles.items():
            points = [np.mean(r[f"valid_survival_{group}"]) for r in shown if r["arm"] == arm]
            label = f"{NAMES[arm]}, {group.replace('_', ' ')}"
            axis = 1 + np.arange(len(points))
            policies.plot(axis, points, style, color=f"C{number}", lw=1, label=label)
    policies.set(xlabel="epoch", ylabel="episodes that end by the clock, in training")
    policies.legend(fontsize=5)
    watched = [row for row in metrics if row["stage"] == "detector"]
    for name in CONDITIONS:
        key = f"valid_recall_{name.replace(' ', '_')}"
        detector.plot([row["epoch"] + 1 for row in watched], [np.mean(r[key]) for r in watched])
    if watched:
        detector.legend(CONDITIONS, fontsize=7)
    detector.set(xlabel="epoch", ylabel="recall of the detector, in training")
    figure.savefig(path, dpi=130)
