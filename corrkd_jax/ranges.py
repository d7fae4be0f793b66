"""Ranges of settings: they stand beside a field, once, and whoever reads options checks them.

`learning_rate: Annotated[float, Positive]` says of a field what no type says. A range of a tuple
is that of each of its elements.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers that a setting takes; never infinite, never not a number.

    Attributes:
        low: least number.
        high: largest number.
        above_low: whether `low` itself is left out.
        below_high: whether `high` itself is left out.
    """

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False

    def admits(self, value: float) -> bool:
        """Whether a number lies in the range."""
        # an integer beyond floats is finite, and math.isfinite cannot take it
        finite = isinstance(value, int) or math.isfinite(value)
        above = value > self.low if self.above_low else value >= self.low
        below = value < self.high if self.below_high else value <= self.high
        return finite and above and below

    def complaint(self, value: float) -> str:
        """What an error says of a number outside the range."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be finite" if self == Finite else f"must be finite and {self}"
        if self == NotNegative:
            return "must not be negative"
        return f"must be {self}"

    def __str__(self) -> str:
        """The range in words, as `--help` says it."""
        if self == Positive:
            return "positive"
        if self == NotNegative:
            return "not negative"
        if math.isinf(self.low) and math.isinf(self.high):
            return "finite"
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.above_low else f"at least {self.low:g}"
        if not self.above_low and not self.below_high:
            return f"from {self.low:g} to {self.high:g}"
        low = f"above {self.low:g}" if self.above_low else f"at least {self.low:g}"
        high = f"below {self.high:g}" if self.below_high else f"at most {self.high:g}"
        return f"{low} and {high}"


Finite = Range()
"""Any number."""
Positive = Range(low=0.0, above_low=True)
"""Numbers above zero."""
NotNegative = Range(low=0.0)
"""Zero and above."""
Share = Range(low=0.0, high=1.0)
"""Shares and probabilities, zero and one among them."""
Fraction = Range(low=0.0, high=1.0, below_high=True)
"""Zero and above, below one: dropout rates, decays of running means."""
