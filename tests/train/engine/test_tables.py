"""Tables and claims as a person reads them."""

import numpy as np
import pytest

from train.engine.tables import (
    Claims,
    cell,
    deviation,
    glossary,
    paired,
    points,
    proportion,
    seeds_in_words,
    share,
    spread_in_words,
    table,
)


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
    # of one seed no deviation is known, which is not a deviation of nothing
    assert points(paired(np.array([0.5]), np.array([0.6]))) == "-10.00"


def test_deviation_is_the_same_in_tables_and_figures():
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(deviation(values), [2**0.5, 0])
    np.testing.assert_array_equal(deviation(values[:1]), [0, 0])


def test_a_glossary_is_of_the_rows_that_there_are():
    meanings = {"host": "the method", "random": "noise", "other": "never"}
    names = ["host", "host, random"]
    assert glossary(names, meanings) == "Rows: *host*: the method; *random*: noise."
    assert glossary(["a"], meanings) == ""


def test_seeds_in_words():
    assert seeds_in_words(range(3, 4)) == "seed 3"
    assert seeds_in_words(range(3, 6)) == "seeds 3 to 5"
    assert "no deviation" in spread_in_words(1)
    assert "± is the standard deviation over 5 seeds" in spread_in_words(5)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Brown, Cai, DasGupta 2001: with z = 1.96, z^2 / (n + z^2) where none is counted
        (0, 16, 0, 3.8415 / 19.8415),
        (16, 16, 16 / 19.8415, 1),
        (0, 3200, 0, 3.8415 / 3203.8415),
        # the centre (k + z^2 / 2) / (n + z^2) = 0.5, half width z sqrt(n / 4 + z^2 / 4) / (n + z^2)
        (50, 100, 0.40383, 0.59617),
    ],
)
def test_wilsons_interval(count, total, low, high):
    assert proportion(count, total) == pytest.approx((low, high), abs=1e-5)


def test_shares_do_not_claim_certainty():
    assert share(16, 16) == "100.0 (80.6-100.0)"
    assert share(0, 16) == "0.0 (0.0-19.4)"
    assert share(0, 0) == "-"


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
