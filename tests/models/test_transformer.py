"""Blocks of the sequence encoders against torch, flax and the statistics of chance."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from corrkd_jax.models.transformer import (
    Dropout,
    EncoderLayer,
    SelfAttention,
    SequenceEncoder,
    TemporalConv,
    keep_mask,
    masked_mean,
    sinusoidal_positions,
)

BATCH, TIME, FEATURES, HEADS = 3, 6, 8, 2
VALID = np.arange(TIME) < np.array([[6], [4], [1]])


def random_like(tree, seed=0):
    """Random parameters of the same shapes, biases and scales included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), tree)


def frames(features=FEATURES, time=TIME, seed=1):
    return np.random.default_rng(seed).normal(size=(BATCH, time, features)).astype(np.float32)


@pytest.fixture(scope="module")
def layer():
    """A layer without dropout, and random parameters for it."""
    module = EncoderLayer(HEADS)
    params = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), frames(), VALID)
    return jax.jit(partial(module.apply, train=False)), random_like(params)


@pytest.fixture(scope="module")
def encoder():
    """An encoder of two layers, and random parameters for it."""
    module = SequenceEncoder(FEATURES, 2, HEADS)
    params = jax.eval_shape(module.init, jax.random.key(0), frames(5), VALID)["params"]
    return jax.jit(module.apply), {"params": random_like(params)}


class TestSinusoidalPositions:
    def test_closed_form(self):
        table = sinusoidal_positions(50, 8)
        assert table.dtype == np.float32
        for t in (0, 1, 49):
            angles = [t / 10000 ** (k / 3) for k in range(4)]
            np.testing.assert_allclose(table[t], [*np.sin(angles), *np.cos(angles)], atol=1e-6)

    def test_odd_and_tiny_widths(self):
        np.testing.assert_array_equal(sinusoidal_positions(4, 7)[:, -1], 0)
        assert sinusoidal_positions(4, 1).shape == (4, 1)
        assert np.isfinite(sinusoidal_positions(4, 2)).all()


class TestKeepMask:
    BITS = 2**20

    @pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
    @pytest.mark.parametrize("seed", range(3))
    def test_rate(self, rate, seed):
        dropped = np.sum(~np.asarray(keep_mask(jax.random.key(seed), rate, (self.BITS,))))
        sigma = np.sqrt(self.BITS * rate * (1 - rate))
        assert abs(dropped - self.BITS * rate) < 3 * sigma

    def test_no_dropping(self):
        assert keep_mask(jax.random.key(0), 0.0, (self.BITS,)).all()

    def test_keys_are_independent(self):
        keys = jax.random.split(jax.random.key(0), 24)
        kept = np.stack([keep_mask(key, 0.5, (2**16,)) for key in keys])
        correlation = np.corrcoef(kept)[~np.eye(24, dtype=bool)]
        # 276 of them: the largest is expected at three standard errors
        assert np.abs(correlation).max() < 4.5 / 2**8

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    def test_neighbours_are_independent(self, rate):
        kept = np.asarray(keep_mask(jax.random.key(1), rate, (self.BITS,)), np.float64)
        kept = (kept - kept.mean()) / kept.std()
        for lag in range(1, 65):
            assert abs(np.mean(kept[:-lag] * kept[lag:])) < 4 / np.sqrt(self.BITS)

    @pytest.mark.parametrize("seed", range(3))
    def test_patterns_of_eight_are_equally_frequent(self, seed):
        kept = keep_mask(jax.random.key(seed), 0.5, (self.BITS,))
        counts = np.bincount(np.packbits(kept), minlength=256)
        assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3

    def test_shape_does_not_matter(self):
        flat = keep_mask(jax.random.key(0), 0.5, (24,))
        np.testing.assert_array_equal(keep_mask(jax.random.key(0), 0.5, (2, 3, 4)).ravel(), flat)


class TestDropout:
    def test_keeps_the_mean(self):
        x = jnp.ones((512, 512))
        y = Dropout(0.25).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
        np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
        assert abs(y.mean() - 1) < 3 * np.sqrt(1 / 3) / 512

    def test_identity_in_evaluation_and_at_rate_zero(self):
        x = frames()
        assert Dropout(0.5).apply({}, x, False) is x
        assert Dropout(0.0).apply({}, x, True) is x

    @pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
    def test_refuses_a_rate_that_is_none(self, rate):
        with pytest.raises(ValueError, match=r"\[0, 1\)"):
            Dropout(rate).apply({}, frames(), True, rngs={"dropout": jax.random.key(0)})


@pytest.mark.parametrize("width", [1, 3, 4, 5])
class TestTemporalConv:
    @pytest.fixture
    def conv(self, width):
        module = TemporalConv(4, width)
        params = random_like(module.init(jax.random.key(0), frames(5))["params"])
        return params, module.apply({"params": params}, frames(5))

    def test_equals_flax(self, width, conv):
        params, out = conv
        theirs = nn.Conv(4, (width,), padding="SAME").apply({"params": params}, frames(5))
        np.testing.assert_allclose(out, theirs, atol=1e-5)

    @pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
    def test_equals_torch(self, width, conv):
        torch = pytest.importorskip("torch")
        params, out = conv
        theirs = torch.nn.Conv1d(5, 4, width, padding="same")
        with torch.no_grad():
            theirs.weight.copy_(torch.tensor(params["kernel"].transpose(2, 1, 0)))
            theirs.bias.copy_(torch.tensor(params["bias"]))
            expected = theirs(torch.tensor(frames(5)).transpose(1, 2)).transpose(1, 2)
        np.testing.assert_allclose(out, expected.numpy(), atol=1e-5)

    def test_starts_like_a_convolution(self, width):
        params = TemporalConv(400, width).init(jax.random.key(0), frames(50))["params"]
        np.testing.assert_allclose(params["kernel"].std(), 1 / np.sqrt(50 * width), rtol=0.05)


class TestSelfAttention:
    def test_refuses_heads_that_do_not_divide_the_width(self):
        with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
            SelfAttention(3).init(jax.random.key(0), frames(), VALID, False)

    def test_a_row_of_padding_stays_finite(self):
        module = SelfAttention(HEADS)
        out, _ = module.init_with_output(jax.random.key(0), frames(), 0 * VALID == 1, False)
        assert np.isfinite(out).all()

    def test_starts_as_one_xavier_matrix(self):
        params = SelfAttention(HEADS).init(jax.random.key(0), frames(40), VALID, False)["params"]
        kernel = params["query_key_value"]["kernel"]
        assert kernel.shape == (40, 120)
        np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(6 / 160), rtol=0.01)


class TestEncoderLayer:
    def test_equals_torch(self, layer):
        torch = pytest.importorskip("torch")
        apply, variables = layer
        theirs = torch.nn.TransformerEncoderLayer(
            FEATURES,
            HEADS,
            4 * FEATURES,
            dropout=0.0,
            activation="relu",
            batch_first=True,
            norm_first=True,
        ).eval()
        names = {
            "self_attn.in_proj_": ("attention", "query_key_value"),
            "self_attn.out_proj.": ("attention", "out"),
            "linear1.": ("expand",),
            "linear2.": ("contract",),
            "norm1.": ("norm_attention",),
            "norm2.": ("norm_feed_forward",),
        }
        state = {}
        for prefix, path in names.items():
            ours = variables["params"]
            for part in path:
                ours = ours[part]
            weight = ours["kernel"].T if "kernel" in ours else ours["scale"]
            state[prefix + "weight"] = torch.tensor(weight)
            state[prefix + "bias"] = torch.tensor(ours["bias"])
        theirs.load_state_dict(state)
        with torch.no_grad():
            expected = theirs(torch.tensor(frames()), src_key_padding_mask=torch.tensor(~VALID))
        out = np.asarray(apply(variables, frames(), VALID))
        np.testing.assert_allclose(out[VALID], expected.numpy()[VALID], atol=1e-5)

    def test_padding_is_not_attended_to(self, layer):
        apply, variables = layer
        x = frames()
        garbage = np.where(VALID[..., None], x, 1e3)
        out, again = apply(variables, x, VALID), apply(variables, garbage, VALID)
        np.testing.assert_allclose(again[VALID], out[VALID], atol=1e-6)

    def test_parameter_count(self):
        params = jax.eval_shape(
            partial(EncoderLayer(10).init, train=False), jax.random.key(0), frames(40), VALID
        )
        assert sum(x.size for x in jax.tree.leaves(params)) == 19_720


class TestSequenceEncoder:
    def test_equals_its_parts_one_after_another(self, encoder, layer):
        apply, variables = encoder
        params = variables["params"]
        x = TemporalConv(FEATURES).apply({"params": params["conv"]}, frames(5))
        x = x * np.sqrt(FEATURES) + sinusoidal_positions(TIME, FEATURES)
        for index in range(2):
            own = jax.tree.map(lambda leaf, index=index: leaf[index], params["layers"])
            x = layer[0]({"params": own}, x, VALID)
        x = nn.LayerNorm(epsilon=1e-5).apply({"params": params["norm"]}, x)
        np.testing.assert_allclose(apply(variables, frames(5), VALID), x, atol=1e-5)

    def test_more_padding_of_zeros_changes_no_frame(self, encoder):
        apply, variables = encoder
        x = np.where(VALID[..., None], frames(5), 0)
        longer = np.pad(x, ((0, 0), (0, 4), (0, 0)))
        valid = np.pad(VALID, ((0, 0), (0, 4)))
        out, again = apply(variables, x, VALID), apply(variables, longer, valid)
        np.testing.assert_allclose(again[:, :TIME][VALID], out[VALID], atol=1e-5)

    def test_convolution_reads_one_frame_past_the_end(self, encoder):
        # Callers must zero padding: beyond that frame anything goes, in it nothing else does.
        apply, variables = encoder
        x = np.where(VALID[..., None], frames(5), 0)
        past = np.arange(TIME) - VALID.sum(axis=1, keepdims=True)
        out = apply(variables, x, VALID)
        farther = apply(variables, np.where((past > 0)[..., None], 1e3, x), VALID)
        np.testing.assert_allclose(farther[VALID], out[VALID], atol=1e-5)
        nearer = apply(variables, np.where((past == 0)[..., None], 1e3, x), VALID)
        assert np.abs(nearer[1, 3] - out[1, 3]).max() > 1e-2

    def test_every_layer_starts_on_its_own(self):
        module = SequenceEncoder(FEATURES, 2, HEADS)
        params = jax.jit(module.init)(jax.random.key(0), frames(5), VALID)["params"]
        kernel = params["layers"]["expand"]["kernel"]
        assert kernel.shape == (2, FEATURES, 4 * FEATURES)
        assert np.abs(kernel[0] - kernel[1]).max() > 0.1

    def test_every_layer_drops_on_its_own(self):
        # Two layers that add one large constant, half of the time: masks of their own give three
        # sums, one mask for both only two; the last norm keeps them apart.
        module = SequenceEncoder(64, 2, HEADS, 0.0, 0.0, 0.0, residual_dropout=0.5)
        params = jax.eval_shape(module.init, jax.random.key(0), frames(5), VALID)["params"]
        params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), params)
        params["layers"]["contract"]["bias"] += 1e4
        params["norm"]["scale"] += 1.0
        rngs = {"dropout": jax.random.key(1)}
        out = module.apply({"params": params}, frames(5), VALID, True, rngs=rngs)
        for row in np.asarray(out).reshape(-1, 64):
            steps = np.diff(np.sort(row)) > 0.5  # rounding would split values at its edges
            assert np.sum(steps) + 1 == 3

    def test_no_layers(self):
        out, variables = SequenceEncoder(FEATURES, 0, HEADS).init_with_output(
            jax.random.key(0), frames(5), VALID
        )
        assert out.shape == (BATCH, TIME, FEATURES)
        assert set(variables["params"]) == {"conv", "norm"}


class TestMaskedMean:
    def test_means_over_valid_frames(self):
        x = frames()
        expected = [row[valid].mean(axis=0) for row, valid in zip(x, VALID, strict=True)]
        np.testing.assert_allclose(masked_mean(x, VALID), expected, atol=1e-6)

    def test_padding_may_hold_anything(self):
        x = np.where(VALID[..., None], frames(), np.nan)
        np.testing.assert_array_equal(masked_mean(x, VALID), masked_mean(frames(), VALID))
        gradient = jax.grad(lambda x: jnp.sum(masked_mean(x, VALID) ** 2))(x)
        np.testing.assert_array_equal(gradient[~VALID], 0)

    def test_dropped_frames_stay_in_the_denominator(self):
        x = np.ones((1, 4, 1), np.float32)
        x[0, 1:] = 0
        np.testing.assert_allclose(masked_mean(x, np.ones((1, 4), bool)), [[0.25]])

    def test_no_frames_give_zero_in_float32(self):
        out = masked_mean(jnp.ones((2, 3, 4), jnp.bfloat16), np.zeros((2, 3), bool))
        assert out.dtype == jnp.float32
        np.testing.assert_array_equal(out, 0)
