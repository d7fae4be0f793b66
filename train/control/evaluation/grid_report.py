"""What a person reads of an evaluated quadruped: survival by fault, tracking, the detector."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.solo8_constants import LEGS
from train.control import detector_report, throughput
from train.control.evaluation import grid_figures
from train.control.evaluation.grid import ONSETS
from train.control.evaluation.scores import STRICT_SECONDS, Row, Sides, interval
from train.control.robots import CONDITIONS
from train.control.throughput import Rate
from train.control.watching import Watched
from train.engine.progress import say
from train.engine.tables import line
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


def write(
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Row],
    watched: Watched | None,
    rates: Sequence[Rate],
    joints: tuple[str, ...],
) -> None:
    """Write tables, JSON and figures; print the tables.

    Args:
        folder: must exist.
        facts: of the run and the machine, for the head of both.
        rows: of the grid.
        watched: the detector; None if there is none.
        rates: control steps a second.
        joints: names of what the detector judges.
    """
    anywhere = [row for row in rows if row.onset == "anywhere"]
    parts = [
        f"# Evaluation of {facts['run']}",
        "\n".join(f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items()),
    ]
    for onset in dict.fromkeys(row.onset for row in rows):
        own = [row for row in rows if row.onset == onset]
        parts.append(f"## Survival, {TITLES[onset].format(*ONSETS[onset])}")
        parts.append("x 100, mean over cells, 95 % bootstrap interval over groups of robots")
        parts.append(survival_table(own))
        if onset == "anywhere" and facts["robot"] == "solo8":
            parts.append(PAPER)
    places = {(row.leg, row.joints) for row in anywhere if row.leg}
    if len(places) > 1:
        parts.append("## Cell by cell\nSurvival x 100, fault anywhere, middle; high speed")
        parts.append(cells_table(anywhere, lambda row: f"{100 * row.groups.mean():.1f}"))
        parts.append("Speed missed by robots that stand, 1 to 3 s after the onset, rms, m/s")
        parts.append(
            cells_table(anywhere, lambda row: _sides([row.missed_speed]).rpartition(" ")[2])
        )
    parts.append(
        "## Tracking\nRoot mean square of what is missed by robots that stand, 1 s before -> 1 to "
        "3 s after; mean over cells"
    )
    parts.append(tracking_table(anywhere))
    if any(row.contact is not None for row in rows):
        parts.append(
            "## Contact of the failing leg's foot\nSeconds of the episode, until the fall, with "
            "more than 1 N at this or the previous control step; 95 % bootstrap interval over "
            "groups of robots. Then the share of the time, 1 s before -> 1 to 3 s after. In "
            "health: the mean of the legs that are judged; the mean of all feet."
        )
        parts.append(contact_table(anywhere))
    parts.append("## Return\nReward summed over an episode or until the fall, mean over robots")
    parts.append(return_table(anywhere))
    if watched:
        parts += ["## Detector", *detector_report.tables(watched)]
        detector_report.write(folder, watched, watched.joints.sum(axis=0), joints)
    parts += ["## Throughput", throughput.table(rates)]
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "evaluation.md", text)
    found = {
        "facts": facts,
        "rows": [to_json(row) for row in rows],
        "detector": watched and {"names": joints, **detector_report.to_json(watched)},
        "throughput": throughput.to_json(rates),
    }
    write_text(folder / "evaluation.json", json.dumps(found, indent=1) + "\n")
    grid_figures.survival_figure(folder / "survival.png", anywhere)
    grid_figures.tracking_figure(folder / "tracking.png", anywhere)
    grid_figures.aligned_figure(folder / "onset.png", anywhere)
    throughput.figure(folder / "throughput.png", rates)
    if len({(row.leg, row.joints) for row in rows if row.leg}) > 1:
        grid_figures.map_figure(folder / "survival_map.png", anywhere)
    if any(row.contact is not None for row in rows):
        grid_figures.contact_figure(folder / "contact.png", anywhere)
    if any(row.gait for row in rows):
        grid_figures.gait_figure(folder / "gait.png", rows)
    say(text)
    say(f"{folder / 'evaluation.md'}, {folder / 'evaluation.json'}")


def to_json(row: Row) -> dict[str, Any]:
    """All of a row but the footfall of its one robot, as plain values."""
    found = row._asdict() | {"survival": float(row.groups.mean()), "groups": row.groups.tolist()}
    if row.contact is not None:
        found["contact"] = dict(zip(LEGS, row.contact.T.tolist(), strict=True))
    del found["gait"]
    return found


def columns(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Condition and speed of each column."""
    return list(dict.fromkeys((kind, row.speed) for kind in range(3) for row in rows))


def _table(title: str, rows: Sequence[Row], cell: Callable[[list[Row]], str]) -> str:
    head = [f"{CONDITIONS[kind]}, {speed}" for kind, speed in columns(rows)]
    lines = [line(title, head), "|---" * (len(head) + 1) + "|"]
    for policy in dict.fromkeys(row.policy for row in rows):
        cells = []
        for kind, speed in columns(rows):
            own = [r for r in rows if (r.policy, r.kind, r.speed) == (policy, kind, speed)]
            cells.append(cell(own))
        lines.append(line(policy, cells))
    return "\n".join(lines)


def survival_table(rows: Sequence[Row]) -> str:
    """Survival of every policy by condition and speed."""

    def cell(own: list[Row]) -> str:
        groups = np.concatenate([row.groups for row in own])
        low, high = interval(groups)
        return f"{100 * groups.mean():.1f} ({100 * low:.1f}-{100 * high:.1f})"

    return _table("policy", rows, cell)


def cells_table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    """A number of every fault, leg and set of joints, by policy, at each speed."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    lines = [line("fault, leg, joints", policies), "|---" * (len(policies) + 1) + "|"]
    places = dict.fromkeys((row.kind, row.leg, row.joints) for row in rows if row.leg)
    for kind, leg, joints in sorted(places, key=lambda place: place[0]):
        own = [row for row in rows if (row.kind, row.leg, row.joints) == (kind, leg, joints)]
        cells = ["; ".join(cell(row) for row in own if row.policy == name) for name in policies]
        lines.append(line(f"{CONDITIONS[kind]}, {leg}, {joints}", cells))
    return "\n".join(lines)


def tracking_table(rows: Sequence[Row]) -> str:
    """How much of the commanded speed, and yaw rate where there is one, is missed."""

    def cell(own: list[Row]) -> str:
        speed, yaw = (_sides([getattr(r, n) for r in own]) for n in ("missed_speed", "missed_yaw"))
        return speed if yaw == "- -> -" else f"{speed} m/s; {yaw} rad/s"

    return _table("policy", rows, cell)


def contact_table(rows: Sequence[Row]) -> str:
    """How long the failing leg's foot is loaded, and how much of the time around the onset."""
    legs = [LEGS.index(leg) for leg in dict.fromkeys(row.leg for row in rows if row.leg)]

    def cell(own: list[Row]) -> str:
        each = [
            row.contact[:, [LEGS.index(row.leg)] if row.leg else legs].mean(axis=1) for row in own
        ]
        groups = np.concatenate(each)
        low, high = interval(groups)
        return f"{groups.mean():.2f} s ({low:.2f}-{high:.2f}); {_sides([r.loaded for r in own])}"

    return _table("policy", rows, cell)


def return_table(rows: Sequence[Row]) -> str:
    """Reward of an episode."""
    return _table("policy", rows, lambda own: f"{np.mean([row.reward for row in own]):.2f}")


def _sides(pairs: list[Sides]) -> str:
    """Means over cells of what was before and after the onset."""
    known = [[x for x in side if x is not None] for side in zip(*pairs, strict=True)]
    return " -> ".join(f"{np.mean(side):.3f}" if side else "-" for side in known)
