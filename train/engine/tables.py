"""Tables that a person reads: rows and cells in Markdown, paired differences, claims."""

from collections.abc import Collection, Mapping, Sequence
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
    return f"{values.mean():.2f} ± {deviation(values):.2f}"


def glossary(names: Collection[str], meanings: Mapping[str, str]) -> str:
    """What the names of a table's rows stand for, as a sentence; empty if nothing is known of them.

    Args:
        names: of the rows.
        meanings: name of a row, or a part of it -> what it stands for; left out where no row has
            it.
    """
    parts = [
        f"*{part}*: {what}" for part, what in meanings.items() if any(part in n for n in names)
    ]
    return f"Rows: {'; '.join(parts)}." if parts else ""


def deviation(values: np.ndarray) -> Any:
    """Standard deviation over seeds, the first axis, n - 1 in the divisor; 0 of a single seed."""
    values = np.asarray(values)
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Seeds of a run that follow one another, for a line of facts."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def spread_in_words(seeds: int) -> str:
    """What stands behind a mean in a table, as a sentence.

    Args:
        seeds: number of seeds.
    """
    if seeds == 1:
        return "One seed: no deviation is known, and a difference may be chance."
    return f"± is the standard deviation over {seeds} seeds, each a training of its own."


def proportion(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    It does not collapse where all or none were counted: of 16 of 16 it is 0.81 to 1.

    Args:
        count: how many were counted.
        total: of how many, at least 1.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(count), int(total)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def share(count: int, total: int) -> str:
    """A share x 100 with Wilson's 95 % interval; "-" of none.

    Args:
        count: how many were counted.
        total: of how many.
    """
    if not total:
        return "-"
    low, high = proportion(count, total)
    return f"{100 * count / total:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Difference of two rows of scores over the same seeds, in points.

    Returns:
        `mean`, `std` (`deviation`), `least`, and `each` seed's difference.
    """
    difference = 100.0 * (np.asarray(a) - np.asarray(b))
    return {
        "mean": float(difference.mean()),
        "std": float(deviation(difference)),
        "least": float(difference.min()),
        "each": [float(x) for x in difference],
    }


def points(difference: dict[str, Any]) -> str:
    """Mean and deviation of what `paired` gives, with its sign; the difference of a single seed."""
    if len(difference["each"]) == 1:
        return f"{difference['mean']:+.2f}"
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
