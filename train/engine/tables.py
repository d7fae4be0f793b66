"""Tables that a person reads: rows and cells in Markdown, paired differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def line(name: str, cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join([name, *cells]) + " |"


def cell(values: np.ndarray) -> str:
    """A value, or mean and deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Difference of two rows of scores over the same seeds, in points.

    Returns:
        `mean`, `std` (n - 1), `least`, and `each` seed's difference.
    """
    difference = 100.0 * (np.asarray(a) - np.asarray(b))
    std = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return {
        "mean": float(difference.mean()),
        "std": std,
        "least": float(difference.min()),
        "each": [float(x) for x in difference],
    }
