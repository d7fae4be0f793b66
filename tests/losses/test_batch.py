"""What losses that couple the batch are built from, and the properties that all of them share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from corrkd_jax import losses
from corrkd_jax.losses.batch import counted_rows, normalize_rows, off_diagonal

BATCH, FEATURES = 8, 3
WEIGHTS = np.array([1, 1, 0.5, 1, 2, 0, 0, 0], np.float32)


def bilinear(a, b):
    """A statistics network that is no network: finite differences of it are exact."""
    scale = 1.0 + jnp.arange(a.shape[1])
    return 4 * ((a - 0.3) * scale) @ (b - 0.4).T


def scd(student, teacher, labels, weights=None, normalize=True):
    del labels
    return losses.sample_contrastive(student, teacher, normalize=normalize, weights=weights)


def cpd(student, teacher, labels, weights=None):
    return losses.category_prototype(student, teacher, labels, FEATURES, weights=weights)


def rcd(student, teacher, labels, weights=None):
    return losses.response_consistency(
        student, teacher, labels, bilinear, bilinear, weights=weights
    )


LOSSES = {"scd": scd, "scd_raw": partial(scd, normalize=False), "cpd": cpd, "rcd": rcd}
# Compiled as a whole: the tests' time is compilation, and op by op there is more of it.
VALUES = {name: jax.jit(loss) for name, loss in LOSSES.items()}
GRADIENTS = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in LOSSES.items()}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(batch=BATCH, seed=0, dtype=np.float32):
    """Student rows, teacher rows and labels; of one width, so that they serve every loss."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, batch, FEATURES)).astype(dtype)
    return student, teacher, np.arange(batch) % FEATURES


class TestNormalizeRows:
    def test_length_is_one(self):
        rows = normalize_rows(100 * sample()[0])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)

    def test_zero_row_stays_zero_and_so_does_its_gradient(self):
        value, pullback = jax.vjp(normalize_rows, jnp.zeros((2, 3)))
        np.testing.assert_array_equal(value, 0)
        np.testing.assert_array_equal(pullback(jnp.ones((2, 3)))[0], 0)


class TestCountedRows:
    def test_only_rows_of_weight_zero_become_zero(self):
        rows = np.full((3, 2), np.nan, np.float32)
        rows[1] = [5, 6]
        np.testing.assert_array_equal(
            counted_rows(rows, np.array([0, 0.1, 0])), [[0, 0], [5, 6], [0, 0]]
        )

    def test_labels_too(self):
        labels = counted_rows(np.array([3, 99, -1]), np.array([True, False, False]))
        np.testing.assert_array_equal(labels, [3, 0, 0])
        assert jnp.issubdtype(labels.dtype, jnp.integer)


class TestOffDiagonal:
    def test_products_of_weights_without_the_diagonal(self):
        pairs = off_diagonal(np.array([1.0, 2.0, 0.0]), 3, jnp.float32, None)
        np.testing.assert_array_equal(pairs, [[0, 2, 0], [2, 0, 0], [0, 0, 0]])

    def test_shards_hold_the_rows_of_the_whole(self):
        whole = off_diagonal(WEIGHTS, BATCH, jnp.float32, None)
        shards = jax.vmap(lambda w: off_diagonal(w, 2, jnp.float32, "data"), axis_name="data")(
            WEIGHTS.reshape(4, 2)
        )
        np.testing.assert_array_equal(shards.reshape(BATCH, BATCH), whole)


@pytest.mark.parametrize("name", LOSSES)
class TestEveryCoupledLoss:
    def test_order_of_the_batch_does_not_matter(self, name):
        student, teacher, labels = sample()
        order = np.random.default_rng(1).permutation(BATCH)
        value = VALUES[name](student, teacher, labels, WEIGHTS)
        permuted = VALUES[name](student[order], teacher[order], labels[order], WEIGHTS[order])
        np.testing.assert_allclose(permuted, value, rtol=1e-5)

    def test_pairing_with_the_teacher_matters(self, name):
        student, teacher, labels = sample()
        value = VALUES[name](student, teacher, labels)
        assert abs(VALUES[name](student, np.roll(teacher, 1, axis=0), labels) - value) > 1e-2

    @pytest.mark.parametrize("garbage", [1e4, 1e30, np.inf, np.nan])
    @pytest.mark.parametrize("label", [-1, 0, 99])
    def test_padding_counts_for_nothing(self, name, garbage, label):
        student, teacher, labels = sample()
        value, gradient = GRADIENTS[name](student[:5], teacher[:5], labels[:5], WEIGHTS[:5])
        student[5:], teacher[5:], labels[5:] = garbage, -garbage, label
        padded = GRADIENTS[name](student, teacher, labels, WEIGHTS)
        np.testing.assert_allclose(padded[0], value, atol=1e-6)
        np.testing.assert_allclose(padded[1][:5], gradient, atol=1e-6)
        np.testing.assert_array_equal(padded[1][5:], 0)

    def test_padding_wherever_it_stands(self, name):
        student, teacher, labels = sample()
        weights = np.array([0, 1, 1, 0, 1, 1, 1, 0], bool)
        value = VALUES[name](student[weights], teacher[weights], labels[weights])
        student[~weights], teacher[~weights] = 1e4, -1e4
        np.testing.assert_allclose(
            VALUES[name](student, teacher, labels, weights), value, atol=1e-6
        )

    def test_no_gradient_reaches_the_teacher(self, name):
        gradient = jax.grad(LOSSES[name], argnums=1)(*sample())
        np.testing.assert_array_equal(gradient, 0)

    def test_gradient_equals_finite_differences(self, name, x64):
        student, teacher, labels = sample(dtype=np.float64)
        check_grads(
            lambda s: VALUES[name](s, teacher, labels, WEIGHTS),
            (student,),
            order=1,
            modes=["rev"],
            atol=1e-7,
            rtol=1e-7,
        )

    @pytest.mark.parametrize(
        "case", ["student is teacher", "all zero", "one zero", "all alike", "absent classes"]
    )
    def test_gradient_is_finite_and_small(self, name, case):
        student, teacher, labels = sample()
        if case == "student is teacher":
            student = teacher
        elif case == "all zero":
            student, teacher = np.zeros_like(student), np.zeros_like(teacher)
        elif case == "one zero":
            student[3] = 0
        elif case == "all alike":
            student[:] = teacher[:] = teacher[0]
        else:
            labels[:] = 1
        value, gradient = GRADIENTS[name](student, teacher, labels)
        assert np.isfinite(value)
        assert np.abs(gradient).max() < 10

    @pytest.mark.parametrize("batch", [1, 2])
    def test_tiny_batches(self, name, batch):
        value, gradient = GRADIENTS[name](*sample(batch=batch))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_no_rows_give_zero(self, name):
        student, teacher, labels = sample()
        student[0] = np.nan
        value, gradient = GRADIENTS[name](student, teacher, labels, np.zeros(BATCH))
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)

    def test_half_precision_is_promoted(self, name):
        student, teacher, labels = sample()
        student, teacher = jnp.asarray(student, jnp.bfloat16), jnp.asarray(teacher, jnp.bfloat16)
        value = VALUES[name](student, teacher, labels)
        assert value.dtype == jnp.float32
        wide = VALUES[name](student.astype(jnp.float32), teacher.astype(jnp.float32), labels)
        np.testing.assert_allclose(value, wide, rtol=1e-6)

    def test_refuses_shapes_that_differ(self, name):
        student, teacher, labels = sample()
        with pytest.raises(ValueError, match="must agree"):
            LOSSES[name](student, teacher[:1], labels)
