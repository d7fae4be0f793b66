"""Tables and claims as a person reads them."""

import numpy as np
import pytest

from train.engine.tables import Claims, cell, paired, points, table


def test_a_table_in_markdown():
    assert table(["x", "a", "b"], [["one", "1", "2"], ["two", "3", "4"]]) == (
        "| x | a | b |\n|---|---|---|\n| one | 1 | 2 |\n| two | 3 | 4 |"
    )


def test_cells_and_differences():
    assert cell(np.array([1.234])) == "1.23"
    assert cell(np.array([1.0, 3.0])) == "2.00 ± 1.41"
    difference = paired(np.array([0.5, 0.7]), np.array([0.4, 0.4]))
    assert difference["mean"] == pytest.approx(20)
    assert difference["least"] == pytest.approx(10)
    assert difference["each"] == pytest.approx([10, 30])
    assert points(difference) == "+20.00 ± 14.14"
    # the deviation of one seed is none
    assert points(paired(np.array([0.5]), np.array([0.6]))) == "-10.00 ± 0.00"


def test_claims_say_what_holds_and_what_was_missed():
    claims = Claims("accuracy", "measured", "required")
    assert not claims
    assert claims.table() == ""
    claims.add("method - host", "+3.0", ">= 2", holds=True)
    claims.add("control", "+1.0", "<= 0.5", holds=False)
    assert claims.missed == ("control",)
    assert claims.table() == (
        "| accuracy | measured | required |  |\n|---|---|---|---|\n"
        "| method - host | +3.0 | >= 2 | holds |\n| control | +1.0 | <= 0.5 | MISSED |"
    )
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        claims.add("short", "+3.0", holds=True)
