"""What a person reads of a quadruped run: who survives what, margins with verdicts, figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from train.control import detector_report, throughput, training_report
from train.control.reflection import Gate
from train.control.robot import CONDITIONS, Kind
from train.control.throughput import Rate
from train.control.watching import Watched
from train.engine import tables
from train.engine.progress import say
from train.engine.report import Report, command, legend_beside
from train.engine.tables import Claims, cell
from train.engine.workdir import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "ours": "ours",
    "no-reflection": "no reflection",
    "mix": "Mix (one network)",
    "normal": "Normal (healthy only)",
    "tuned": "ours, tuned",
}
ORACLE, LEARNED, BLIND = "ours, oracle switch", "ours, learned switch", "ours, healthy head only"

MEANINGS = {
    "ours": "a head for health, one for power loss and one for locked joints",
    "no reflection": "the same, faulty episodes starting at rest and not in the middle of walking",
    "Mix": "one network for everything",
    "Normal": "one network that met no fault in training",
    "tuned": "the fault heads trained on with the detector switching",
    "oracle switch": "the simulator tells of a fault at once",
    "late": "the simulator tells some control steps after the onset",
    "learned switch": "the detector tells",
    "healthy head only": "nobody tells",
}
"""What the parts of a row's name stand for."""


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
    lines = [
        [name, *(cell(scale * x) for x in getattr(row, field).T)] for name, row in rows.items()
    ]
    return tables.table([title, *CONDITIONS], lines)


def planted_claims(rows: Mapping[str, Row]) -> Claims:
    """What the surrogate was built to show, and whether it did; the least favourable seed too."""
    claims = Claims("claim", "measured", "worst seed", "required")

    def claim(name: str, values: np.ndarray, least: float, form: str = "{:.3f}") -> None:
        measured = [form.format(x) for x in (values.mean(), values.min())]
        claims.add(name, *measured, ">= " + form.format(least), holds=values.mean() >= least)

    health, loss, locked = range(3)
    if ORACLE in rows:
        survival = rows[ORACLE].survival
        claim("survival, health", survival[:, health], 0.98)
        claim("survival, power loss, oracle switch", survival[:, loss], 0.95)
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
    return claims


def gate_claims(gates: Mapping[float, Sequence[Gate]]) -> Claims:
    """Kolmogorov-Smirnov tests of first states, and whether they come out as they must."""
    columns = ("p, speed (least seed)", "p, tilt", "mean speed minus healthy", "required")
    claims = Claims("faulty episodes start", *columns)
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
        claims.add(name, *cells, holds=bool(holds))
    return claims


def build(
    kind: Kind,
    results: Results,
    *,
    title: str,
    facts: Sequence[str],
    metrics: Sequence[Mapping[str, Any]],
    rates: Sequence[Rate],
    folder: Path,
    seeds: Sequence[int],
) -> Report:
    """The report of a run and its figures.

    Args:
        kind: of robot.
        results: of the evaluation after the training.
        title: heading.
        facts: lines on robots, seeds and machine.
        metrics: rows of `metrics.jsonl`, for what the training saw of itself.
        rates: control steps a second of its stages; empty if they are not known.
        folder: of the run.
        seeds: of the run.
    """
    report = Report(title, facts)
    if results.rows:
        report.section(
            "Survival",
            "Whole episodes without a fall, x 100. The fault strikes at a step anywhere in the "
            "episode, so that a policy which it always fells survives a little. "
            f"{tables.spread_in_words(len(seeds))} All rows meet the same robots.",
            tables.glossary(results.rows, MEANINGS),
            table(results.rows, "survival", 100),
            table(results.rows, "reward", 1),
        )
        report.figure("survival.png", "survival by condition", _survival_figure(results.rows))
        if kind.planted:
            claims = planted_claims(results.rows).table()
            report.section("What was planted", claims, not_shown(results.rows))
    if results.watched:
        report.section(
            "Detector",
            "In the loop: what it says switches the heads. Joints and steps of robots that stand; "
            "the first verdicts after an onset count as well unless said otherwise.",
            *detector_report.tables(results.watched, kind.joints),
        )
        counts = results.watched.by_joint
        picture = detector_report.figure(results.watched, counts, kind.joints)
        report.figure("detector.png", "confusion and delay", picture)
    if results.gates:
        report.section("Reflection", gate_claims(results.gates).table())
    _training(report, kind, metrics, seeds)
    if rates:
        report.add(throughput.table(rates))
    detects = any(row["stage"] == "detector" for row in metrics)
    report.next_steps(_next_steps(folder, seeds, detects))
    return report


def not_shown(rows: Mapping[str, Row]) -> str:
    """What the toy does not show, with the figures that say so; empty without such rows."""
    survival = {name: 100 * row.survival[:, 1:].mean() for name, row in rows.items()}
    others = [row_name("mix", "blind"), row_name("no-reflection", "oracle")]
    others = [name for name in others if name in rows]
    if ORACLE not in rows or not others:
        return ""
    measured = ", ".join(f"{name} {survival[name]:.1f}" for name in (ORACLE, *others))
    return (
        "Not shown: that a head for each fault, or reflection, is needed. The toy was built so "
        "that the healthy policy falls, and no more. Mix, which sees the failed leg's thrust, and "
        "episodes that start at rest may do as well as ours on it. Here, survival x 100, mean of "
        f"both faults: {measured}. On the paper's robots without power, at middle and high speed: "
        "ours 95.9 and 86.0, no reflection 88.1 and 57.1, Mix 5.8 and 5.1."
    )


def _training(
    report: Report, kind: Kind, metrics: training_report.Rows, seeds: Sequence[int]
) -> None:
    """Add what the training saw of itself; of robots that a run does not evaluate all there is."""
    if not metrics:
        return
    walking = "" if kind.planted else training_report.walking_table(metrics, NAMES, seeds)
    report.section(
        "Training",
        f"{training_report.NOTE} {tables.spread_in_words(len(seeds))}",
        training_report.policies_table(metrics, NAMES),
        walking,
        training_report.recall_table(metrics),
    )
    picture = training_report.figure(metrics, NAMES)
    report.figure("training.png", "survival and recall in training", picture)


def _next_steps(folder: Path, seeds: Sequence[int], detects: bool) -> dict[str, str]:
    """Commands that go on from a finished run."""
    steps = {command("train.evaluate", folder): "who survives which fault, leg, joints and speed"}
    for seed in seeds[1:2]:
        steps[command("train.evaluate", folder, "--seed", seed)] = "an evaluation is of one seed"
    if detects:
        export = command("train.export", folder, folder / "export")
        film = command("train.quadruped", "render", folder, folder / "film.gif")
        steps |= {export: "policy, detector and switch for a robot", film: "a fault that strikes"}
    return steps


def write(folder: Path, report: Report, kind: Kind, results: Results) -> None:
    """Write the report, `results.json` and the detector's counts; print the report.

    Args:
        folder: of the run.
        report: of `build`.
        kind: of robot.
        results: that the report is made from.

    Raises:
        InputError: the disk refuses.
    """
    text = report.write(folder)
    if results.watched:
        counts = results.watched.by_joint
        detector_report.write(folder, results.watched, counts, kind.joints)
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


def _survival_figure(rows: Mapping[str, Row]) -> "Figure":
    """Survival of every row by condition, as bars with the deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes, wide = figure.subplots(), 0.8 / len(rows)
    for number, (name, row) in enumerate(rows.items()):
        place = np.arange(len(CONDITIONS)) + (number - (len(rows) - 1) / 2) * wide
        values = 100 * row.survival
        spread = tables.deviation(values)
        axes.bar(place, values.mean(axis=0), wide, yerr=spread, label=name)
    axes.set_xticks(np.arange(len(CONDITIONS)), CONDITIONS)
    axes.set(ylabel="survival x 100", ylim=(0, 103))
    legend_beside(axes)
    return figure
