"""Tables that a person reads: rows and cells in Markdown, paired differences, claims."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: titles of the columns, the first above the names of the rows.
        rows: cells of each row, its name first.
    """
    return "\n".join([line(head[0], head[1:]), rule(len(head)), *(line(r[0], r[1:]) for r in rows)])


def line(name: str, cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join([name, *cells]) + " |"


def rule(columns: int) -> str:
    """The line between the head of a Markdown table and its rows."""
    return "|---" * columns + "|"


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


def points(difference: dict[str, Any]) -> str:
    """Mean and deviation of what `paired` gives, with its sign."""
    return f"{difference['mean']:+.2f} ± {difference['std']:.2f}"


class Claims:
    """What a run was made to show: what is required, what was measured, holds or MISSED."""

    def __init__(self, subject: str, *columns: str):
        """Begin without claims.

        Args:
            subject: title of the column of names: what was measured.
            columns: titles of the columns between name and verdict.
        """
        self._head = (subject, *columns, "")
        self._rows: list[tuple[str, ...]] = []
        self._missed: list[str] = []

    def add(self, name: str, *cells: str, holds: bool) -> None:
        """Add a claim.

        Args:
            name: of the claim.
            cells: of its row, as many as there are columns.
            holds: whether what was measured is what is required.
        """
        if len(cells) != len(self._head) - 2:
            raise ValueError(f"{name}: {len(cells)} cells for {len(self._head) - 2} columns")
        self._rows.append((name, *cells, "holds" if holds else "MISSED"))
        if not holds:
            self._missed.append(name)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def missed(self) -> tuple[str, ...]:
        """Names of the claims that do not hold."""
        return tuple(self._missed)

    def table(self) -> str:
        """The claims as a table in Markdown; empty without claims."""
        return table(self._head, self._rows) if self._rows else ""
