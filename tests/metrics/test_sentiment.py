"""Sentiment metrics against closed forms, scikit-learn, SciPy and the MMSA package."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrkd_jax import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")

TRUE = np.array([-2.4, -0.6, 0, 0, 0.4, 1.6, 2.6, -0.2], np.float32)
PREDICTED = np.array([-1.5, 0.3, 0.1, -0.2, 0.6, 0.9, 3.4, -0.1], np.float32)

CLASSES = 4
ROWS = 24

confusion = jax.jit(metrics.confusion, static_argnames="num_classes")
report = jax.jit(metrics.sentiment_report)
summary = jax.jit(
    lambda counts: {
        "weighted": metrics.weighted_f1(counts),
        "macro": metrics.macro_f1(counts),
        "accuracy": metrics.accuracy(counts),
        "legacy": metrics.weighted_f1(counts, legacy_argument_order=True),
    }
)


def pad(array, rows=ROWS, value=0):
    """Pads to a fixed length, so that one compiled function serves every example."""
    return np.concatenate([array, np.full(rows - len(array), value, array.dtype)])


class_pairs = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=ROWS
)
# Quarters land on zero and on the halves where rounding conventions differ, and are exact.
quarters = st.integers(-16, 16).map(lambda n: n / 4)
score_pairs = st.lists(st.tuples(quarters, quarters), min_size=2, max_size=ROWS)


class TestConfusion:
    def test_rows_are_true_classes(self):
        counts = metrics.confusion([0, 0, 1, 2], [1, 1, 1, 0], 3)
        np.testing.assert_array_equal(counts, [[0, 2, 0], [0, 1, 0], [1, 0, 0]])
        assert counts.dtype == jnp.float32

    def test_weights_are_summed_and_padding_is_dropped(self):
        counts = metrics.confusion(
            np.array([0, 1, 1]), np.array([0, 0, 1]), 2, np.array([0.5, 2, 0])
        )
        np.testing.assert_array_equal(counts, [[0.5, 0], [2, 0]])

    def test_classes_out_of_range_are_counted_nowhere(self):
        np.testing.assert_array_equal(
            metrics.confusion([-1, 2, 0, 1], [0, 0, -1, 1], 2), [[0, 0], [0, 1]]
        )

    def test_batches_add_up(self):
        rng = np.random.default_rng(0)
        true, predicted = rng.integers(0, 3, (2, 12))
        parts = sum(metrics.confusion(true[i : i + 4], predicted[i : i + 4], 3) for i in (0, 4, 8))
        np.testing.assert_array_equal(parts, metrics.confusion(true, predicted, 3))

    @settings(max_examples=30, deadline=None)
    @given(class_pairs)
    def test_equals_scikit_learn(self, pairs):
        true, predicted = np.array(pairs).T
        expected = sklearn_metrics.confusion_matrix(true, predicted, labels=range(CLASSES))
        got = confusion(pad(true), pad(predicted), CLASSES, pad(np.ones(len(true), np.float32)))
        np.testing.assert_array_equal(got, expected)

    def test_refuses_shapes_that_would_broadcast(self):
        with pytest.raises(ValueError, match="must agree"):
            metrics.confusion(np.zeros((4, 1), int), np.zeros(4, int), 2)
        with pytest.raises(ValueError, match="must agree"):
            metrics.confusion(np.zeros(4, int), np.zeros(4, int), 2, np.ones(1))


class TestScoresOfCounts:
    @settings(max_examples=30, deadline=None)
    @given(class_pairs, st.integers(0, 2**16))
    def test_equals_scikit_learn(self, pairs, seed):
        true, predicted = np.array(pairs).T
        weights = np.random.default_rng(seed).uniform(0.5, 2, len(true)).astype(np.float32)
        got = summary(confusion(pad(true), pad(predicted), CLASSES, pad(weights)))
        f1 = partial(
            sklearn_metrics.f1_score,
            labels=range(CLASSES),
            zero_division=0,
            sample_weight=weights,
        )
        expected = {
            "weighted": f1(true, predicted, average="weighted"),
            "macro": f1(true, predicted, average="macro"),
            "accuracy": sklearn_metrics.accuracy_score(true, predicted, sample_weight=weights),
            "legacy": f1(predicted, true, average="weighted"),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, atol=1e-6, err_msg=name)

    def test_leading_axes(self):
        counts = np.random.default_rng(0).integers(0, 5, (2, 3, CLASSES, CLASSES))
        together = summary(counts)
        for index in np.ndindex(2, 3):
            alone = summary(counts[index])
            for name, value in alone.items():
                assert together[name].shape == (2, 3)
                np.testing.assert_allclose(together[name][index], value, rtol=1e-6)

    def test_no_examples_score_zero(self):
        for value in summary(jnp.zeros((CLASSES, CLASSES))).values():
            assert value == 0

    def test_one_argument_order_is_not_the_other(self):
        counts = metrics.binary_sentiment(TRUE, PREDICTED, "exclude")
        np.testing.assert_allclose(metrics.weighted_f1(counts), 0.828571, atol=1e-6)
        np.testing.assert_allclose(
            metrics.weighted_f1(counts, legacy_argument_order=True), 0.838095, atol=1e-6
        )


class TestBinarySentiment:
    def test_zero_is_excluded_or_non_negative(self):
        true, predicted = np.array([0.0, 0.0, 1.0, -1.0]), np.array([1.0, -1.0, 0.0, 0.0])
        np.testing.assert_array_equal(
            metrics.binary_sentiment(true, predicted, "exclude"), [[1, 0], [1, 0]]
        )
        np.testing.assert_array_equal(
            metrics.binary_sentiment(true, predicted, "non_negative"), [[0, 1], [1, 2]]
        )

    def test_refuses_an_unknown_convention(self):
        with pytest.raises(ValueError, match="non_negative"):
            metrics.binary_sentiment(TRUE, PREDICTED, "drop")


class TestScoresOfRegression:
    def test_closed_form(self):
        expected = {
            "non0_acc": 0.833333,
            "non0_f1": 0.828571,
            "has0_acc": 0.75,
            "has0_f1": 0.75,
            "acc7": 0.625,
            "acc5": 0.625,
            "mae": 0.4875,
            "corr": 0.9224877081,
        }
        got = report(TRUE, PREDICTED)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, atol=1e-6, err_msg=name)

    def test_padding_counts_for_nothing(self):
        garbage = np.array([np.nan, 1e30, -np.inf, 0], np.float32)
        weights = np.array([1] * 8 + [0] * 4, bool)
        padded = report(
            np.concatenate([TRUE, garbage]), np.concatenate([PREDICTED, -garbage[::-1]]), weights
        )
        for name, value in report(TRUE, PREDICTED).items():
            np.testing.assert_allclose(padded[name], value, atol=1e-6, err_msg=name)

    def test_weight_two_is_two_rows(self):
        weights = np.array([2, 1, 2, 1, 1, 1, 2, 1], np.float32)
        repeats = weights.astype(int)
        repeated = report(np.repeat(TRUE, repeats), np.repeat(PREDICTED, repeats))
        for name, value in report(TRUE, PREDICTED, weights).items():
            np.testing.assert_allclose(repeated[name], value, atol=1e-6, err_msg=name)

    def test_order_does_not_matter(self):
        order = np.random.default_rng(0).permutation(len(TRUE))
        permuted = report(TRUE[order], PREDICTED[order])
        for name, value in report(TRUE, PREDICTED).items():
            np.testing.assert_allclose(permuted[name], value, atol=1e-6, err_msg=name)

    def test_no_examples_score_zero(self):
        for name, value in report(TRUE, PREDICTED, np.zeros(8, np.float32)).items():
            assert value == 0, name

    def test_halves_round_to_even(self):
        true = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
        np.testing.assert_allclose(
            metrics.accuracy_at(true, np.array([0, 2, 2, 0, -2, -2.0]), 3), 1
        )
        assert metrics.accuracy_at(true, np.array([1, 1, 3, -1, -1, -3.0]), 3) == 0

    def test_limit_clips_both_sides(self):
        assert metrics.accuracy_at(np.array([3.0]), np.array([1.6]), 2) == 1
        assert metrics.accuracy_at(np.array([3.0]), np.array([1.6]), 3) == 0
        assert metrics.accuracy_at(np.array([-3.0, 0.2]), np.array([-0.7, 9.0]), 1) == 0.5

    def test_refuses_shapes_that_would_broadcast(self):
        functions = (
            metrics.mae,
            metrics.pearson,
            metrics.sentiment_report,
            partial(metrics.accuracy_at, limit=3),
            partial(metrics.binary_sentiment, zero="exclude"),
        )
        for function in functions:
            with pytest.raises(ValueError, match="must agree"):
                function(np.zeros((4, 1)), np.zeros(4))

    @settings(max_examples=30, deadline=None)
    @given(score_pairs)
    def test_equals_scikit_learn_and_scipy(self, pairs):
        true, predicted = np.array(pairs, np.float32).T
        got = report(pad(true), pad(predicted, value=7), pad(np.ones(len(true), np.float32)))
        np.testing.assert_allclose(
            got["mae"], sklearn_metrics.mean_absolute_error(true, predicted), atol=1e-6
        )
        constant = np.ptp(true) == 0 or np.ptp(predicted) == 0
        corr = 0 if constant else scipy_stats.pearsonr(true.astype(float), predicted)[0]
        np.testing.assert_allclose(got["corr"], corr, atol=2e-6)
        f1 = partial(sklearn_metrics.f1_score, average="weighted", zero_division=0)
        np.testing.assert_allclose(got["has0_f1"], f1(true >= 0, predicted >= 0), atol=1e-6)
        kept = true != 0
        if kept.any():
            np.testing.assert_allclose(
                got["non0_f1"], f1(true[kept] > 0, predicted[kept] > 0), atol=1e-6
            )


class TestPearson:
    @pytest.mark.parametrize("constant", [0.0, 0.1, -3.0, 1e30])
    def test_constant_is_zero(self, constant):
        scores = np.linspace(-1, 1, 7)
        assert metrics.pearson(scores, np.full(7, constant)) == 0
        assert metrics.pearson(np.full(7, constant), scores) == 0
        assert metrics.pearson(np.full(7, constant), np.full(7, constant)) == 0

    def test_constant_among_the_counted_rows_is_zero(self):
        scores = np.array([0.1, 0.1, 5.0])
        assert metrics.pearson(scores, np.arange(3.0), np.array([1, 1, 0])) == 0

    @pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (0.0, 1e-25), (0.0, 1e25)])
    def test_offset_and_scale_do_not_matter(self, offset, scale):
        rng = np.random.default_rng(0)
        true = (offset + scale * rng.normal(size=50)).astype(np.float32)
        predicted = true + np.float32(scale) * rng.normal(size=50).astype(np.float32)
        expected = scipy_stats.pearsonr(true.astype(float), predicted.astype(float))[0]
        np.testing.assert_allclose(metrics.pearson(true, predicted), expected, rtol=1e-5)

    def test_nan_is_not_hidden(self):
        assert jnp.isnan(metrics.pearson([1.0, jnp.nan, 2.0], [1.0, 2.0, 3.0]))


class TestConstantFloors:
    def test_mosi_test_split(self):
        non0 = metrics.constant_floors([379, 277])
        np.testing.assert_allclose(non0.accuracy, [0.5777, 0.4223], atol=5e-5)
        np.testing.assert_allclose(non0.weighted_f1, [0.4231, 0.2507], atol=5e-5)
        has0 = metrics.constant_floors([379, 277 + 30])
        np.testing.assert_allclose(has0.weighted_f1, [0.3932, 0.2767], atol=5e-5)

    def test_is_what_a_constant_prediction_scores(self):
        true = np.random.default_rng(0).integers(0, CLASSES, 40)
        floors = metrics.constant_floors(metrics.confusion(true, true, CLASSES).sum(-1))
        for index in range(CLASSES):
            scores = summary(metrics.confusion(true, np.full_like(true, index), CLASSES))
            np.testing.assert_allclose(floors.weighted_f1[index], scores["weighted"], rtol=1e-6)
            np.testing.assert_allclose(floors.accuracy[index], scores["accuracy"], rtol=1e-6)

    def test_leading_axes_and_no_examples(self):
        floors = metrics.constant_floors(np.array([[3, 1], [0, 0]]))
        np.testing.assert_allclose(floors.accuracy, [[0.75, 0.25], [0, 0]])
        np.testing.assert_array_equal(floors.weighted_f1[1], 0)


@pytest.fixture(scope="module")
def mmsa_evaluate():
    """The regression evaluation of the MMSA package, loaded without the package's own imports."""
    pytest.importorskip("torch")
    spec = importlib.util.find_spec("MMSA")
    if spec is None:
        pytest.skip("MMSA is not installed (pip install --no-deps MMSA==2.2.1)")
    path = Path(spec.submodule_search_locations[0]) / "utils" / "metricsTop.py"
    module_spec = importlib.util.spec_from_file_location("mmsa_metrics_top", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.MetricsTop("regression").getMetics("MOSI")


@pytest.mark.parametrize("seed", range(6))
def test_equals_mmsa(mmsa_evaluate, seed):
    import torch

    rng = np.random.default_rng(seed)
    true = (rng.integers(-12, 13, 60) / 4).astype(np.float32)
    predicted = (true + rng.normal(size=60)).astype(np.float32)
    # Exact zeros and halves, where the conventions differ.
    predicted[::3] = np.round(2 * predicted[::3]) / 2
    expected = mmsa_evaluate(torch.tensor(predicted), torch.tensor(true))
    got = report(true, predicted)
    names = {
        "has0_acc": "Has0_acc_2",
        "has0_f1": "Has0_F1_score",
        "non0_acc": "Non0_acc_2",
        "non0_f1": "Non0_F1_score",
        "acc7": "Mult_acc_7",
        "acc5": "Mult_acc_5",
        "mae": "MAE",
        "corr": "Corr",
    }
    for ours, theirs in names.items():
        # MMSA rounds its results to four decimals.
        np.testing.assert_allclose(got[ours], expected[theirs], atol=5.1e-5, err_msg=ours)
