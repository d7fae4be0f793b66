"""What a person reads of a fault detector: tables, CSV, a figure of confusion and delays."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.faults import HEALTHY
from train.control.robot import CONDITIONS
from train.control.watching import Watched, macro_f1
from train.engine.report import legend_beside
from train.engine.tables import cell, share, table
from train.engine.workdir import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tables(watched: Watched, names: Sequence[str]) -> list[str]:
    """Confusion of joints and of robots, and the detector's other figures, as Markdown.

    Args:
        watched: by the detector.
        names: of the joints.
    """
    failing = ", ".join(np.array(names)[watched.failing])
    joints = dict(zip(CONDITIONS, watched.confusion.sum(axis=0), strict=True))
    if not watched.failing.all():
        joints["health, joints that never fail"] = watched.never_failing.sum(axis=0)[HEALTHY]
    heads = dict(zip(CONDITIONS, watched.heads.sum(axis=0), strict=True))
    return [
        f"Joints that may fail here: {failing}. Each row is a true condition and adds up to 100. "
        "A verdict is the likeliest condition of a joint; a head is switched by sure ones alone.",
        shares_table("joint, by verdict x 100", joints, "joint steps"),
        shares_table("robot, by driving head x 100", heads, "robot steps"),
        detector_table(watched),
        _seldom(watched),
    ]


def shares_table(title: str, rows: Mapping[str, np.ndarray], counted: str) -> str:
    """Share of each true condition by what was made of it, x 100.

    Args:
        title: of rows and columns.
        rows: `[3]` counts by name.
        counted: what is counted.
    """
    lines = []
    for name, row in rows.items():
        shares = [f"{100 * x / row.sum():.2f}" if row.any() else "-" for x in row]
        lines.append([name, *shares, f"{row.sum():.3g}"])
    return table([title, *CONDITIONS, counted], lines)


def detector_table(watched: Watched) -> str:
    """F1, delays and false alarms."""
    lines = [
        [f"macro F1 of the joints that may fail, {name}", cell(macro_f1(counts))]
        for name, counts in (
            ("from onset on", watched.confusion),
            ("half a second on", watched.settled_confusion),
        )
    ]
    for kind, delays in watched.delays.items():
        name = f"switch to the head for {CONDITIONS[kind]}"
        if not len(delays):
            lines.append([name, "no robot stood long enough after the onset"])
            continue
        switched = int(np.isfinite(delays).sum())
        had = f"{share(switched, len(delays))} of {len(delays)}"
        lines.append([f"{name}: robots that had it, x 100", had])
        for part, words in ((0.5, "half"), (0.9, "90 %")):
            delay = float(np.quantile(delays, part, method="inverted_cdf"))
            text = f"within {delay:.2f} s" if np.isfinite(delay) else "never: too few had it"
            lines.append([f"{name}: {words} of the robots", text])
    lines.append(["false alarms: switches away from health a minute of it", cell(watched.alarms)])
    return table(["detector", "value"], lines)


def _seldom(watched: Watched) -> str:
    """What to make of faults that most robots' switch never answered; empty if there are none."""
    seldom = [
        CONDITIONS[kind]
        for kind, delays in watched.delays.items()
        if len(delays) and np.isfinite(delays).mean() < 0.5
    ]
    if not seldom:
        return ""
    return (
        f"Most robots with a fault of this kind never had its head: {', '.join(seldom)}. The "
        "healthy head drove them on. What that costs is the difference between the learned and "
        "the oracle switch in that column of the survival table; where there is none, the fault "
        "does no harm that its head would undo."
    )


def to_json(watched: Watched) -> dict[str, Any]:
    """All figures as plain lists; a switch that never came is null."""
    return {
        "confusion": watched.joints.sum(axis=1).tolist(),
        "may_fail": watched.failing.tolist(),
        "joints": watched.joints.tolist(),
        "settled": watched.settled.sum(axis=1).tolist(),
        "heads": watched.heads.tolist(),
        "delays": {
            CONDITIONS[kind]: [x if np.isfinite(x) else None for x in delays.tolist()]
            for kind, delays in watched.delays.items()
        },
        "alarms_a_minute": watched.alarms.tolist(),
    }


def confusion_csv(blocks: dict[str, np.ndarray], of: str = "joint") -> str:
    """Counts as CSV, a line for each true condition of each block.

    Args:
        blocks: by name, `[3, 3]`, true condition by what was made of it.
        of: what the names are names of.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([of, "true", *CONDITIONS])
    for block, counts in blocks.items():
        for name, row in zip(CONDITIONS, counts.tolist(), strict=True):
            writer.writerow([block, name, *row])
    return text.getvalue()


def write(
    folder: Path,
    watched: Watched,
    confusion: np.ndarray,
    joints: tuple[str, ...],
    prefix: str = "",
) -> None:
    """Write `confusion.csv` and `confusion_heads.csv`.

    The first counts steps of each joint and of all of them, true condition by verdict; the second
    steps of robots, true condition by the head that drives.

    Args:
        folder: must exist.
        watched: heads of it.
        confusion: `[joints, 3, 3]`.
        joints: their names.
        prefix: of both names.

    Raises:
        InputError: the disk refuses.
    """
    blocks = dict(zip(joints, confusion, strict=True)) | {"all": confusion.sum(axis=0)}
    write_text(folder / f"{prefix}confusion.csv", confusion_csv(blocks))
    heads = watched.heads.sum(axis=0)
    write_text(folder / f"{prefix}confusion_heads.csv", confusion_csv({"all": heads}, "robot"))


def figure(watched: Watched, confusion: np.ndarray, joints: tuple[str, ...]) -> "Figure":
    """Both confusions as shares, and the delays of the switch.

    Args:
        watched: heads and delays of it.
        confusion: `[joints, 3, 3]`.
        joints: their names.
    """
    from matplotlib.figure import Figure

    together, heads = confusion[watched.failing].sum(axis=0), watched.heads.sum(axis=0)
    drawing = Figure(figsize=(13, 7), layout="constrained")
    above, below = drawing.subfigures(2, 1, height_ratios=(4, 3))
    panels = above.subplots(1, 3)
    _matrix(
        panels[0], together, f"joints that may fail: verdict; macro F1 {macro_f1(together):.3f}"
    )
    _matrix(panels[1], heads, "robots: driving head")
    for kind, delays in watched.delays.items():
        known = delays[np.isfinite(delays)]
        missed = len(delays) - len(known)
        label = CONDITIONS[kind] + (f" ({missed} never)" if missed else "")
        # what takes longer than a second stands in the last bar
        bins = np.arange(0, 1.02, 0.04)
        panels[2].hist(np.minimum(known, 1 - 1e-6), bins=bins, alpha=0.6, label=label)
    panels[2].set(
        xlabel="seconds from onset to the switch; last bar: or more",
        ylabel="robots",
        title="delay",
    )
    legend_beside(panels[2])
    each = below.subplots(1, len(joints), sharex=True, sharey=True)
    for axes, name, counts in zip(each, joints, confusion, strict=True):
        _matrix(axes, counts, name)
    below.suptitle("steps of each joint, verdict", fontsize=9)
    return drawing


def _matrix(axes: "Axes", counts: np.ndarray, title: str) -> None:
    """Shares x 100 of counts `[true, verdict]`."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), part in np.ndenumerate(shares):
        color = "white" if part > 0.5 else "black"
        # what never was so was never missed
        text = f"{100 * part:.1f}" if counts[row].any() else "-"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(3), CONDITIONS, fontsize=7, rotation=30)
    axes.set_yticks(range(3), CONDITIONS, fontsize=7)
    axes.set_title(title, fontsize=9)
