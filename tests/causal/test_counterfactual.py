"""Purification and the search of its coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax import causal
from corrkd_jax.metrics import confusion, macro_f1

FACTUAL, LABEL, CONTEXT = np.array([2.0, 1.0]), np.array([1.0, 0.0]), np.array([0.5, 2.0])


def test_closed_form():
    np.testing.assert_allclose(causal.purify(FACTUAL, LABEL, CONTEXT, (0.5, 1)), [1, -1], atol=1e-6)
    tie = causal.purify(FACTUAL, LABEL, CONTEXT, (1, 0))
    np.testing.assert_array_equal(tie, [1, 1])
    assert int(jnp.argmax(tie)) == 0


def test_zero_coefficients_change_no_bit():
    rng = np.random.default_rng(0)
    factual = rng.normal(size=(9, 4)).astype(np.float32)
    broken = np.full((9, 4), np.nan, np.float32)
    found = causal.purify(factual, broken[0], broken, (0.0, 0.0))
    assert np.asarray(found).tobytes() == factual.tobytes()


def test_linear_in_the_coefficients_and_blind_to_shifts():
    rng = np.random.default_rng(1)
    factual, context = rng.normal(size=(2, 50, 3))
    label = rng.normal(size=3)
    at = lambda a, b: np.asarray(causal.purify(factual, label, context, (a, b)))  # noqa: E731
    first, second = at(1, 0) - at(0, 0), at(0, 1) - at(0, 0)
    np.testing.assert_allclose(at(0.3, -0.7), at(0, 0) + 0.3 * first - 0.7 * second, atol=1e-5)
    shifted = causal.purify(factual, label + 5, context - 3, (0.3, -0.7))
    np.testing.assert_array_equal(at(0.3, -0.7).argmax(1), shifted.argmax(1))


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    arrays = [torch.tensor(x) for x in (FACTUAL, LABEL, CONTEXT)]
    np.testing.assert_allclose(causal.purify(*arrays, (0.5, 1)), [1, -1], atol=1e-6)
    found = causal.grid_search(arrays[0][None], arrays[1], arrays[2][None], lambda o: o[0, 1])
    assert found.coefficients == (0.0, -2.0)


def macro(labels, classes):
    return lambda outputs: macro_f1(confusion(labels, outputs.argmax(-1), classes))


def biased(seed, n, classes, strength=1.0):
    """Outputs that say the truth, a constant, and a context that lies."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    label = rng.normal(size=classes)
    context = 2 * rng.normal(size=(n, classes))
    truth = np.eye(classes)[labels] + 0.3 * rng.normal(size=(n, classes))
    return labels, (truth + strength * (0.8 * label + 1.3 * context)), label, context


def test_a_planted_bias_is_found_and_its_absence_too():
    labels, *outputs = biased(0, 2000, 3)
    found = causal.grid_search(*outputs, macro(labels, 3))
    assert abs(found.coefficients[1] - 1.3) <= 0.1
    assert found.score - found.vanilla > 0.3
    labels, *outputs = biased(0, 2000, 3, strength=0.0)
    control = causal.grid_search(*outputs, macro(labels, 3))
    assert max(map(abs, control.coefficients)) <= 0.4
    assert control.score - control.vanilla < 0.01


def test_the_beam_never_beats_the_grid_and_never_loses_to_vanilla():
    for seed in range(4):
        labels, *outputs = biased(seed, 200, 4)
        score = macro(labels, 4)
        grid, beam = (s(*outputs, score) for s in (causal.grid_search, causal.beam_search))
        assert grid.score >= beam.score >= beam.vanilla == grid.vanilla


def peak(a, b):
    """A score with one peak at (a, b), read off outputs that reveal the coefficients."""
    return lambda outputs: -jnp.abs(outputs[0, 0] + a) - jnp.abs(outputs[0, 1] + b)


REVEAL = (np.zeros((1, 2)), np.array([1.0, 0.0]), np.array([[0.0, 1.0]]))


@pytest.mark.parametrize("search", [causal.grid_search, causal.beam_search])
@pytest.mark.parametrize("where", [(0.7, -1.2), (-2.0, 2.0), (0.0, 0.0)])
def test_both_searches_find_the_top_of_a_hand_made_table(search, where):
    found = search(*REVEAL, peak(*where))
    assert found.coefficients == pytest.approx(where, abs=1e-9)


def test_ties_go_to_the_smallest_coefficients():
    flat = causal.grid_search(*REVEAL, lambda outputs: 0 * outputs[0, 0])
    assert flat.coefficients == (0.0, 0.0)
    ring = causal.grid_search(*REVEAL, lambda o: (jnp.abs(o[0, 0]) > 0.25).astype(jnp.float32))
    assert ring.coefficients == (-0.3, 0.0)


def test_refusals():
    with pytest.raises(ValueError, match="does not divide"):
        causal.grid_search(*REVEAL, peak(0, 0), reach=1.0, step=0.3)
    with pytest.raises(ValueError, match="no score is a number"):
        causal.grid_search(*REVEAL, lambda outputs: outputs[0, 0] * jnp.nan)
    with pytest.raises(ValueError, match="must be a scalar"):
        causal.grid_search(*REVEAL, lambda outputs: outputs[0])


def test_stand_in_leaves_padding_out():
    inputs = np.array([[[1.0], [2.0], [9.0]], [[3.0], [9.0], [9.0]]])
    valid = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(causal.stand_in(inputs, valid), [[2.0], [2.0], [0.0]])


def test_context_keeps_what_is_no_content():
    inputs = np.random.default_rng(2).normal(size=(4, 5, 3)).astype(np.float32)
    mean = causal.stand_in(inputs, np.ones((4, 5), bool))
    nothing = causal.replace_tokens(inputs, np.zeros((4, 5), bool), mean)
    np.testing.assert_array_equal(nothing, inputs)
    everything = causal.replace_tokens(inputs, np.ones((4, 5), bool), mean)
    np.testing.assert_array_equal(everything, np.broadcast_to(mean, inputs.shape))
    some = np.random.default_rng(3).random((4, 5)) < 0.5
    found = jax.jit(causal.replace_tokens)(inputs, some, mean)
    np.testing.assert_array_equal(found[~some], inputs[~some])
