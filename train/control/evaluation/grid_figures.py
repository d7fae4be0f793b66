"""Figures of an evaluated quadruped: survival, contact, tracking, what happens at the onset."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from envs.faults import HEALTHY
from envs.solo8_constants import CONTROL_DT, EPISODE_STEPS, LEGS
from train.control.evaluation.scores import Row
from train.control.report import BLIND, LEARNED, ORACLE
from train.control.robot import CONDITIONS
from train.engine.report import legend_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def survival_figure(rows: Sequence[Row]) -> "Figure":
    """Survival of the groups of robots, a box for each policy."""
    return _boxes(rows, lambda row: row.groups, "survival of a group of robots", (-0.03, 1.03))


def contact_figure(rows: Sequence[Row]) -> "Figure":
    """Seconds that the failing leg's foot is loaded, a box for each policy.

    Of one fault: both joints of the front left leg, the paper's, if the grid has it, else the
    first; and of the same foot in health.
    """
    leg, joints = max(
        dict.fromkeys((row.leg, row.joints) for row in rows if row.leg),
        key=lambda place: place == (LEGS[0], "both"),
    )
    place = [row for row in rows if not row.leg or (row.leg, row.joints) == (leg, joints)]
    label = f"seconds that the foot of {leg} is loaded; {joints} of its joints fail"
    limits = (-0.2, EPISODE_STEPS * CONTROL_DT + 0.2)
    return _boxes(place, lambda row: row.contact[:, LEGS.index(leg)], label, limits)


def _boxes(
    rows: Sequence[Row],
    groups: Callable[[Row], np.ndarray],
    label: str,
    limits: tuple[float, float],
) -> "Figure":
    """A panel for each condition and speed, in it a box of the groups of each policy."""
    from matplotlib.figure import Figure

    policies = list(dict.fromkeys(row.policy for row in rows))
    speeds = list(dict.fromkeys(row.speed for row in rows))
    size = (4 * len(CONDITIONS), (0.8 + 0.45 * len(policies)) * len(speeds))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(speeds), len(CONDITIONS), squeeze=False, sharex=True, sharey=True)
    for (at, kind), axes in np.ndenumerate(panels):
        each = [
            np.concatenate(
                [
                    groups(row)
                    for row in rows
                    if (row.policy, row.kind, row.speed) == (name, kind, speeds[at])
                ]
            )
            for name in policies
        ]
        axes.boxplot(each, orientation="horizontal", manage_ticks=False)
        axes.set(title=f"{CONDITIONS[kind]}, {speeds[at]} speed", xlim=limits)
    # of all panels, which share this axis
    panels[0, 0].set_yticks(range(1, len(policies) + 1), policies)
    panels[0, 0].invert_yaxis()
    panels[-1, 0].set_xlabel(label)
    return figure


def tracking_figure(rows: Sequence[Row]) -> "Figure":
    """What is missed before and after the onset, cell by cell: as deployed, and unaware."""
    from matplotlib.figure import Figure

    policies = shown(rows)
    signals = {"missed_speed": "speed, m/s", "missed_yaw": "yaw rate, rad/s"}
    if all(row.missed_yaw == [None, None] for row in rows):
        del signals["missed_yaw"]
    cells = list(dict.fromkeys((row.leg, row.joints) for row in rows if row.leg))
    speeds = list(dict.fromkeys(row.speed for row in rows))
    columns = [(kind, speed) for kind in range(HEALTHY + 1, len(CONDITIONS)) for speed in speeds]
    size = (3.2 * len(columns), (1.6 + 0.25 * len(cells)) * len(signals))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(signals), len(columns), squeeze=False, sharex="row", sharey=True)
    for (at, column), axes in np.ndenumerate(panels):
        name = list(signals)[at]
        for number, policy in enumerate(policies):
            color, shift = f"C{number}", 0.2 * (number - (len(policies) - 1) / 2)
            for row in rows:
                if (row.policy, row.kind, row.speed) != (policy, *columns[column]):
                    continue
                y = cells.index((row.leg, row.joints)) + shift
                before, after = (np.nan if x is None else x for x in getattr(row, name))
                axes.plot([before, after], [y, y], color=color, lw=1)
                axes.plot(before, y, "o", color=color, mfc="white", ms=4)
                axes.plot(after, y, "o", color=color, ms=4)
            axes.plot([], [], "o-", color=color, label=policy)
        axes.set_title(f"{CONDITIONS[columns[column][0]]}, {columns[column][1]} speed", fontsize=9)
        axes.set_xlabel(f"{signals[name]}, missed (rms)", fontsize=8)
    panels[0, 0].set_yticks(range(len(cells)), [" ".join(cell) for cell in cells])
    panels[0, 0].set_ylim(len(cells) - 0.5, -0.5)
    for axes in panels[:, 0]:
        axes.set_xlim(left=0)
    legend_beside(panels[0, -1])
    figure.suptitle(
        "open: the second before the onset; filled: seconds 1 to 3 after it; robots that stand",
        fontsize=9,
    )
    return figure


def map_figure(rows: Sequence[Row]) -> "Figure":
    """Survival by leg and joints, of the policy as deployed."""
    from matplotlib.figure import Figure

    policy = deployed(rows)
    faulty = [row for row in rows if row.policy == policy and row.leg]
    legs, parts = (list(dict.fromkeys(getattr(r, n) for r in faulty)) for n in ("leg", "joints"))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for kind, axes in enumerate(figure.subplots(1, 2), start=HEALTHY + 1):
        values = np.array(
            [
                [
                    np.mean([r.groups.mean() for r in faulty
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
    return figure


def aligned_figure(rows: Sequence[Row]) -> "Figure":
    """Mean speed and tilt of the robots that stand, around the onset."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for policy in dict.fromkeys(row.policy for row in rows):
        for column, kind in enumerate(range(HEALTHY + 1, len(CONDITIONS))):
            cells = [row.aligned for row in rows if (row.policy, row.kind) == (policy, kind)]
            for axes, name in zip(panels[:, column], ("speed", "tilt"), strict=True):
                values = np.array([each[name] for each in cells], float)
                known = np.isfinite(values)
                mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
                mean[~known.any(axis=0)] = np.nan
                axes.plot(cells[0]["seconds"], mean, label=policy, lw=1)
                axes.axvline(0, color="0.7", lw=0.8)
            panels[0, column].set_title(CONDITIONS[kind])
    panels[0, 0].set_ylabel("mean forward speed, m/s")
    panels[1, 0].set_ylabel("mean size of the tilt")
    panels[1, 0].set_xlabel("seconds from the onset; robots that stand")
    legend_beside(panels[0, -1])
    return figure


def gait_figure(rows: Sequence[Row]) -> "Figure":
    """Footfall of one robot around its fault, under the deployed switch and without one."""
    from matplotlib.figure import Figure

    policies = shown(rows)
    kinds = range(HEALTHY + 1, len(CONDITIONS))
    figure = Figure(figsize=(14, 2 * len(policies) + 0.8), layout="constrained")
    panels = figure.subplots(len(policies), len(kinds), squeeze=False, sharex=True)
    for (at, column), axes in np.ndenumerate(panels):
        gaits = [r for r in rows if (r.policy, r.kind) == (policies[at], kinds[column]) and r.gait]
        axes.set_title(f"{policies[at]}: {CONDITIONS[kinds[column]]}", fontsize=9)
        axes.set(yticks=range(4), yticklabels=LEGS, ylim=(3.6, -0.6))
        if not gaits:
            continue
        # both joints, where they were asked for: the paper's fault
        row = max(gaits, key=lambda r: r.joints == "both")
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
        legend_beside(axes)
    for axes in panels[-1]:
        axes.set_xlabel("seconds from the fault; bars: the foot stands")
    return figure


def deployed(rows: Sequence[Row]) -> str:
    """The policy whose cells are shown one by one."""
    known = {row.policy for row in rows}
    return next((name for name in (LEARNED, ORACLE, BLIND) if name in known), rows[0].policy)


def shown(rows: Sequence[Row]) -> list[str]:
    """The policy as deployed, and beside it the healthy head alone where it was evaluated."""
    known = {row.policy for row in rows}
    return [name for name in dict.fromkeys((deployed(rows), BLIND)) if name in known]
