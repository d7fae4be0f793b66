"""What a person reads of an evaluated quadruped: survival by fault, tracking, the detector."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.solo8_constants import LEGS
from train.control import detector_report, throughput
from train.control.evaluation import grid_figures
from train.control.evaluation.grid import ONSETS, SPEEDS
from train.control.evaluation.scores import STRICT_SECONDS, Row, Sides, interval
from train.control.report import MEANINGS
from train.control.robot import CONDITIONS, Kind
from train.control.throughput import Rate
from train.control.watching import Watched
from train.engine import tables
from train.engine.progress import say
from train.engine.report import Report
from train.engine.workdir import write_text

PAPER = """The paper's robots (arXiv:2402.08996, front left leg, both joints, 1600 robots a cell):

| policy | health, middle | health, high | power loss, middle | power loss, high \
| locked, middle | locked, high |
|---|---|---|---|---|---|---|
| ours, oracle switch | 100 | 100 | 95.9 | 86.0 | 97.3 | 83.8 |
| no reflection, oracle switch | 100 | 100 | 88.1 | 57.1 | 93.9 | 79.1 |
| Mix (one network) | 91.8 | 99.9 | 5.8 | 5.1 | 94.3 | 99.9 |
| Normal (healthy only) | 100 | 100 | 6.6 | 3.3 | 93.6 | 96.2 |"""

TITLES = {
    "anywhere": "fault anywhere in the first {1:g} s",
    "strict": f"fault within seconds {{0:g}} to {{1:g}}, {STRICT_SECONDS:g} s survived from it on",
}


class Evaluation(NamedTuple):
    """What an evaluation measured.

    Attributes:
        rows: every cell for every arm and switch.
        watched: quality of the detector; None if there is none.
        rates: control steps a second.
    """

    rows: list[Row]
    watched: Watched | None
    rates: list[Rate]


def build(facts: Mapping[str, Any], evaluation: Evaluation, kind: Kind) -> Report:
    """The page of an evaluation; its figures stand beside it.

    Args:
        facts: of the run and the machine, for its head.
        evaluation: what was measured.
        kind: of robot.
    """
    rows, watched, rates = evaluation
    anywhere = [row for row in rows if row.onset == "anywhere"]
    head = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    report = Report(f"Evaluation of {facts['run']}", head)
    report.add(tables.glossary({row.policy for row in rows}, MEANINGS))
    for onset in dict.fromkeys(row.onset for row in rows):
        report.section(f"Survival, {TITLES[onset].format(*ONSETS[onset])}")
        report.add(
            "x 100, of the robots of all cells together, with Wilson's 95 % interval. It is of "
            "this seed's networks; how far another training would differ it does not say."
        )
        report.add(survival_table([row for row in rows if row.onset == onset]))
        if onset == "anywhere":
            report.add(PAPER if kind.published else "")
            picture = grid_figures.survival_figure(anywhere)
            report.figure("evaluation_survival.png", "survival by condition and speed", picture)
    places = {(row.leg, row.joints) for row in anywhere if row.leg}
    if len(places) > 1:
        report.section("Cell by cell", "Survival x 100, fault anywhere, middle; high speed")
        report.add(cells_table(anywhere, lambda row: f"{100 * row.groups.mean():.1f}"))
        report.add("Speed missed by robots that stand, 1 to 3 s after the onset, rms, m/s")
        report.add(cells_table(anywhere, lambda row: _sides([row.missed_speed]).rpartition(" ")[2]))
        picture = grid_figures.map_figure(anywhere)
        report.figure("evaluation_survival_map.png", "survival by leg and joints", picture)
    report.section(
        "Tracking",
        "Root mean square of what is missed by robots that have not fallen, 1 s before the onset "
        f"-> 1 to 3 s after it; mean over cells. {_standing_still(anywhere)}",
        tracking_table(anywhere),
    )
    tracking = grid_figures.tracking_figure(anywhere)
    report.figure("evaluation_tracking.png", "what is missed before and after the onset", tracking)
    onset = grid_figures.aligned_figure(anywhere)
    report.figure("evaluation_onset.png", "speed and tilt around the onset", onset)
    if any(row.contact is not None for row in rows):
        report.section(
            "Contact of the failing leg's foot",
            "Seconds of the episode, until the fall, with more than 1 N at this or the previous "
            "control step; 95 % bootstrap interval over groups of robots. Then the share of the "
            "time, 1 s before -> 1 to 3 s after. In health: the mean of the legs that are "
            "evaluated; the mean of all feet.",
            contact_table(anywhere),
        )
        picture = grid_figures.contact_figure(anywhere)
        report.figure(
            "evaluation_contact.png", "seconds that the failing leg's foot is loaded", picture
        )
    if any(row.gait for row in rows):
        report.figure(
            "evaluation_gait.png", "footfall around a fault", grid_figures.gait_figure(rows)
        )
    report.section(
        "Return",
        "Reward summed over an episode or until the fall, mean over robots",
        return_table(anywhere),
    )
    if watched:
        picture = detector_report.figure(watched, watched.by_joint, kind.joints)
        report.section("Detector")
        report.add(*detector_report.tables(watched, kind.joints))
        report.figure("evaluation_detector.png", "confusion and delay", picture)
    report.section("Throughput")
    report.add(throughput.table(rates))
    report.figure("evaluation_throughput.png", "control steps a second", throughput.figure(rates))
    return report


def write(folder: Path, facts: Mapping[str, Any], evaluation: Evaluation, kind: Kind) -> None:
    """Write the page, JSON, figures and the detector's counts; print the page.

    Args:
        folder: made if it does not exist.
        facts: of the run and the machine, for the head of both.
        evaluation: what was measured.
        kind: of robot.

    Raises:
        InputError: the disk refuses.
    """
    text = build(facts, evaluation, kind).write(folder, "evaluation")
    rows, watched, rates = evaluation
    if watched:
        detector_report.write(folder, watched, watched.by_joint, kind.joints, "evaluation_")
    figures = {
        "facts": facts,
        "rows": [to_json(row) for row in rows],
        "detector": watched and {"names": kind.joints, **detector_report.to_json(watched)},
        "throughput": throughput.to_json(rates),
    }
    write_text(folder / "evaluation.json", json.dumps(figures, indent=1) + "\n")
    say(text)
    say(f"{folder / 'evaluation.md'}, {folder / 'evaluation.json'}")


def to_json(row: Row) -> dict[str, Any]:
    """All of a row but the footfall of its one robot, as plain values."""
    values = row._asdict() | {"survival": float(row.groups.mean()), "groups": row.groups.tolist()}
    if row.contact is not None:
        values["contact"] = dict(zip(LEGS, row.contact.T.tolist(), strict=True))
    del values["gait"]
    return values


def columns(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Condition and speed of each column."""
    return list(dict.fromkeys((kind, row.speed) for kind in range(3) for row in rows))


def _table(title: str, rows: Sequence[Row], cell: Callable[[list[Row]], str]) -> str:
    """A row for each policy, a column for each condition and speed."""
    head = [f"{CONDITIONS[kind]}, {speed}" for kind, speed in columns(rows)]
    lines = []
    for policy in dict.fromkeys(row.policy for row in rows):
        cells = []
        for kind, speed in columns(rows):
            those = [r for r in rows if (r.policy, r.kind, r.speed) == (policy, kind, speed)]
            cells.append(cell(those))
        lines.append([policy, *cells])
    return tables.table([title, *head], lines)


def survival_table(rows: Sequence[Row]) -> str:
    """Survival of every policy by condition and speed."""

    def cell(rows: list[Row]) -> str:
        return tables.share(sum(row.survived for row in rows), sum(row.robots for row in rows))

    return _table("policy", rows, cell)


def cells_table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    """A number of every fault, leg and set of joints, by policy, at each speed."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    lines = []
    places = dict.fromkeys((row.kind, row.leg, row.joints) for row in rows if row.leg)
    for kind, leg, joints in sorted(places, key=lambda place: place[0]):
        place = [row for row in rows if (row.kind, row.leg, row.joints) == (kind, leg, joints)]
        cells = ["; ".join(cell(row) for row in place if row.policy == name) for name in policies]
        lines.append([f"{CONDITIONS[kind]}, {leg}, {joints}", *cells])
    return tables.table(["fault, leg, joints", *policies], lines)


def tracking_table(rows: Sequence[Row]) -> str:
    """How much of the commanded speed, and yaw rate where there is one, is missed."""

    def cell(rows: list[Row]) -> str:
        speed, yaw = (_sides([getattr(r, n) for r in rows]) for n in ("missed_speed", "missed_yaw"))
        return speed if yaw == "- -> -" else f"{speed} m/s; {yaw} rad/s"

    return _table("policy", rows, cell)


def contact_table(rows: Sequence[Row]) -> str:
    """How long the failing leg's foot is loaded, and how much of the time around the onset."""
    legs = [LEGS.index(leg) for leg in dict.fromkeys(row.leg for row in rows if row.leg)]

    def cell(rows: list[Row]) -> str:
        each = [
            row.contact[:, [LEGS.index(row.leg)] if row.leg else legs].mean(axis=1) for row in rows
        ]
        groups = np.concatenate(each)
        low, high = interval(groups)
        return f"{groups.mean():.2f} s ({low:.2f}-{high:.2f}); {_sides([r.loaded for r in rows])}"

    return _table("policy", rows, cell)


def return_table(rows: Sequence[Row]) -> str:
    """Reward of an episode."""
    return _table("policy", rows, lambda rows: f"{np.mean([row.reward for row in rows]):.2f}")


def _standing_still(rows: Sequence[Row]) -> str:
    """What a robot that does not walk misses, as a sentence."""
    missed = []
    for name in dict.fromkeys(row.speed for row in rows):
        low, high = SPEEDS[name]
        # of a command that is uniform in between
        missed.append(f"{((low**2 + low * high + high**2) / 3) ** 0.5:.2f} m/s at {name} speed")
    return f"One that does not walk misses {' and '.join(missed)}."


def _sides(pairs: list[Sides]) -> str:
    """Means over cells of what was before and after the onset."""
    known = [[x for x in side if x is not None] for side in zip(*pairs, strict=True)]
    return " -> ".join(f"{np.mean(side):.3f}" if side else "-" for side in known)
