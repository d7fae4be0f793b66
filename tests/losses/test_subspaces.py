"""Discrepancy, difference and reconstruction: closed forms, invariances, MMSA's own, sharding."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from corrkd_jax.losses.subspaces import (
    central_moment_discrepancy,
    difference,
    reconstruction,
    subspace_terms,
)
from tests.losses.mmsa import load_trainer

BATCH, FEATURES = 8, 3
WEIGHTS = np.array([1, 1, 0.5, 1, 2, 0, 0, 0], np.float32)
LOSSES = {
    "discrepancy": central_moment_discrepancy,
    "difference": difference,
    "reconstruction": reconstruction,
}
# the norms of equal moments, by the epsilons inside their roots
ZERO = 5.1e-6

VALUES = {name: jax.jit(loss) for name, loss in LOSSES.items()}
GRADIENTS = {name: jax.jit(jax.value_and_grad(loss, (0, 1))) for name, loss in LOSSES.items()}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(seed=0, batch=BATCH, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(2, batch, FEATURES)).astype(dtype)


class TestCentralMomentDiscrepancy:
    def test_closed_form(self, x64):
        # deviations of x are -1 and 1, those of y -2 and 2: even moments differ, odd ones are 0
        x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
        # means 2, second moments 3, fourth moments 15
        np.testing.assert_allclose(VALUES["discrepancy"](x, y), 2 + 3 + 15, atol=ZERO)
        norm = np.sqrt(2)  # the same coordinate twice
        both = VALUES["discrepancy"](np.tile(x, 2), np.tile(y, 2))
        np.testing.assert_allclose(both, 20 * norm, atol=ZERO)

    def test_equal_samples_in_any_order_are_at_zero_with_a_zero_gradient(self):
        x, _ = sample()
        value, gradient = GRADIENTS["discrepancy"](x, x)
        assert value < ZERO
        np.testing.assert_array_equal(gradient, 0)
        assert VALUES["discrepancy"](x, x[::-1]) < 2 * ZERO

    def test_is_symmetric(self):
        x, y = sample()
        value = VALUES["discrepancy"](x, y)
        assert value > 1
        np.testing.assert_allclose(VALUES["discrepancy"](y, x), value, rtol=1e-6)

    def test_a_shift_moves_the_mean_alone(self):
        x, _ = sample()
        value = VALUES["discrepancy"](x, x + np.array([3, 0, 4], np.float32))
        np.testing.assert_allclose(value, 5, rtol=1e-4)


class TestDifference:
    def test_closed_form(self, x64):
        # centred rows are +-(1, 0) and +-(0, 1): X'Y has a 2 in one of four places
        x, y = np.array([[3.0, 0], [1, 0]]), np.array([[0, 5.0], [0, 1]])
        np.testing.assert_allclose(VALUES["difference"](x, y), 1, rtol=1e-5)
        np.testing.assert_allclose(VALUES["difference"](x, 7 - 2 * y), 1, rtol=1e-5)

    def test_is_zero_where_either_does_not_vary(self):
        x, _ = sample()
        constant = np.full((BATCH, FEATURES), 0.5, np.float32)
        for pair in ((x, constant), (constant, x)):
            value, gradient = GRADIENTS["difference"](*pair)
            assert value == 0
            assert np.isfinite(gradient).all()

    def test_a_constant_row_added_to_either_changes_nothing(self):
        x, y = sample()
        row = np.array([1, -2, 3], np.float32)
        value = VALUES["difference"](x, y)
        assert value > 0.1
        np.testing.assert_allclose(VALUES["difference"](x + row, y), value, rtol=1e-4)
        np.testing.assert_allclose(VALUES["difference"](x, y - row), value, rtol=1e-4)
        np.testing.assert_allclose(VALUES["difference"](y, x), value, rtol=1e-5)

    def test_a_row_on_the_mean_has_no_gradient(self):
        x, y = np.array([[[-1.0], [0], [1]], [[1.0], [2], [4]]], np.float32)
        _, gradient = GRADIENTS["difference"](x, y)
        assert np.abs(gradient[0]).max() < 10
        assert np.abs(gradient[1]).max() > 0.1

    def test_codes_of_two_widths(self):
        x, y = sample()
        assert VALUES["difference"](x, y[:, :2]) > 0


def test_reconstruction_by_hand():
    loss = reconstruction(np.array([[1.0, 2], [9, 9]]), np.array([[2.0, 4], [9, 6]]))
    np.testing.assert_allclose(loss, (1 + 4 + 0 + 9) / 4)


@pytest.mark.parametrize("name", LOSSES)
class TestEachLoss:
    @pytest.mark.parametrize("garbage", [1e30, np.inf, np.nan])
    def test_padding_counts_for_nothing(self, name, garbage):
        x, y = sample()
        value, gradients = GRADIENTS[name](x[:5], y[:5], weights=WEIGHTS[:5])
        x[5:], y[5:] = garbage, -garbage
        padded = GRADIENTS[name](x, y, weights=WEIGHTS)
        np.testing.assert_allclose(padded[0], value, rtol=1e-5)
        for own, alone in zip(padded[1], gradients, strict=True):
            np.testing.assert_allclose(own[:5], alone, atol=1e-5)
            np.testing.assert_array_equal(own[5:], 0)

    def test_a_row_of_weight_two_is_two_rows(self, name):
        x, y = sample()
        weights = np.ones(BATCH, np.float32)
        weights[2] = 2
        doubled = VALUES[name](*(np.concatenate([a, a[2:3]]) for a in (x, y)))
        np.testing.assert_allclose(VALUES[name](x, y, weights=weights), doubled, rtol=1e-5)
        assert abs(VALUES[name](x, y) - doubled) > 1e-3

    def test_no_rows_give_zero(self, name):
        x, y = sample()
        x[0] = np.nan
        value, gradients = GRADIENTS[name](x, y, weights=np.zeros(BATCH))
        assert value < ZERO
        np.testing.assert_array_equal(gradients, 0)

    @pytest.mark.parametrize("batch", [1, BATCH])
    def test_gradient_is_finite_at_zero(self, name, batch):
        value, gradients = GRADIENTS[name](*np.zeros((2, batch, FEATURES), np.float32))
        assert value < ZERO
        np.testing.assert_array_equal(gradients, 0)

    def test_half_precision_is_promoted(self, name):
        x, y = jnp.asarray(sample(), jnp.bfloat16)
        value = VALUES[name](x, y)
        assert value.dtype == jnp.float32
        wide = VALUES[name](x.astype(jnp.float32), y.astype(jnp.float32))
        np.testing.assert_allclose(value, wide, rtol=1e-6)

    def test_refuses_batches_that_differ(self, name):
        x, y = sample()
        with pytest.raises(ValueError, match="must"):
            LOSSES[name](x, y[:1])


# lengths in the difference are constants to its gradient, which is compared with MMSA's below
@pytest.mark.parametrize("name", ["discrepancy", "reconstruction"])
def test_gradient_equals_finite_differences(name, x64):
    x, y = sample(dtype=np.float64)
    loss = partial(VALUES[name], weights=WEIGHTS)
    check_grads(loss, (x, y), order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


def linear_codes(params, batch):
    """Projections and codes of three modalities out of one input, as subspace_terms takes them."""
    shape = (-1, 3, FEATURES)
    codes = {name: (batch @ kernel).reshape(shape) for name, kernel in params.items()}
    return codes | {"shared": jax.nn.sigmoid(codes["shared"])}


NAMES = ("projected", "private", "shared", "reconstructed")
ALPHA = np.array([0.1, 0.3, 1], np.float32)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(4, 9)).astype(np.float32) for name in NAMES}


class TestSubspaceTerms:
    def test_equal_mmsas_terms_and_gradients(self, params):
        torch = pytest.importorskip("torch")
        trainer = load_trainer("singleTask.MISA")
        inputs = np.random.default_rng(1).normal(size=(BATCH, 4)).astype(np.float32)

        codes = jax.tree.map(np.asarray, linear_codes(params, inputs))
        theirs = {name: torch.tensor(x, requires_grad=True) for name, x in codes.items()}
        # MMSA's trainer reads the codes from the model's attributes
        attributes = {
            "utt_{}_orig": "projected",
            "utt_private_{}": "private",
            "utt_shared_{}": "shared",
            "utt_{}_recon": "reconstructed",
        }
        model = SimpleNamespace()
        for pattern, name in attributes.items():
            for m, short in enumerate("tva"):
                setattr(model, pattern.format(short), theirs[name][:, m])
        oracle = trainer.MISA(
            SimpleNamespace(train_mode="regression", dataset_name="mosi", use_cmd_sim=True)
        )
        oracle.model = SimpleNamespace(Model=model)
        expected = [oracle.get_diff_loss(), oracle.get_cmd_loss(), oracle.get_recon_loss()]
        sum(a * x for a, x in zip(ALPHA.tolist(), expected, strict=True)).backward()

        def total(codes):
            terms = subspace_terms(**codes)
            return jnp.dot(ALPHA, jnp.stack(terms)), terms

        gradients, terms = jax.jit(jax.grad(total, has_aux=True))(codes)
        np.testing.assert_allclose(terms, [x.item() for x in expected], rtol=1e-5)
        for name, gradient in gradients.items():
            assert np.abs(gradient).max() > 1e-3
            np.testing.assert_allclose(gradient, theirs[name].grad.numpy(), atol=1e-6)

    def test_order_of_modalities_does_not_matter(self, params):
        inputs = np.random.default_rng(1).normal(size=(BATCH, 4)).astype(np.float32)
        codes = linear_codes(params, inputs)
        turned = {name: x[:, [2, 0, 1]] for name, x in codes.items()}
        terms = jax.jit(subspace_terms)
        np.testing.assert_allclose(terms(**turned), terms(**codes), rtol=1e-5)

    @pytest.mark.parametrize("shards", [1, 2, 8])
    def test_value_and_gradient_do_not_depend_on_the_number_of_devices(self, params, whole, shards):
        batch = {"inputs": np.full((16, 4), 1e3, np.float32), "weights": MASK}
        batch["inputs"][MASK > 0] = INPUTS
        program = jax.pmap(
            partial(terms_and_gradients, axis_name="data"),
            axis_name="data",
            in_axes=(None, 0),
            devices=jax.devices("cpu")[:shards],
        )
        split = {name: x.reshape(shards, -1, *x.shape[1:]) for name, x in batch.items()}
        terms, gradients = program(params, split)
        for shard in range(shards):
            np.testing.assert_allclose([x[shard] for x in terms], whole[0], rtol=1e-5)
            for name, gradient in gradients.items():
                scale = np.abs(whole[1][name]).max()
                np.testing.assert_allclose(gradient[shard], whole[1][name], atol=1e-5 * scale)


# on eight devices some shards hold two rows, some one, and two hold padding only
MASK = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0.5, 2, 1, 0, 1, 1, 0], np.float32)
INPUTS = np.random.default_rng(2).normal(size=(np.count_nonzero(MASK), 4)).astype(np.float32)


def terms_and_gradients(params, batch, axis_name=None):
    def total(params):
        codes = linear_codes(params, batch["inputs"])
        terms = subspace_terms(**codes, weights=batch["weights"], axis_name=axis_name)
        return jnp.dot(ALPHA, jnp.stack(terms)), terms

    gradients, terms = jax.grad(total, has_aux=True)(params)
    return terms, gradients if axis_name is None else jax.lax.pmean(gradients, axis_name)


@pytest.fixture(scope="module")
def whole(params):
    batch = {"inputs": INPUTS, "weights": MASK[MASK > 0]}
    terms, gradients = jax.jit(terms_and_gradients)(params, batch)
    assert min(terms) > 1e-2
    return terms, gradients
