"""Confusion and delays of a fault detector as files: CSV and a figure."""

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from train.control.robots import CONDITIONS
from train.control.watching import Watched, macro_f1
from train.workdir import write_text


def confusion_csv(confusion: np.ndarray, joints: tuple[str, ...] = ()) -> str:
    """Counts as CSV, a line for each true condition, and for each joint where they have one.

    Args:
        confusion: `[3, 3]` or `[joints, 3, 3]`, true condition by verdict.
        joints: their names; empty for counts of all joints together.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["joint", "true", *CONDITIONS])
    blocks = zip(joints, confusion, strict=True) if joints else [("all", confusion)]
    for joint, counts in blocks:
        for name, row in zip(CONDITIONS, counts.tolist(), strict=True):
            writer.writerow([joint, name, *row])
    return text.getvalue()


def write(
    folder: Path, watched: Watched, confusion: np.ndarray, joints: tuple[str, ...] = ()
) -> None:
    """Write `confusion.csv` and `detector.png`: shares of the verdicts, and delays.

    Args:
        folder: must exist.
        watched: delays of it.
        confusion: as in `confusion_csv`.
        joints: as in `confusion_csv`.
    """
    write_text(folder / "confusion.csv", confusion_csv(confusion, joints))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = confusion.reshape(-1, *confusion.shape[-2:]).sum(axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        left.text(column, row, f"{100 * share:.2f}", ha="center", va="center", color=color)
    left.set(
        xticks=range(3),
        yticks=range(3),
        xticklabels=CONDITIONS,
        yticklabels=CONDITIONS,
        xlabel="verdict",
        ylabel="true",
        title=f"joints and steps, x 100; macro F1 {macro_f1(counts):.3f}",
    )
    for kind, delays in watched.delays.items():
        known = delays[np.isfinite(delays)]
        missed = len(delays) - len(known)
        label = CONDITIONS[kind] + (f" ({missed} never)" if missed else "")
        right.hist(known, bins=np.arange(0, 1.02, 0.04), alpha=0.6, label=label)
    right.set(xlabel="seconds from onset to the switch", ylabel="robots", title="delay")
    right.legend()
    figure.savefig(folder / "detector.png", dpi=120)
