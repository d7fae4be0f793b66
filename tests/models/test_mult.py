"""MulT: masks and windows in closed form, MMSA's model as the oracle, padding, many seeds."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models import torch_weights
from corrkd_jax.models.mult import (
    MulT,
    Stream,
    Streams,
    causal_mask,
    last_valid,
    mmsa_table,
    whole_windows,
)
from tests.models import mmsa
from tests.models.fusion import (
    Doubled,
    assert_equals_mmsa,
    assert_seeds_are_separate,
    random_variables,
    randomize,
)
from tests.models.sequences import LENGTHS, padded_in_front, sample, state_of

WIDTHS = {"text": 6, "audio": 2, "vision": 3}
TIME = dict.fromkeys(WIDTHS, 7)
BATCH = len(LENGTHS["text"])
MODEL = MulT(width=8, heads=2, layers=1, text_window=3, audio_window=1, vision_window=2)

forward = jax.jit(MODEL.apply)


def full(widths=WIDTHS, **time):
    """Sequences without padding."""
    time = TIME | time
    return sample(widths, {name: np.full(BATCH, time[name]) for name in widths}, time)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS, time=TIME))


class TestWholeWindows:
    def test_are_as_many_as_without_padding(self):
        valid = np.array([[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0]], bool)
        windows = np.array([[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0]], bool)
        np.testing.assert_array_equal(whole_windows(valid, 3), windows)
        np.testing.assert_array_equal(whole_windows(valid, 1), valid)

    @pytest.mark.parametrize("width", range(2, 7))
    def test_one_that_holds_all_frames_of_a_short_row(self, width):
        for count in range(1, width):
            valid = np.pad(np.ones((1, count), bool), ((0, 0), (1, 2)))
            (middle,) = np.flatnonzero(whole_windows(valid, width))
            first = middle - (width - 1) // 2
            assert first <= 1
            assert count < first + width

    def test_none_of_a_row_without_frames(self):
        assert not whole_windows(np.zeros((1, 4), bool), 3).any()


class TestCausalMask:
    def test_never_looks_ahead_in_sequences_of_one_length(self):
        valid = np.ones((2, 5), bool)
        upper = np.triu(np.ones((5, 5), bool))
        np.testing.assert_array_equal(causal_mask(valid, valid), [upper, upper])

    @pytest.mark.parametrize(("time", "keys"), [(3, 5), (5, 3)])
    def test_looks_ahead_by_the_difference_of_the_lengths(self, time, keys):
        mask = causal_mask(np.ones((1, time), bool), np.ones((1, keys), bool))
        np.testing.assert_array_equal(~mask[0], np.tril(np.ones((keys, time)), -1 - 2))

    def test_counts_valid_frames(self):
        valid = np.array([[0, 1, 1, 0]], bool)
        source = np.array([[0, 0, 1, 1, 1, 0]], bool)
        expected = causal_mask(np.ones((1, 2), bool), np.ones((1, 3), bool))
        mask = np.asarray(causal_mask(valid, source))
        np.testing.assert_array_equal(mask[:, source[0]][:, :, valid[0]], expected)
        assert not mask[:, ~source[0]].any()


def test_last_valid_frame():
    x = np.arange(10.0).reshape(1, 5, 2)
    valid = np.array([[0, 1, 1, 0, 0]], bool)
    np.testing.assert_array_equal(last_valid(x, valid), x[:, 2])
    np.testing.assert_array_equal(last_valid(x, 0 * valid == 1), [[0, 0]])


class TestContract:
    def test_shapes(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS, time=TIME))
        assert logits.shape == (BATCH, 1)
        assert fused.features.shape == (BATCH, 48)
        assert {name: x.shape for name, x in fused.parts.items()} == dict.fromkeys(
            WIDTHS, (BATCH, 16)
        )

    def test_head_reads_the_features(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS, time=TIME))
        alone = MODEL.apply(variables, fused.features, method="head")
        np.testing.assert_allclose(alone, logits, rtol=1e-5, atol=1e-5)

    def test_features_and_logits_are_float32(self):
        model, batch = MODEL.clone(dtype=jnp.bfloat16), sample(WIDTHS, time=TIME)
        (logits, fused), variables = jax.eval_shape(
            model.init_with_output, jax.random.key(0), *batch
        )
        leaves = jax.tree.leaves((logits, fused, variables))
        assert {x.dtype for x in leaves} == {jnp.dtype(jnp.float32)}

    def test_text_encoder_is_in_embed_alone(self):
        inputs, _ = sample(WIDTHS, time=TIME)
        embedded = MODEL.clone(text_encoder=Doubled()).apply({}, inputs, method="embed")
        np.testing.assert_array_equal(embedded["text"], 2 * inputs["text"])
        assert embedded["audio"] is inputs["audio"]

    def test_refuses_heads_that_do_not_divide_the_width(self):
        with pytest.raises(ValueError, match="3 heads do not divide"):
            jax.eval_shape(MODEL.clone(heads=3).init, jax.random.key(0), *full())

    def test_published_width(self):
        params = jax.eval_shape(MulT().init, jax.random.key(0), *full())["params"]
        sizes = {name: sum(x.size for x in jax.tree.leaves(params[name])) for name in params}
        layer, norm = 12 * 50**2 + 13 * 50, 2 * 50
        assert sizes["cross"] == 6 * (4 * layer + norm)
        layer, norm = 12 * 100**2 + 13 * 100, 2 * 100
        assert sizes["memory"] == 3 * (4 * layer + norm)
        assert sizes["project_text"] == 5 * 6 * 50


class TestStart:
    def test_streams_and_layers_differ(self):
        batch = sample(WIDTHS, time=TIME)
        init = jax.jit(lambda key: MODEL.init(key, *batch)["params"]["memory"]["streams"])
        layers = init(jax.random.key(0))
        kernels = [layers[name]["expand"]["kernel"] for name in ("layers", "last")]
        kernels = jnp.concatenate([x.reshape(-1, 8 * 2 * 8 * 8) for x in kernels])
        distances = np.abs(kernels[:, None] - kernels[None]).max(axis=-1)
        assert distances[~np.eye(9, dtype=bool)].min() > 0.1


class TestSummary:
    """Only the last valid frame is asked for in the last layer."""

    def setup_method(self):
        common = (2, 0.0, 0.0, 0.0, 0.0, True, jnp.float32)
        self.summary, self.whole = Stream(3, True, *common), Stream(3, False, *common)
        random = np.random.default_rng(0)
        self.x = jnp.asarray(random.standard_normal((3, 5, 8)), jnp.float32)
        self.valid = jnp.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
        params = self.summary.init(jax.random.key(0), False, self.x, self.valid)["params"]
        self.params = jax.tree.map(lambda x: x + 0.1 * random.standard_normal(x.shape), params)

    def run_summary(self, params):
        return self.summary.apply({"params": params}, False, self.x, self.valid)

    def run_whole(self, params):
        params = dict(params)
        last = params.pop("last")
        params["layers"] = jax.tree.map(
            lambda x, y: jnp.concatenate([x, y[None]]), params["layers"], last
        )
        whole = self.whole.apply({"params": params}, False, self.x, self.valid)
        return last_valid(whole, self.valid)

    def test_is_that_frame_of_the_whole(self):
        got = self.run_summary(self.params)
        np.testing.assert_allclose(got, self.run_whole(self.params), rtol=1e-5, atol=1e-5)
        assert not got[2].any()

    def test_has_its_gradient(self):
        direction = np.random.default_rng(1).standard_normal((3, 8))
        got, want = (
            jax.grad(lambda p, run=run: jnp.sum(run(p) * direction))(self.params)
            for run in (self.run_summary, self.run_whole)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


class TestPadding:
    @pytest.mark.parametrize("garbage", [1e9, np.nan])
    def test_may_hold_anything_wherever_it_stands(self, variables, garbage):
        inputs, valid = sample(WIDTHS, time=TIME)
        out = forward(variables, inputs, valid)
        again = forward(variables, *padded_in_front(inputs, valid, garbage=garbage))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), again, out
        )

    def test_gets_no_gradient(self, variables):
        inputs, valid = sample(WIDTHS, time=TIME)
        gradients = jax.jit(jax.grad(lambda x: jnp.sum(MODEL.apply(variables, x, valid)[0])))(
            inputs
        )
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(gradient[~valid[name]], 0)
            assert np.abs(gradient).max() > 1e-3

    def test_rows_without_frames_are_alike_and_finite(self, variables):
        inputs, valid = sample(WIDTHS, time=TIME)
        valid = {name: np.zeros_like(mask) for name, mask in valid.items()}
        logits, _ = forward(variables, inputs, valid)
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(logits, np.broadcast_to(logits[:1], logits.shape))


class TestStreams:
    @staticmethod
    def bodies(train, batch, model=MODEL, **rates):
        model = model.clone(embed_dropout=0.0, text_dropout=0.0, out_dropout=0.0, **rates)
        rngs = {"dropout": jax.random.key(0)}
        like = jax.eval_shape(model.init, jax.random.key(0), *batch)
        run = jax.make_jaxpr(lambda x: model.apply(x, *batch, train=train, rngs=rngs))(like)
        return str(run).count("scan[")

    def test_of_one_length_are_one_body(self):
        assert self.bodies(False, full()) == 2
        assert self.bodies(True, full()) == 2
        assert self.bodies(False, full(audio=9)) == 3 + 2

    def test_each_has_its_own_rate(self):
        streams = Streams((0.0, 0.5, 0.0), 1, False, 2, 0.0, 0.0, 0.0, True, jnp.float32)
        random = np.random.default_rng(0)
        x = jnp.asarray(random.standard_normal((3, BATCH, 7, 8)), jnp.float32)
        arrays = [(one, jnp.ones(one.shape[:2], bool)) for one in x]
        variables = streams.init(jax.random.key(0), arrays, False)
        run = jax.jit(
            lambda seed: streams.apply(
                variables, arrays, True, rngs={"dropout": jax.random.key(seed)}
            )
        )
        still = streams.apply(variables, arrays, False)
        for number, (one, other, none) in enumerate(zip(run(1), run(2), still, strict=True)):
            if number == 1:
                assert np.abs(one - other).max() > 1e-3
            else:
                np.testing.assert_allclose(one, none, rtol=1e-4, atol=1e-5)
                np.testing.assert_array_equal(one, other)

    def test_seeds_are_separate(self):
        assert_seeds_are_separate(MODEL, *sample(WIDTHS, time=TIME))


def test_dropout_depends_on_its_key_alone(variables):
    model = MODEL.clone(audio_attention_dropout=0.3, vision_attention_dropout=0.3)
    batch = sample(WIDTHS, time=TIME)
    run = jax.jit(lambda key: model.apply(variables, *batch, train=True, rngs={"dropout": key})[0])
    one, same, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


class TestMMSA:
    @staticmethod
    def build(mode, widths, positions=False):
        args = SimpleNamespace(
            use_bert=False,
            feature_dims=list(widths.values()),
            dst_feature_dim_nheads=[8, 2],
            nlevels=1,
            attn_dropout=0.3,
            attn_dropout_a=0.2,
            attn_dropout_v=0.0,
            relu_dropout=0.1,
            embed_dropout=0.2,
            res_dropout=0.1,
            output_dropout=0.5,
            text_dropout=0.5,
            attn_mask=True,
            conv1d_kernel_size_l=3,
            conv1d_kernel_size_a=1,
            conv1d_kernel_size_v=2,
            num_classes=3,
            train_mode=mode,
        )
        theirs = mmsa.load("models.singleTask.MULT").MULT(args).eval()
        randomize(theirs)
        if positions:  # which the published model has
            encoding = mmsa.load("models.subNets.transformers_encoder.position_embedding")
            for name, part in theirs.named_children():
                if name.startswith("trans"):
                    width = 16 if name.endswith("mem") else 8
                    part.embed_positions = encoding.SinusoidalPositionalEmbedding(width)
        return theirs

    @staticmethod
    def run(theirs, inputs):
        torch = pytest.importorskip("torch")
        return theirs(*(torch.tensor(inputs[name]) for name in WIDTHS))

    @pytest.mark.parametrize(
        ("mode", "positions", "widths", "time"),
        [
            ("regression", False, WIDTHS, {}),
            # text longer, then shorter than both others
            ("classification", True, WIDTHS, {"text": 10}),
            ("regression", False, WIDTHS | {"audio": 8}, {"text": 4}),
        ],
        ids=["aligned", "positions", "no convolution"],
    )
    def test_outputs_and_gradients(self, mode, positions, widths, time):
        theirs = self.build(mode, widths, positions)
        model = MODEL.clone(outputs=1 if mode == "regression" else 3, positions=positions)
        batch = full(widths, **time)
        assert_equals_mmsa(theirs, self.run, model, mmsa_table(layers=1), batch)

    def test_weights_come_back(self):
        state = state_of(self.build("regression", WIDTHS))
        like = jax.eval_shape(MODEL.init, jax.random.key(0), *full())
        table = mmsa_table(layers=1)
        back = torch_weights.to_torch(torch_weights.to_flax(state, table, like, "MMSA"), table)
        assert set(state) - set(back) == {name for name in state if name.endswith("version")}
        for name, x in back.items():
            np.testing.assert_array_equal(x, state[name])
