"""Sample-level contrastive distillation against closed forms, a double loop and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group

from corrkd_jax.losses.contrastive import (
    active_negative_fraction,
    pair_distances,
    sample_contrastive,
)

TWO = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [3.0, 4.0]])
THREE = (
    np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
    np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]),
)
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 0.0])

loss = jax.jit(sample_contrastive, static_argnames=("normalize", "reduction"))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(scale=1.0, batch=6, features=5):
    student, teacher = scale * np.random.default_rng(0).normal(size=(2, batch, features))
    return student, teacher


def double_loop(student, teacher, margin, normalize, weights):
    """The formula as it is printed, and the sum of the weights of its pairs."""
    if normalize:
        student = student / np.linalg.norm(student, axis=1, keepdims=True)
        teacher = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    total = pairs = 0.0
    for i in range(len(student)):
        for j in range(len(student)):
            if j != i:
                pulled = np.linalg.norm(student[i] - teacher[i]) ** 2
                pushed = max(0.0, margin - np.linalg.norm(student[i] - teacher[j])) ** 2
                total += weights[i] * weights[j] * (pulled + pushed)
                pairs += weights[i] * weights[j]
    return total, pairs


class TestPairDistances:
    @pytest.mark.parametrize("normalize", [False, True])
    def test_equals_norms_of_differences(self, x64, normalize):
        student, teacher = sample()
        distances = pair_distances(student, teacher, normalize)
        if normalize:
            student = student / np.linalg.norm(student, axis=1, keepdims=True)
            teacher = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
        expected = np.linalg.norm(student[:, None] - teacher, axis=2)
        np.testing.assert_allclose(distances.crossed, expected, atol=1e-9)
        np.testing.assert_allclose(distances.matched, np.diag(expected), atol=1e-9)


class TestSampleContrastive:
    @pytest.mark.parametrize(
        ("rows", "margin", "total"),
        [(TWO, 1.2, 1.0), (TWO, 6.0, 5.0883117546), (THREE, 1.2, 2.08)],
    )
    def test_closed_form(self, x64, rows, margin, total):
        pairs = len(rows[0]) * (len(rows[0]) - 1)
        value = loss(*rows, margin, normalize=False, reduction="sum")
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, total, atol=1e-6)
        np.testing.assert_allclose(loss(*rows, margin, normalize=False), total / pairs, atol=1e-6)

    def test_closed_form_in_float32(self):
        rows = [r.astype(np.float32) for r in THREE]
        np.testing.assert_allclose(loss(*rows, normalize=False), 0.3466667, rtol=1e-5)

    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("margin", [0.5, 1.4, 3.0])
    @pytest.mark.parametrize("weights", [np.ones(6), WEIGHTS], ids=["plain", "weighted"])
    def test_equals_a_double_loop(self, x64, normalize, margin, weights):
        student, teacher = sample()
        total, pairs = double_loop(student, teacher, margin, normalize, weights)
        assert total > 0
        shared = {"normalize": normalize, "weights": weights}
        np.testing.assert_allclose(
            loss(student, teacher, margin, reduction="sum", **shared), total, atol=1e-6
        )
        np.testing.assert_allclose(
            loss(student, teacher, margin, **shared), total / pairs, atol=1e-6
        )

    @pytest.mark.parametrize("normalize", [False, True])
    def test_gradient_equals_torch(self, x64, normalize):
        torch = pytest.importorskip("torch")
        student, teacher = sample(scale=0.5)
        theirs, constant = torch.tensor(student, requires_grad=True), torch.tensor(teacher)
        anchors = theirs
        if normalize:
            anchors = torch.nn.functional.normalize(theirs)
            constant = torch.nn.functional.normalize(constant)
        others = ~torch.eye(6, dtype=torch.bool)
        pushed = torch.relu(1.2 - torch.cdist(anchors, constant))[others] ** 2
        (5 * ((anchors - constant) ** 2).sum() + pushed.sum()).backward()
        gradient = jax.grad(loss)(student, teacher, normalize=normalize, reduction="sum")
        assert np.abs(gradient).max() > 0.1
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-8)

    def test_length_of_rows_matters_only_without_normalisation(self, x64):
        student, teacher = sample()
        np.testing.assert_allclose(
            loss(7 * student, 0.1 * teacher), loss(student, teacher), rtol=1e-9
        )
        raw = loss(student, teacher, normalize=False)
        assert abs(loss(7 * student, teacher, normalize=False) - raw) > 1

    @pytest.mark.parametrize("normalize", [False, True])
    def test_rotation_does_not_matter(self, x64, normalize):
        student, teacher = sample()
        turn = ortho_group.rvs(5, random_state=0)
        np.testing.assert_allclose(
            loss(student @ turn, teacher @ turn, normalize=normalize),
            loss(student, teacher, normalize=normalize),
            rtol=1e-9,
        )
        assert abs(loss(student @ turn, teacher) - loss(student, teacher)) > 1e-2

    def test_nothing_but_a_squared_error_beyond_the_margin(self, x64):
        student, teacher = sample(scale=50.0)
        value, gradient = jax.value_and_grad(loss)(student, teacher, normalize=False)
        np.testing.assert_allclose(value, ((student - teacher) ** 2).sum() / 6, rtol=1e-9)
        np.testing.assert_allclose(gradient, (student - teacher) / 3, rtol=1e-9)

    def test_reductions_agree(self, x64):
        pairs = loss(*sample(), weights=WEIGHTS, reduction="none")
        assert pairs.shape == (6, 6)
        np.testing.assert_array_equal(np.diag(pairs), 0)
        np.testing.assert_allclose(
            loss(*sample(), weights=WEIGHTS, reduction="sum"), pairs.sum(), rtol=1e-9
        )

    def test_margin_may_be_traced(self):
        student, teacher = sample()
        traces = []

        @jax.jit
        def traced(margin):
            traces.append(margin)
            return sample_contrastive(student, teacher, margin)

        margins = np.array([0.8, 1.0, 1.2, 1.4], np.float32)
        one_by_one = [traced(margin) for margin in margins]
        assert len(traces) == 1
        assert len(set(map(float, one_by_one))) == 4
        np.testing.assert_allclose(jax.vmap(traced)(margins), one_by_one, rtol=1e-6)
        np.testing.assert_allclose(one_by_one[2], sample_contrastive(student, teacher), rtol=1e-6)

    def test_refuses_an_unknown_reduction(self):
        with pytest.raises(ValueError, match="reduction must be"):
            loss(*sample(), reduction="batchmean")


class TestActiveNegativeFraction:
    # Distances of the two negative pairs: 5 from (0, 0) to (3, 4), sqrt 18 from (3, 4) to (0, 1).
    @pytest.mark.parametrize(("margin", "share"), [(1.2, 0), (4.5, 0.5), (6.0, 1)])
    def test_by_hand(self, margin, share):
        assert active_negative_fraction(*TWO, margin, normalize=False) == share

    def test_weights(self):
        rows = [np.concatenate([r, np.full((1, 2), np.nan)]) for r in TWO]
        weights = np.array([1, 1, 0])
        assert active_negative_fraction(*rows, 4.5, normalize=False, weights=weights) == 0.5
        assert active_negative_fraction(*rows, 4.5, weights=np.zeros(3)) == 0

    def test_tells_dead_negatives_of_raw_rows(self):
        student, teacher = sample(scale=3.0)
        assert active_negative_fraction(student, teacher, normalize=False) < 0.1
        assert active_negative_fraction(student, teacher) > 0.2

    def test_has_no_gradient(self):
        gradient = jax.grad(active_negative_fraction)(*(jnp.asarray(r) for r in TWO), 4.5)
        np.testing.assert_array_equal(gradient, 0)
