"""The network of teacher and student: size, invariances, precision, many seeds at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.data import masks
from corrkd_jax.models.corrkd import CorrKDNetwork
from corrkd_jax.models.transformer import SequenceEncoder, masked_mean

BATCH, TIME = 4, 6
WIDTHS = {"text": 5, "audio": 3, "vision": 4}
NETWORK = CorrKDNetwork(classes=3, features=8, layers=2, heads=2)

forward = jax.jit(NETWORK.apply, static_argnames="train")


def sample(time=TIME, batch=BATCH, seed=0):
    """Inputs of all modalities, padding zeroed, and which frames are real."""
    rng = np.random.default_rng(seed)
    lengths = time if isinstance(time, dict) else dict.fromkeys(WIDTHS, time)
    valid = {
        name: np.arange(frames) < np.maximum(frames - np.arange(batch), 1)[:, None]
        for name, frames in lengths.items()
    }
    inputs = {
        name: rng.normal(size=(batch, lengths[name], width)).astype(np.float32)
        * valid[name][..., None]
        for name, width in WIDTHS.items()
    }
    return inputs, valid


@pytest.fixture(scope="module")
def variables():
    return jax.jit(NETWORK.init)(jax.random.key(0), *sample())


class TestSize:
    def test_of_the_papers_network(self):
        widths = {"text": 300, "audio": 74, "vision": 35}
        inputs = {name: jnp.zeros((2, 5, width)) for name, width in widths.items()}
        valid = {name: jnp.ones((2, 5), bool) for name in widths}
        params = jax.eval_shape(CorrKDNetwork(2).init, jax.random.key(0), inputs, valid)["params"]

        def count(tree):
            return sum(leaf.size for leaf in jax.tree.leaves(tree))

        encoders = [params[f"{name}_encoder"] for name in widths]
        assert [count(encoder["conv"]) for encoder in encoders] == [36_040, 8_920, 4_240]
        assert [count(encoder["layers"]) for encoder in encoders] == [4 * 19_720] * 3
        assert [count(encoder["norm"]) for encoder in encoders] == [80] * 3
        assert count(params["classifier"]["hidden"]) == 120 * 121
        assert count(params["classifier"]["out"]) == 242
        assert count(params) == 300_842


class TestForward:
    def test_shapes_and_types(self, variables):
        out = forward(variables, *sample())
        assert out.features.shape == (BATCH, 24)
        assert out.logits.shape == (BATCH, 1, 3)
        assert out.features.dtype == out.logits.dtype == jnp.float32

    def test_several_tasks(self):
        network = CorrKDNetwork(classes=2, tasks=4, features=8, layers=0, heads=2)
        out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), *sample())
        assert out.logits.shape == (BATCH, 4, 2)

    def test_pooling_before_or_after_concatenation_is_one(self, variables):
        inputs, valid = sample()
        encoder = SequenceEncoder(8, 2, 2)
        encoded = [
            encoder.apply({"params": variables["params"][f"{name}_encoder"]}, x, valid[name])
            for name, x in sorted(inputs.items())
        ]
        joint = masked_mean(jnp.concatenate(encoded, axis=-1), valid["text"])
        np.testing.assert_allclose(
            forward(variables, inputs, valid).features, joint, rtol=1e-5, atol=1e-5
        )

    def test_order_of_the_modalities_does_not_matter(self, variables):
        # Compiled, a dictionary arrives sorted by name; not compiled, as it was written.
        inputs, valid = sample()
        out = forward(variables, inputs, valid)
        for order in (WIDTHS, reversed(WIDTHS)):
            again = NETWORK.apply(variables, {name: inputs[name] for name in order}, valid)
            np.testing.assert_allclose(again.features, out.features, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(again.logits, out.logits, rtol=1e-5, atol=1e-5)

    def test_more_padding_changes_nothing(self, variables):
        inputs, valid = sample()
        longer = {name: np.pad(x, ((0, 0), (0, 3), (0, 0))) for name, x in inputs.items()}
        padding = {name: np.pad(x, ((0, 0), (0, 3))) for name, x in valid.items()}
        out, again = forward(variables, inputs, valid), forward(variables, longer, padding)
        np.testing.assert_allclose(again.features, out.features, atol=1e-5)
        np.testing.assert_allclose(again.logits, out.logits, atol=1e-5)

    def test_unaligned_lengths(self):
        inputs, valid = sample({"text": 50, "audio": 375, "vision": 500}, batch=2)
        network = CorrKDNetwork(classes=2, features=8, layers=1, heads=2)
        variables = jax.eval_shape(network.init, jax.random.key(0), inputs, valid)
        variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), variables)
        out = jax.jit(network.apply)(variables, inputs, valid)
        assert out.logits.shape == (2, 1, 2)
        assert np.isfinite(out.logits).all()

    @pytest.mark.parametrize("garbage", [np.nan, 1e9])
    @pytest.mark.parametrize("subset", masks.SUBSETS[:-1], ids=masks.SUBSET_NAMES[:-1])
    def test_missing_modalities_may_hold_anything(self, variables, subset, garbage):
        inputs, valid = sample()
        spoilt = {
            name: x if kept else np.full_like(x, garbage)
            for (name, x), kept in zip(inputs.items(), subset, strict=True)
        }
        keep = masks.subset_masks(valid, subset)
        out = forward(variables, masks.drop(inputs, keep), valid)
        again = forward(variables, masks.drop(spoilt, keep), valid)
        np.testing.assert_array_equal(again.logits, out.logits)
        assert np.abs(out.logits - forward(variables, inputs, valid).logits).max() > 1e-2

    def test_a_row_without_frames_is_finite(self, variables):
        inputs, valid = sample()
        valid = {name: np.zeros_like(mask) for name, mask in valid.items()}

        def total(variables):
            out = NETWORK.apply(variables, inputs, valid)
            return jnp.sum(out.logits**2), out

        gradient, out = jax.jit(jax.grad(total, has_aux=True))(variables)
        np.testing.assert_array_equal(out.features, 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


class TestDropout:
    def test_evaluation_is_deterministic(self, variables):
        first = forward(variables, *sample())
        keyed = forward(variables, *sample(), rngs={"dropout": jax.random.key(5)})
        np.testing.assert_array_equal(first.logits, keyed.logits)

    def test_training_depends_on_its_key_alone(self, variables):
        def trained(seed):
            rngs = {"dropout": jax.random.key(seed)}
            return forward(variables, *sample(), train=True, rngs=rngs).logits

        np.testing.assert_array_equal(trained(0), trained(0))
        assert np.abs(trained(0) - trained(1)).max() > 1e-2

    def test_modalities_have_masks_of_their_own(self):
        inputs = dict.fromkeys(("audio", "text"), np.ones((1, 4, 3), np.float32))
        valid = dict.fromkeys(inputs, np.ones((1, 4), bool))
        network = CorrKDNetwork(classes=2, features=8, layers=0, heads=2)
        params = jax.jit(network.init)(jax.random.key(0), inputs, valid)["params"]
        params["audio_encoder"] = params["text_encoder"]
        plain = network.apply({"params": params}, inputs, valid).features
        np.testing.assert_allclose(plain[:, :8], plain[:, 8:], rtol=1e-6)
        rngs = {"dropout": jax.random.key(1)}
        noisy = network.apply({"params": params}, inputs, valid, train=True, rngs=rngs).features
        assert np.abs(noisy[:, :8] - noisy[:, 8:]).max() > 1e-2


class TestPrecision:
    def test_bfloat16_encoders_give_float32_logits_close_to_float32s(self, variables):
        half = NETWORK.clone(dtype=jnp.bfloat16)
        out, exact = jax.jit(half.apply)(variables, *sample()), forward(variables, *sample())
        assert out.features.dtype == out.logits.dtype == jnp.float32
        np.testing.assert_allclose(out.logits, exact.logits, atol=0.1)
        assert np.abs(out.logits - exact.logits).max() > 0

    def test_parameters_are_float32(self):
        half = NETWORK.clone(dtype=jnp.bfloat16)
        params = jax.eval_shape(half.init, jax.random.key(0), *sample())
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


class TestSeeds:
    def test_all_at_once_equal_one_after_another(self):
        network = CorrKDNetwork(classes=2, features=8, layers=1, heads=2)
        inputs, valid = ({"text": tree["text"]} for tree in sample())

        def trained(variables, key):
            def total(variables):
                rngs = {"dropout": key}
                logits = network.apply(variables, inputs, valid, train=True, rngs=rngs).logits
                return jnp.sum(logits**2), logits

            return jax.grad(total, has_aux=True)(variables)

        def agree(together, alone):
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)

        keys = jax.random.split(jax.random.key(0), 3)
        variables = jax.jit(jax.vmap(lambda key: network.init(key, inputs, valid)))(keys)
        together = jax.jit(jax.vmap(trained))(variables, keys)
        one = jax.jit(trained)
        for i, key in enumerate(keys):
            start, own = jax.tree.map(lambda leaf, i=i: leaf[i], (variables, together))
            jax.tree.map(agree, own, one(start, key))
        logits = together[1]
        assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_heads_must_divide_the_width():
    network = CorrKDNetwork(classes=2, features=40, heads=7)
    with pytest.raises(ValueError, match="7 heads do not divide a width of 40"):
        jax.eval_shape(network.init, jax.random.key(0), *sample())
