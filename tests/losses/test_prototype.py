"""Category-guided prototype distillation against closed forms and a double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ortho_group

from corrkd_jax.losses.prototype import (
    Prototypes,
    category_prototype,
    class_prototypes,
    cosine_to_prototypes,
)

LABELS = np.array([0, 0, 1, 1])
TEACHER = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
STUDENT = np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
WEIGHTS = np.array([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 0.3, 0.0])

loss = jax.jit(category_prototype, static_argnames=("num_classes", "distance", "count_absent"))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(classes, batch=8, features=5):
    rng = np.random.default_rng(classes)
    student, teacher = rng.normal(size=(2, batch, features))
    return student, teacher, np.arange(batch) % classes


def cosines(features, labels, classes):
    return cosine_to_prototypes(features, class_prototypes(features, labels, classes))


def double_loop(student, teacher, labels, classes, weights):
    """The formula as it is printed, over classes that have weight."""

    def cosine(features, i, k):
        members = labels == k
        center = (weights[members, None] * features[members]).sum(axis=0) / weights[members].sum()
        lengths = np.linalg.norm(features[i]) * np.linalg.norm(center)
        return features[i] @ center / lengths

    present = [k for k in range(classes) if weights[labels == k].sum() > 0]
    total = sum(
        weights[i] * (cosine(student, i, k) - cosine(teacher, i, k)) ** 2
        for i in range(len(labels))
        for k in present
    )
    return total / (weights.sum() * len(present))


class TestClassPrototypes:
    def test_by_hand(self):
        centers, present = class_prototypes(TEACHER, LABELS, 3)
        np.testing.assert_allclose(centers, [[0.5, 0.5], [-0.5, -0.5], [0, 0]])
        np.testing.assert_array_equal(present, [1, 1, 0])

    def test_weighted_mean(self):
        weights = np.array([3.0, 1.0, 0.0, 0.0])
        centers, present = class_prototypes(TEACHER, LABELS, 2, weights=weights)
        np.testing.assert_allclose(centers, [[0.75, 0.25], [0, 0]])
        np.testing.assert_array_equal(present, [1, 0])

    @pytest.mark.parametrize("label", [-1, 0, 99])
    def test_padding_holds_anything(self, label):
        features, labels = TEACHER.copy(), LABELS.copy()
        features[3], labels[3] = np.nan, label
        centers, _ = class_prototypes(features, labels, 2, weights=np.array([1, 1, 1, 0]))
        np.testing.assert_allclose(centers, [[0.5, 0.5], [-1, 0]])

    def test_counts_of_many_half_precision_rows(self):
        features = jnp.ones((1000, 2), jnp.bfloat16)
        centers, _ = class_prototypes(features, jnp.zeros(1000, int), 1)
        assert centers.dtype == jnp.float32
        np.testing.assert_allclose(centers, 1, rtol=1e-6)


class TestCosineToPrototypes:
    def test_closed_form(self, x64):
        half = 0.70710678118
        np.testing.assert_allclose(
            cosines(TEACHER, LABELS, 2),
            [[half, -half], [half, -half], [-half, half], [-half, half]],
            atol=1e-9,
        )

    def test_zero_rows_and_absent_classes_give_zero(self):
        prototypes = Prototypes(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([0.0, 1.0]))
        rows = np.array([[0.0, 0.0], [6.0, 8.0]])
        np.testing.assert_allclose(
            cosine_to_prototypes(rows, prototypes), [[0, 0], [0, 1]], atol=1e-6
        )


class TestCategoryPrototype:
    def test_closed_form(self, x64):
        value = loss(STUDENT, TEACHER, LABELS, 2)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, 0.0352334989, atol=1e-6)
        difference = np.abs(cosines(STUDENT, LABELS, 2) - cosines(TEACHER, LABELS, 2))
        np.testing.assert_allclose(difference.mean(), 0.1461254676, atol=1e-6)

    def test_norm_in_place_of_the_square(self, x64):
        value = loss(STUDENT, TEACHER, LABELS, 2, distance="norm")
        np.testing.assert_allclose(value, 0.1461254676, atol=1e-6)
        same = jax.grad(lambda x: loss(x, TEACHER, LABELS, 2, distance="norm"))(TEACHER)
        assert np.all(np.isfinite(same))
        with pytest.raises(ValueError, match="distance must be square or norm"):
            loss(STUDENT, TEACHER, LABELS, 2, distance="cube")

    @pytest.mark.parametrize("distance", ["square", "norm"])
    def test_absent_classes_can_be_counted(self, x64, distance):
        """Three of five classes are absent, whose cosines are 0 on both sides."""
        student, teacher, labels = sample(2)
        shared = {"distance": distance, "weights": WEIGHTS}
        left_out = loss(student, teacher, 3 * labels, 5, **shared)
        counted = loss(student, teacher, 3 * labels, 5, count_absent=True, **shared)
        np.testing.assert_allclose(counted, left_out * 2 / 5, rtol=1e-9)

    def test_closed_form_in_float32(self):
        value = loss(STUDENT.astype(np.float32), TEACHER.astype(np.float32), LABELS, 2)
        np.testing.assert_allclose(value, 0.0352334989, rtol=1e-4)

    @pytest.mark.parametrize("classes", [2, 3, 4])
    @pytest.mark.parametrize("weights", [np.ones(8), WEIGHTS], ids=["plain", "weighted"])
    def test_equals_a_double_loop(self, x64, classes, weights):
        student, teacher, labels = sample(classes)
        expected = double_loop(student, teacher, labels, classes, weights)
        value = loss(student, teacher, labels, classes, weights=weights)
        np.testing.assert_allclose(value, expected, atol=1e-6)

    def test_absent_classes_are_left_out(self, x64):
        student, teacher, labels = sample(2)
        expected = double_loop(student, teacher, labels, 2, np.ones(8))
        np.testing.assert_allclose(loss(student, teacher, 3 * labels, 5), expected, atol=1e-6)
        # A class is absent, too, when all of its rows are padding.
        weights = np.where(np.arange(8) == 7, 0, WEIGHTS)
        labels = np.where(weights > 0, labels, 2)
        np.testing.assert_allclose(
            loss(student, teacher, labels, 3, weights=weights),
            double_loop(student, teacher, labels, 2, weights),
            atol=1e-6,
        )

    def test_zero_with_zero_gradient_where_student_is_teacher(self, x64):
        _, teacher, labels = sample(3)
        value, gradient = jax.value_and_grad(loss)(teacher, teacher, labels, 3)
        np.testing.assert_allclose(value, 0, atol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)

    def test_scale_and_rotation_of_either_network_do_not_matter(self, x64):
        student, teacher, labels = sample(3)
        value = loss(student, teacher, labels, 3)
        turn = ortho_group.rvs(5, random_state=0)
        np.testing.assert_allclose(loss(7 * student, teacher, labels, 3), value, rtol=1e-9)
        np.testing.assert_allclose(loss(student, 0.1 * teacher, labels, 3), value, rtol=1e-9)
        np.testing.assert_allclose(loss(student @ turn, teacher, labels, 3), value, rtol=1e-9)

    def test_gradient_reaches_a_row_through_its_prototype(self):
        student, teacher, labels = sample(2)

        # what is asked of the first row alone
        def first_row(student):
            difference = cosines(student, labels, 2) - cosines(teacher, labels, 2)
            return jnp.sum(difference[0] ** 2)

        gradient = jax.grad(first_row)(jnp.asarray(student))
        assert (np.abs(gradient[labels == labels[0]]).max(axis=1) > 1e-3).all()

    def test_products_keep_all_digits_on_accelerators(self):
        program = str(jax.make_jaxpr(category_prototype, static_argnums=3)(*sample(2), 2))
        assert program.count("dot_general") == program.count("Precision.HIGHEST") / 2 > 0
