"""Messages: one line, however long or broken what they name."""

import pytest

from corrkd_jax.errors import InputError, few, reason


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\x0bb"])
def test_a_message_is_one_line(text):
    assert str(InputError(f"x.npz: {text}; rename it")) == "x.npz: a b; rename it"


def test_the_middle_of_a_long_message_is_left_out():
    message = str(InputError(f"x.pkl: {'y' * 10_000}; check it"))
    assert len(message) < 2000
    assert message.startswith("x.pkl: yyy")
    assert message.endswith("; check it")


def test_few():
    assert few([]) == "none"
    assert few(["b", 1]) == "b, 1"
    assert few(range(300)) == "0, 1, 2, 3, 4, 5, 6, 7 and 292 more"
    assert few(["a", "b", "c"], 2, "; ") == "a; b and 1 more"
    assert few(["two\nlines  here"]) == "two lines here"
    assert few(["x" * 500]) == "x" * 117 + "..."


def test_reason():
    assert reason(ValueError("a\n b")) == "ValueError: a b"
    assert reason(EOFError()) == "EOFError"
    assert len(reason(KeyError("k" * 999))) == 200
