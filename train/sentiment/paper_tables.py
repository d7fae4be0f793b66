"""Published rows of CorrKD (arXiv:2404.16456), weighted F1 x 100, columns as in `COLUMNS`.

From the paper's tables as recalled, with every average recomputed from its six cells; they were
measured on features that no public file holds, so they show a direction.
"""

from collections.abc import Sequence

_MOSI = {
    "paper: CorrKD": (81.20, 66.52, 60.72, 83.56, 82.41, 73.74, 74.69, 83.94),
    "paper: w/o SCD": (78.80, 64.96, 57.49, 81.95, 80.53, 71.05, 72.46, 82.13),
    "paper: w/o CPD": (79.23, 63.72, 57.83, 80.11, 79.45, 70.53, 71.81, 82.67),
    "paper: KL for RCD": (79.73, 65.32, 59.21, 82.14, 81.05, 72.18, 73.27, 83.05),
    "paper: Self-MM": (67.80, 40.95, 38.52, 69.81, 74.97, 47.12, 56.53, 84.64),
    "paper: GCNet": (80.91, 65.07, 58.70, 84.73, 83.58, 70.02, 73.84, 83.20),
}
_MOSEI = {
    "paper: CorrKD": (80.76, 66.09, 62.30, 81.74, 81.28, 71.92, 74.02, 82.16),
    "paper: Self-MM": (71.53, 43.57, 37.61, 75.91, 74.62, 49.52, 58.79, 83.69),
    "paper: GCNet": (80.52, 66.54, 61.83, 81.96, 81.15, 69.21, 73.54, 82.35),
}


def rows_for(preset: str) -> dict[str, Sequence[float]]:
    """Rows to show beside a run of this preset; none for IEMOCAP, whose rows differ by emotion."""
    return {"mosi": _MOSI, "mosei": _MOSEI}.get(preset, {})
