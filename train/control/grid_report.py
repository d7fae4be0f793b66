"""What a person reads of an evaluated quadruped: survival by fault, tracking, the detector."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from envs.faults import HEALTHY
from envs.solo8_constants import LEGS
from train.control import detector_report
from train.control.grid import ONSETS, STRICT_SECONDS, Row, interval
from train.control.report import BLIND, LEARNED, ORACLE, confusion_table, detector_table
from train.control.robots import CONDITIONS
from train.control.watching import Watched
from train.progress import say
from train.report import line
from train.workdir import write_text

TITLES = {
    "anywhere": "fault anywhere in the first {1:g} s",
    "strict": f"fault within seconds {{0:g}} to {{1:g}}, {STRICT_SECONDS:g} s survived from it on",
}


def write(
    folder: Path, facts: Mapping[str, Any], rows: Sequence[Row], watched: Watched | None
) -> None:
    """Write tables, JSON and figures; print the tables.

    Args:
        folder: must exist.
        facts: of the run and the machine, for the head of both.
        rows: of the grid.
        watched: the detector; None if there is none.
    """
    parts = [
        f"# Evaluation of {facts['run']}",
        "\n".join(f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items()),
    ]
    for onset in dict.fromkeys(row.onset for row in rows):
        own = [row for row in rows if row.onset == onset]
        parts.append(f"## Survival, {TITLES[onset].format(*ONSETS[onset])}")
        parts.append("x 100, mean over cells, 95 % bootstrap interval over groups of robots")
        parts.append(survival_table(own))
    parts.append("## Tracking\nRoot mean square of what is missed, 1 s before -> 1 to 3 s after")
    parts.append(tracking_table([row for row in rows if row.onset == "anywhere"]))
    parts.append("## Return\nReward summed over an episode or until the fall, mean over robots")
    parts.append(return_table([row for row in rows if row.onset == "anywhere"]))
    if watched:
        parts += ["## Detector", confusion_table(watched), detector_table(watched)]
        detector_report.write(folder, watched, watched.confusion.sum(axis=0))
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "evaluation.md", text)
    found = {
        "facts": facts,
        "rows": [
            {name: value for name, value in row._asdict().items() if name != "gait"}
            | {"groups": row.groups.tolist()}
            for row in rows
        ],
    }
    write_text(folder / "evaluation.json", json.dumps(found, indent=1) + "\n")
    anywhere = [row for row in rows if row.onset == "anywhere"]
    box_figure(folder / "survival.png", anywhere)
    aligned_figure(folder / "onset.png", anywhere)
    if len({(row.leg, row.joints) for row in rows if row.leg}) > 1:
        map_figure(folder / "survival_map.png", anywhere)
    if any(row.gait for row in rows):
        gait_figure(folder / "gait.png", rows)
    say(text)
    say(f"{folder / 'evaluation.md'}, {folder / 'evaluation.json'}")


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


def tracking_table(rows: Sequence[Row]) -> str:
    """How much of the commanded speed, and yaw rate where there is one, is missed."""

    def mean(pairs: list[list[float | None]]) -> str:
        sides = [[x for x in side if x is not None] for side in zip(*pairs, strict=True)]
        return " -> ".join(f"{np.mean(side):.3f}" if side else "-" for side in sides)

    def cell(own: list[Row]) -> str:
        speed, yaw = mean([r.missed_speed for r in own]), mean([r.missed_yaw for r in own])
        return speed if yaw == "- -> -" else f"{speed} m/s; {yaw} rad/s"

    return _table("policy", rows, cell)


def return_table(rows: Sequence[Row]) -> str:
    """Reward of an episode."""
    return _table("policy", rows, lambda own: f"{np.mean([row.reward for row in own]):.2f}")


def box_figure(path: Path, rows: Sequence[Row]) -> None:
    """Survival of the groups of robots, a box for each policy."""
    policies = list(dict.fromkeys(row.policy for row in rows))
    speeds = list(dict.fromkeys(row.speed for row in rows))
    figure = Figure(figsize=(4 * len(CONDITIONS), 3.4 * len(speeds)), layout="constrained")
    panels = figure.subplots(len(speeds), len(CONDITIONS), squeeze=False, sharey=True)
    for (at, kind), axes in np.ndenumerate(panels):
        groups = [
            np.concatenate(
                [r.groups for r in rows if (r.policy, r.kind, r.speed) == (name, kind, speeds[at])]
            )
            for name in policies
        ]
        axes.boxplot(groups, orientation="horizontal", manage_ticks=False)
        axes.set(title=f"{CONDITIONS[kind]}, {speeds[at]} speed", xlim=(-0.03, 1.03))
    # of all panels, which share this axis
    panels[0, 0].set_yticks(range(1, len(policies) + 1), policies)
    panels[-1, 0].set_xlabel("survival of a group of robots")
    figure.savefig(path, dpi=120)


def map_figure(path: Path, rows: Sequence[Row]) -> None:
    """Survival by leg and joints, of the policy as deployed."""
    policy = deployed(rows)
    own = [row for row in rows if row.policy == policy and row.leg]
    legs, parts = (list(dict.fromkeys(getattr(r, n) for r in own)) for n in ("leg", "joints"))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for kind, axes in enumerate(figure.subplots(1, 2), start=HEALTHY + 1):
        values = np.array(
            [
                [
                    np.mean([r.groups.mean() for r in own
                             if (r.kind, r.leg, r.joints) == (kind, leg, part)])
                    for part in parts
                ]
                for leg in legs
            ]
        )  # fmt: skip
        axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="white")
        axes.set(
            xticks=range(len(parts)),
            yticks=range(len(legs)),
            xticklabels=parts,
            yticklabels=legs,
            title=CONDITIONS[kind],
        )
    figure.suptitle(f"survival x 100: {policy}")
    figure.savefig(path, dpi=120)


def aligned_figure(path: Path, rows: Sequence[Row]) -> None:
    """Mean speed and tilt of the robots that stand, around the onset."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for policy in dict.fromkeys(row.policy for row in rows):
        for column, kind in enumerate(range(HEALTHY + 1, len(CONDITIONS))):
            own = [row.aligned for row in rows if (row.policy, row.kind) == (policy, kind)]
            for axes, name in zip(panels[:, column], ("speed", "tilt"), strict=True):
                values = np.array([each[name] for each in own], float)
                known = np.isfinite(values)
                mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
                mean[~known.any(axis=0)] = np.nan
                axes.plot(own[0]["seconds"], mean, label=policy, lw=1)
                axes.axvline(0, color="0.7", lw=0.8)
            panels[0, column].set_title(CONDITIONS[kind])
    panels[0, 0].set_ylabel("mean forward speed, m/s")
    panels[1, 0].set_ylabel("mean size of the tilt")
    panels[1, 0].set_xlabel("seconds from the onset; robots that stand")
    panels[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def gait_figure(path: Path, rows: Sequence[Row]) -> None:
    """Footfall of one robot around its fault, under the deployed switch and without one."""
    known = {row.policy for row in rows}
    policies = [name for name in dict.fromkeys((deployed(rows), BLIND)) if name in known]
    kinds = range(HEALTHY + 1, len(CONDITIONS))
    figure = Figure(figsize=(11, 2 * len(policies) + 0.8), layout="constrained")
    panels = figure.subplots(len(policies), len(kinds), squeeze=False, sharex=True)
    for (at, column), axes in np.ndenumerate(panels):
        own = [r for r in rows if (r.policy, r.kind) == (policies[at], kinds[column]) and r.gait]
        axes.set_title(f"{policies[at]}: {CONDITIONS[kinds[column]]}", fontsize=9)
        axes.set(yticks=range(4), yticklabels=LEGS, ylim=(4.6, -0.6))
        if not own:
            continue
        # both joints, where they were asked for: the paper's fault
        row = max(own, key=lambda r: r.joints == "both")
        seconds, standing, alive, switched = row.gait
        step = seconds[1] - seconds[0]
        for number, leg in enumerate(LEGS):
            spans = [(t, step) for t in seconds[standing[:, number] & alive]]
            color = "firebrick" if leg == row.leg else "0.25"
            axes.broken_barh(spans, (number - 0.35, 0.7), color=color, lw=0)
        axes.axvline(0, color="firebrick", lw=1.2, label=f"fault: {row.leg} {row.joints}")
        if np.isfinite(switched):
            axes.axvline(switched, color="tab:blue", ls="--", lw=1.2, label="switch of the head")
        if not alive.all():
            axes.axvspan(seconds[alive.argmin()], seconds[-1], color="0.9", label="fallen")
        axes.set_xlim(seconds[0], seconds[-1])
        axes.legend(fontsize=7, loc="lower left", ncols=3)
    for axes in panels[-1]:
        axes.set_xlabel("seconds from the fault; bars: the foot stands")
    figure.savefig(path, dpi=120)


def deployed(rows: Sequence[Row]) -> str:
    """The policy whose cells are shown one by one."""
    known = {row.policy for row in rows}
    return next((name for name in (LEARNED, ORACLE, BLIND) if name in known), rows[0].policy)
