"""What a quadruped's training saw of itself: survival, reward, whether it walks, the detector."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from train.control.ppo import NORMAL, POLICIES, TUNED
from train.control.robot import CONDITIONS
from train.engine.report import legend_beside
from train.engine.tables import cell, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
"""Rows of `metrics.jsonl`; a metric holds a number a seed."""

GROUPS = {"healthy": "health", "power_loss": "power loss", "locked": "locked"}
"""Groups of robots as metrics name them, and as tables do."""
STANDS = 0.5
"""Part of the command that a robot may miss and still be said to walk."""

NOTE = (
    "At the epochs that were kept, those of the largest survival times reward. Robots in training "
    "explore and feel noise, and their faults strike as the training has it, so these figures are "
    "no evaluation. Survival is the share of the lately ended episodes that the clock "
    'ended and not a fall; "-": no episode has ended yet.'
)


def policies_table(metrics: Rows, names: Mapping[str, str]) -> str:
    """Survival and reward of every arm at its best epochs, mean over seeds.

    Args:
        metrics: of the run.
        names: arm -> its name in tables.
    """
    head = ["in training", "epoch kept"]
    for what in ("survival x 100", "reward a step x 1000"):
        head += [f"{what}, {group}" for group in GROUPS.values()]
    lines = []
    for arm, stage in _arms(metrics):
        best = kept(metrics, stage, arm)
        groups = _groups(arm)
        cells = [", ".join(f"{epoch:.0f}" for epoch in best["epoch"] + 1)]
        for scale, values in ((100, survival), (1000, _reward)):
            for group in GROUPS:
                known = group in groups
                cells.append(_cell(scale * values(best, group)) if known else "-")
        lines.append([_name(arm, stage, names), *cells])
    return table(head, lines)


def walking_table(metrics: Rows, names: Mapping[str, str], seeds: Sequence[int]) -> str:
    """Whether healthy robots walk, by arm and seed: what they miss of their command.

    Args:
        metrics: of the run.
        names: arm -> its name in tables.
        seeds: of the run.
    """
    lines = []
    for arm, stage in _arms(metrics):
        best = kept(metrics, stage, arm)
        if "train_missed_speed" not in best:
            continue  # begun by an earlier version
        speeds = best["train_missed_speed"], best["train_commanded_speed"]
        for seed, missed, still in zip(seeds, *speeds, strict=True):
            verdict = "walks" if missed < STANDS * still else "DOES NOT WALK"
            name = f"{_name(arm, stage, names)}, seed {seed}"
            lines.append([name, f"{missed:.2f}", f"{still:.2f}", verdict])
    head = ["healthy robots in training", "miss, m/s (rms)", "standing still would miss", ""]
    return table(head, lines) if lines else ""


def recall_table(metrics: Rows) -> str:
    """Recall of the detector at its best epoch, mean over seeds; empty if none was trained."""
    if not any(row["stage"] == "detector" for row in metrics):
        return ""
    best = kept(metrics, "detector", None)
    cells = [_cell(100 * best[f"valid_recall_{name.replace(' ', '_')}"]) for name in CONDITIONS]
    return table(
        ["in training", *CONDITIONS],
        [["recall of the detector x 100, all joints together", *cells]],
    )


def kept(metrics: Rows, stage: str, arm: str | None) -> dict[str, np.ndarray]:
    """Every metric at the epoch that a stage kept, `[seeds]` each, and the `epoch` from 0 on.

    Args:
        metrics: of the run.
        stage: whose.
        arm: of it; None where it has none.
    """
    rows = [row for row in metrics if row["stage"] == stage and row.get("arm") == arm]
    scores = np.array([row["valid_score"] for row in rows], float)
    # as the engine keeps them: a score that is no number never wins, nor does a later equal one
    best = np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=0)
    values = {
        name: np.array([row[name] for row in rows], float)[best, np.arange(len(best))]
        for name in rows[0]
        if name.startswith(("train_", "valid_")) and all(name in row for row in rows)
    }
    return values | {"epoch": np.array([row["epoch"] for row in rows])[best]}


def survival(row: Mapping[str, Any], group: str) -> np.ndarray:
    """Survival of a group in training, `[seeds]`; not a number where no episode has ended."""
    values = np.asarray(row[f"valid_survival_{group}"], float)
    # runs of an earlier version did not write down whether any has
    ended = np.asarray(row.get(f"valid_ended_{group}", np.ones_like(values)), float)
    return np.where(ended > 0, values, np.nan)


def figure(metrics: Rows, names: Mapping[str, str]) -> "Figure":
    """Survival of the exploring policies by group and arm, recall of the detector.

    Args:
        metrics: of the run.
        names: arm -> its name in tables.
    """
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(12, 3.5), layout="constrained")
    policies, detector = drawing.subplots(1, 2)
    styles = {"healthy": "-", "power_loss": "--", "locked": ":"}
    shown = [row for row in metrics if row["stage"] == POLICIES]
    for number, arm in enumerate(dict.fromkeys(row["arm"] for row in shown)):
        own = [row for row in shown if row["arm"] == arm]
        axis = [row["epoch"] + 1 for row in own]
        for group in _groups(arm):
            points = [100 * np.mean(survival(row, group)) for row in own]
            label = f"{names[arm]}, {GROUPS[group]}"
            policies.plot(axis, points, styles[group], color=f"C{number}", lw=1, label=label)
    policies.set(xlabel="epoch", ylabel="survival in training x 100", ylim=(-3, 103))
    watched = [row for row in metrics if row["stage"] == "detector"]
    for name in CONDITIONS:
        key = f"valid_recall_{name.replace(' ', '_')}"
        points = [100 * np.mean(row[key]) for row in watched]
        detector.plot([row["epoch"] + 1 for row in watched], points, label=name)
    detector.set(xlabel="epoch", ylabel="recall in training x 100", ylim=(-3, 103))
    for axes, drawn in ((policies, shown), (detector, watched)):
        axes.set_visible(bool(drawn))
        if drawn:
            legend_beside(axes)
    return drawing


def _arms(metrics: Rows) -> list[tuple[str | None, str]]:
    """Arm and stage of every policy, in the order of their training; a tuning has no arms."""
    found = ((row.get("arm"), row["stage"]) for row in metrics)
    return [pair for pair in dict.fromkeys(found) if pair[1] in (POLICIES, TUNED)]


def _name(arm: str | None, stage: str, names: Mapping[str, str]) -> str:
    return names[TUNED if arm is None else arm] if stage == TUNED else names[arm or ""]


def _groups(arm: str | None) -> tuple[str, ...]:
    """Groups in which an arm has what they are named for; one arm's robots never fail."""
    return ("healthy",) if arm == NORMAL else tuple(GROUPS)


def _reward(row: Mapping[str, Any], group: str) -> np.ndarray:
    return np.asarray(row[f"valid_reward_{group}"], float)


def _cell(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return cell(known) if len(known) else "-"
