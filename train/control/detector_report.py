"""What a person reads of a fault detector: tables, CSV, a figure of confusion and delays."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from train.control.robot import CONDITIONS
from train.control.watching import Watched, macro_f1
from train.engine.tables import cell, table
from train.engine.workdir import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tables(watched: Watched) -> list[str]:
    """Confusion of joints and of robots, and the detector's other figures, as Markdown."""
    return [
        shares_table("joint, by verdict x 100", watched.confusion, "joint steps"),
        shares_table("robot, by driving head x 100", watched.heads, "robot steps"),
        detector_table(watched),
    ]


def shares_table(title: str, confusion: np.ndarray, counted: str) -> str:
    """Share of each true condition by what was made of it, x 100, over all seeds.

    Args:
        title: of rows and columns.
        confusion: `[seeds, 3, 3]`.
        counted: what it counts.
    """
    lines = []
    for name, row in zip(CONDITIONS, confusion.sum(axis=0), strict=True):
        shares = [f"{100 * x / max(row.sum(), 1):.2f}" for x in row]
        lines.append([name, *shares, f"{row.sum():.3g}"])
    return table([title, *CONDITIONS, counted], lines)


def detector_table(watched: Watched) -> str:
    """F1, delays and false alarms."""
    lines = [
        [f"macro F1 of the joints, {name}", cell(macro_f1(counts))]
        for name, counts in (
            ("from onset on", watched.confusion),
            ("half a second on", watched.settled),
        )
    ]
    for kind, delays in watched.delays.items():
        name = f"switch to the head for {CONDITIONS[kind]}: median, 90 % within (s); ever (%)"
        if not len(delays):
            lines.append([name, "nobody stood long enough"])
            continue
        within = [f"{x:.2f}" for x in np.quantile(delays, (0.5, 0.9), method="inverted_cdf")]
        ever = f"{100 * np.isfinite(delays).mean():.1f}"
        lines.append([name, "; ".join([", ".join(within), ever])])
    lines.append(["switches away from health a minute of health", cell(watched.alarms)])
    return table(["detector", "value"], lines)


def to_json(watched: Watched) -> dict[str, Any]:
    """All figures as plain lists; a switch that never came is null."""
    return {
        "confusion": watched.confusion.tolist(),
        "joints": watched.joints.tolist(),
        "settled": watched.settled.tolist(),
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


def write(folder: Path, watched: Watched, confusion: np.ndarray, joints: tuple[str, ...]) -> None:
    """Write `confusion.csv` and `confusion_heads.csv`.

    The first counts steps of each joint and of all of them, true condition by verdict; the second
    steps of robots, true condition by the head that drives.

    Args:
        folder: must exist.
        watched: heads of it.
        confusion: `[joints, 3, 3]`.
        joints: their names.

    Raises:
        InputError: the disk refuses.
    """
    blocks = dict(zip(joints, confusion, strict=True)) | {"all": confusion.sum(axis=0)}
    write_text(folder / "confusion.csv", confusion_csv(blocks))
    heads = watched.heads.sum(axis=0)
    write_text(folder / "confusion_heads.csv", confusion_csv({"all": heads}, "robot"))


def figure(watched: Watched, confusion: np.ndarray, joints: tuple[str, ...]) -> "Figure":
    """Both confusions as shares, and the delays of the switch.

    Args:
        watched: heads and delays of it.
        confusion: `[joints, 3, 3]`.
        joints: their names.
    """
    from matplotlib.figure import Figure

    together, heads = confusion.sum(axis=0), watched.heads.sum(axis=0)
    drawing = Figure(figsize=(13, 7), layout="constrained")
    above, below = drawing.subfigures(2, 1, height_ratios=(4, 3))
    panels = above.subplots(1, 3)
    _matrix(panels[0], together, f"joints: verdict; macro F1 {macro_f1(together):.3f}")
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
    panels[2].legend()
    each = below.subplots(1, len(joints), sharex=True, sharey=True)
    for axes, name, counts in zip(each, joints, confusion, strict=True):
        _matrix(axes, counts, name)
    below.suptitle("steps of each joint, verdict", fontsize=9)
    return drawing


def _matrix(axes: "Axes", counts: np.ndarray, title: str) -> None:
    """Shares x 100 of counts `[true, verdict]`."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        # what never was so was never missed
        text = f"{100 * share:.1f}" if counts[row].any() else "-"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(3), CONDITIONS, fontsize=7, rotation=30)
    axes.set_yticks(range(3), CONDITIONS, fontsize=7)
    axes.set_title(title, fontsize=9)
