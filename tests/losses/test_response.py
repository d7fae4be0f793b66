"""Response-disentangled consistency distillation against closed forms and a double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.losses.response import (
    jsd_mutual_information,
    response_consistency,
    split_responses,
)
from corrkd_jax.models.statistics import StatisticsNetwork

LOGITS = np.array([[2.0, 1.0, 0.0, -1.0]])
PROBABILITIES = [0.64391426, 0.23688282, 0.08714432, 0.03205860]
BATCH = 6
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 0.0])
PAIRED = np.array([[0.9], [0.1]])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def product(a, b):
    """`T(a, b) = 4 (a - 1/2) (b - 1/2)`, summed over parts."""
    return 4 * (a - 0.5) @ (b - 0.5).T


def skewed(a, b):
    """A score that is neither symmetric nor linear, and tells the parts apart."""
    parts = 1 + jnp.arange(a.shape[1])
    return jnp.sin(3 * a @ parts)[:, None] * jnp.exp(b @ parts)[None] - 0.2


information = jax.jit(jsd_mutual_information, static_argnums=0, static_argnames="negatives")
consistency = jax.jit(
    response_consistency, static_argnums=(3, 4), static_argnames=("renormalize", "negatives")
)


def sample(classes, scale=1.5):
    rng = np.random.default_rng(classes)
    student, teacher = scale * rng.normal(size=(2, BATCH, classes))
    return student, teacher, np.arange(BATCH) % classes


def softplus(z):
    return np.log1p(np.exp(z))


def double_loop(score, a, b, weights, negatives="all"):
    """The estimator as it is printed: expectations over matched and over crossed pairs."""
    joint, crossed, rows, pairs = 0.0, 0.0, 0.0, 0.0
    real = np.flatnonzero(weights)
    after = dict(zip(real, np.roll(real, -1), strict=True))
    for i in range(len(a)):
        for j in range(len(b)):
            value = float(score(a[i : i + 1], b[j : j + 1])[0, 0])
            if i == j:
                joint += weights[i] * -softplus(-value)
                rows += weights[i]
            elif negatives == "all" or j == after.get(i):
                crossed += weights[i] * weights[j] * softplus(value)
                pairs += weights[i] * weights[j]
    return joint / rows - crossed / pairs


def split_in_numpy(logits, labels, renormalize):
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.array([[p[y]] for p, y in zip(probabilities, labels, strict=True)])
    others = np.array([np.delete(p, y) for p, y in zip(probabilities, labels, strict=True)])
    return target, others / others.sum(axis=1, keepdims=True) if renormalize else others


class TestSplitResponses:
    @pytest.mark.parametrize("target", range(4))
    def test_others_keep_ascending_order(self, x64, target):
        split = split_responses(LOGITS, np.array([target]))
        assert split.target.dtype == jnp.float64
        np.testing.assert_allclose(split.target, [[PROBABILITIES[target]]], atol=1e-8)
        np.testing.assert_allclose(split.others, [np.delete(PROBABILITIES, target)], atol=1e-8)

    def test_renormalized_others_sum_to_one_in_the_same_proportions(self, x64):
        raw = split_responses(LOGITS, np.array([1]))
        scaled = split_responses(LOGITS, np.array([1]), renormalize=True)
        np.testing.assert_allclose(scaled.target, raw.target)
        np.testing.assert_allclose(scaled.others, raw.others / raw.others.sum(), rtol=1e-9)

    def test_two_classes_hold_one_number(self):
        student, _, labels = sample(2)
        split = split_responses(student, labels)
        np.testing.assert_allclose(split.others, 1 - split.target, atol=1e-6)
        np.testing.assert_array_equal(split_responses(student, labels, True).others, 1)

    @pytest.mark.parametrize("renormalize", [False, True])
    def test_confident_networks_have_finite_gradients(self, renormalize):
        logits, labels = np.array([[1e4, 0.0, -1e4]] * 3, np.float32), np.arange(3)

        def total(logits):
            return sum(jnp.sum(part) for part in split_responses(logits, labels, renormalize))

        value, gradient = jax.value_and_grad(total)(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_refuses_labels_that_do_not_fit(self):
        with pytest.raises(ValueError, match="do not fit"):
            split_responses(LOGITS, np.array([0, 1]))
        with pytest.raises(ValueError, match="integers"):
            split_responses(LOGITS, np.array([0.0]))


class TestJsdMutualInformation:
    def test_closed_form(self, x64):
        np.testing.assert_allclose(information(product, PAIRED, PAIRED), -0.8469930204, atol=1e-9)
        np.testing.assert_allclose(
            information(product, PAIRED, PAIRED[::-1]), -2.1269930205, atol=1e-9
        )

    def test_constant_zero_score(self, x64):
        def zero(a, b):
            return jnp.zeros((len(a), len(b)))

        np.testing.assert_allclose(information(zero, PAIRED, PAIRED), -2 * np.log(2), atol=1e-9)

    @pytest.mark.parametrize("parts", [1, 2, 3])
    @pytest.mark.parametrize("weights", [np.ones(BATCH), WEIGHTS], ids=["plain", "weighted"])
    def test_equals_a_double_loop(self, x64, parts, weights):
        a, b = np.random.default_rng(parts).uniform(size=(2, BATCH, parts))
        for negatives in ("all", "next"):
            expected = double_loop(skewed, a, b, weights, negatives)
            found = information(skewed, a, b, negatives=negatives, weights=weights)
            np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_target_and_others_tell_the_same_of_two_classes(self, x64):
        student, teacher, labels = sample(2)
        student, teacher = (split_responses(logits, labels) for logits in (student, teacher))

        def mirrored(a, b):
            return skewed(1 - a, 1 - b)

        np.testing.assert_allclose(
            information(mirrored, teacher.others, student.others),
            information(skewed, teacher.target, student.target),
            atol=1e-9,
        )

    @pytest.mark.parametrize("size", [-1e4, 1e4])
    def test_huge_scores_stay_finite(self, size):
        def huge(scale, a, b):
            return scale * (a @ b.T)

        def value(scale):
            return jsd_mutual_information(lambda a, b: huge(scale, a, b), PAIRED, PAIRED)

        value, gradient = jax.value_and_grad(value)(size)
        assert np.isfinite(value)
        assert np.isfinite(gradient)
        assert value < -100

    def test_one_row_has_no_product_pairs(self, x64):
        row = np.array([[0.9]])
        np.testing.assert_allclose(information(product, row, row), -softplus(-0.64), atol=1e-9)

    def test_a_score_in_half_precision_is_promoted(self):
        def half(a, b):
            return product(a, b).astype(jnp.bfloat16)

        value = information(half, PAIRED, PAIRED)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, -0.8469930204, atol=5e-3)


class TestResponseConsistency:
    @pytest.mark.parametrize("classes", [2, 3, 4])
    @pytest.mark.parametrize("renormalize", [False, True])
    @pytest.mark.parametrize("weights", [np.ones(BATCH), WEIGHTS], ids=["plain", "weighted"])
    def test_equals_a_double_loop(self, x64, classes, renormalize, weights):
        student, teacher, labels = sample(classes)
        options = {"renormalize": renormalize, "weights": weights}
        value = consistency(student, teacher, labels, skewed, product, **options)
        following = consistency(
            student, teacher, labels, skewed, product, negatives="next", **options
        )
        of_student = split_in_numpy(student, labels, renormalize)
        of_teacher = split_in_numpy(teacher, labels, renormalize)
        for found, negatives in ((value, "all"), (following, "next")):
            expected = sum(
                -double_loop(score, t, s, weights, negatives)
                for score, t, s in zip((skewed, product), of_teacher, of_student, strict=True)
            )
            np.testing.assert_allclose(found, expected, atol=1e-9)
        with pytest.raises(ValueError, match="negatives must be all or next"):
            consistency(student, teacher, labels, skewed, product, negatives="some")

    def test_renormalizing_matters(self):
        student, teacher, labels = sample(4)
        values = [
            consistency(student, teacher, labels, skewed, skewed, renormalize=flag)
            for flag in (False, True)
        ]
        assert abs(values[0] - values[1]) > 1e-2

    @pytest.mark.parametrize("classes", [2, 4])
    def test_fresh_statistics_networks_give_four_log_two(self, classes):
        student, teacher, labels = sample(classes)
        network = StatisticsNetwork(8)
        one, rest = jnp.zeros((1, 1)), jnp.zeros((1, classes - 1))
        params = [network.init(jax.random.key(0), part, part) for part in (one, rest)]

        @jax.jit
        def value(params, student):
            scorers = [lambda a, b, p=p: network.apply(p, a, b) for p in params]
            return response_consistency(student, teacher, labels, *scorers)

        np.testing.assert_allclose(value(params, student), 4 * np.log(2), rtol=1e-6)
        # The zero layer must be able to leave zero: the networks start learning first.
        gradients = jax.grad(value)(params, student)
        assert all(np.abs(g["params"]["score"]["kernel"]).max() > 0 for g in gradients)
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
        assert value(moved, student) < value(params, student)

    def test_padding_does_not_reach_the_statistics_networks(self):
        student, teacher, labels = sample(3)

        def value(scale, student, teacher, labels, weights):
            scorers = [lambda a, b, s=s: s * skewed(a, b) for s in scale]
            return response_consistency(student, teacher, labels, *scorers, weights=weights)

        gradient = jax.jit(jax.grad(value))
        scale, kept = np.ones(2), WEIGHTS > 0
        expected = gradient(scale, student[kept], teacher[kept], labels[kept], WEIGHTS[kept])
        student[~kept], teacher[~kept], labels[~kept] = np.nan, 1e4, 99
        padded = gradient(scale, student, teacher, labels, WEIGHTS)
        np.testing.assert_allclose(padded, expected, rtol=1e-5)
