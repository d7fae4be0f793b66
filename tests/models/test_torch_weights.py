"""Layers of torch's as Flax layers and back, and what is said of weights that do not fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.errors import InputError
from corrkd_jax.models import torch_weights
from corrkd_jax.models.recurrent import LSTM
from corrkd_jax.models.torch_weights import Layer, ignored, layer_norm, linear, lstm, parameter
from corrkd_jax.models.transformer import SelfAttention
from tests.models.sequences import state_of

BATCH, TIME, IN, OUT = 2, 5, 4, 6
ALL = np.ones((BATCH, TIME), bool)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def images_first(x):
    return np.moveaxis(x, -1, 1)


def assert_trees_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


class Pair(nn.Module):
    """A linear layer, and a LayerNorm with a parameter beside it."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(OUT, name="dense")(x)
        return nn.LayerNorm(name="norm")(x) * self.param("scale", nn.initializers.ones, (OUT,))


TABLE = [
    Layer("first", "dense", linear),
    Layer("block.second", "norm", layer_norm),
    Layer("gain", "scale", parameter("params")),
    Layer("", "", ignored("version")),
]
STATE = {
    "first.weight": normal(OUT, IN),
    "first.bias": normal(OUT, seed=1),
    "block.second.weight": normal(OUT, seed=2),
    "block.second.bias": normal(OUT, seed=3),
    "gain": normal(OUT, seed=4),
    "version": np.float32(2),
}


@pytest.fixture(scope="module")
def like():
    return jax.eval_shape(Pair().init, jax.random.key(0), normal(BATCH, IN))


def refusal(state, table, like):
    with pytest.raises(InputError) as error:
        torch_weights.to_flax(state, table, like, "weights.pth")
    message = str(error.value)
    assert message.startswith("weights.pth: ")
    assert "\n" not in message
    return message


class TestKinds:
    """The same numbers come out of both layers, and the same weights come back."""

    def check(self, theirs, ours, kind, x, to_theirs=lambda x: x, outputs=lambda x: x):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        for weight in (*theirs.parameters(), *theirs.buffers()):
            if weight.dtype == torch.float32:
                torch.nn.init.uniform_(weight, 0.1, 1.0)
        state = state_of(theirs)
        table = [Layer("", "", kind)]
        like = jax.eval_shape(ours.init, jax.random.key(0), *x)
        variables = torch_weights.to_flax(state, table, like, "torch")
        with torch.no_grad():
            expected = theirs.eval()(*map(torch.tensor, map(to_theirs, x)))
        out = outputs(ours.apply(variables, *x))
        expected = expected[0] if isinstance(expected, tuple) else expected
        np.testing.assert_allclose(to_theirs(np.asarray(out)), expected, atol=1e-5)
        back = torch_weights.to_torch(variables, table)
        kept = {name: array for name, array in state.items() if name not in kind.ignored}
        assert_trees_equal(back, kept)

    @pytest.mark.parametrize("bias", [True, False])
    def test_linear(self, bias):
        torch = pytest.importorskip("torch")
        theirs, ours = torch.nn.Linear(IN, OUT, bias), nn.Dense(OUT, use_bias=bias)
        self.check(theirs, ours, linear, [normal(BATCH, IN)])

    def test_convolution_over_time(self):
        torch = pytest.importorskip("torch")
        theirs, ours = torch.nn.Conv1d(IN, OUT, 3), nn.Conv(OUT, (3,), padding="VALID")
        x = [normal(BATCH, TIME, IN)]
        self.check(theirs, ours, torch_weights.convolution, x, images_first)

    @pytest.mark.parametrize("groups", [1, 2])
    def test_convolution_of_images(self, groups):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.Conv2d(IN, OUT, (3, 2), groups=groups)
        ours = nn.Conv(OUT, (3, 2), padding="VALID", feature_group_count=groups)
        x = [normal(BATCH, TIME, TIME + 1, IN)]
        self.check(theirs, ours, torch_weights.convolution, x, images_first)

    def test_transposed_convolution(self):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.ConvTranspose2d(IN, OUT, (3, 4), stride=2)
        ours = nn.ConvTranspose(OUT, (3, 4), strides=(2, 2), padding="VALID")
        x = [normal(BATCH, TIME, TIME + 1, IN)]
        self.check(theirs, ours, torch_weights.transposed_convolution, x, images_first)

    def test_layer_norm(self):
        torch = pytest.importorskip("torch")
        self.check(
            torch.nn.LayerNorm(IN), nn.LayerNorm(epsilon=1e-5), layer_norm, [normal(BATCH, IN)]
        )

    def test_batch_norm(self):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.BatchNorm1d(IN)
        ours = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
        self.check(theirs, ours, torch_weights.batch_norm, [normal(BATCH, IN)])

    def test_embedding(self):
        torch = pytest.importorskip("torch")
        theirs, ours = torch.nn.Embedding(7, OUT), nn.Embed(7, OUT)
        self.check(theirs, ours, torch_weights.embedding, [np.array([[3, 0], [6, 3]])])

    def test_joint_projection_of_attention(self):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.MultiheadAttention(IN, 2, batch_first=True)
        ours, x = SelfAttention(2), normal(BATCH, TIME, IN)
        table = [
            Layer("", "query_key_value", torch_weights.query_key_value),
            Layer("out_proj", "out", linear),
        ]
        torch.nn.init.uniform_(theirs.in_proj_bias)
        like = jax.eval_shape(lambda key: ours.init(key, x, ALL, False), jax.random.key(0))
        variables = torch_weights.to_flax(state_of(theirs), table, like, "torch")
        # and so do queries and keys of two sequences
        source = normal(BATCH, TIME + 2, IN, seed=1)
        for keys in (x, source):
            valid = np.ones(keys.shape[:2], bool)
            with torch.no_grad():
                expected, _ = theirs(*map(torch.tensor, (x, keys, keys)))
            out = ours.apply(variables, x, valid, False, None if keys is x else keys)
            np.testing.assert_allclose(out, expected, atol=1e-5)
        assert_trees_equal(torch_weights.to_torch(variables, table), state_of(theirs))

    @pytest.mark.parametrize("suffix", ["l0", "l0_reverse"])
    def test_lstm(self, suffix):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        theirs = torch.nn.LSTM(IN, OUT, batch_first=True, bidirectional=True)
        ours = LSTM(OUT, reverse=suffix != "l0")
        state = {name: x for name, x in state_of(theirs).items() if name.endswith(suffix)}
        like = jax.eval_shape(ours.init, jax.random.key(0), normal(BATCH, TIME, IN), ALL)
        table = [Layer("", "cell", lstm(suffix))]
        variables = torch_weights.to_flax(state, table, like, "torch")
        last, states = ours.apply(variables, normal(BATCH, TIME, IN), ALL)
        with torch.no_grad():
            expected, (ends, _) = theirs(torch.tensor(normal(BATCH, TIME, IN)))
        forward = slice(0, OUT) if suffix == "l0" else slice(OUT, None)
        np.testing.assert_allclose(states, expected[..., forward], atol=1e-6)
        np.testing.assert_allclose(last, ends[0 if suffix == "l0" else 1], atol=1e-6)
        back = torch_weights.to_torch(variables, table)
        total = state.pop(f"bias_ih_{suffix}") + state.pop(f"bias_hh_{suffix}")
        np.testing.assert_array_equal(back.pop(f"bias_ih_{suffix}"), total)
        np.testing.assert_array_equal(back.pop(f"bias_hh_{suffix}"), 0 * total)
        assert_trees_equal(back, state)


STACKED_TABLE = [
    Layer(f"layers.{i}.{j}", "stack", linear, (i, j)) for i in range(2) for j in range(3)
]
STACKED_STATE = {
    f"layers.{i}.{j}.{name}": normal(*shape, seed=7 * i + j)
    for i in range(2)
    for j in range(3)
    for name, shape in {"weight": (OUT, IN), "bias": (OUT,)}.items()
}
STACKED = {
    "params": {"stack": {"kernel": np.zeros((2, 3, IN, OUT)), "bias": np.zeros((2, 3, OUT))}}
}


class TestStackedLayers:
    def test_lie_at_their_index(self):
        variables = torch_weights.to_flax(STACKED_STATE, STACKED_TABLE, STACKED, "torch")
        for i, j in np.ndindex(2, 3):
            for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
                own = variables["params"]["stack"][ours][i, j]
                np.testing.assert_array_equal(own, STACKED_STATE[f"layers.{i}.{j}.{theirs}"].T)
        assert_trees_equal(torch_weights.to_torch(variables, STACKED_TABLE), STACKED_STATE)

    def test_missing_ones_are_named(self):
        message = refusal(STACKED_STATE, STACKED_TABLE[:-1], STACKED)
        assert "layers.1.2.weight: no place for it" in message
        assert "params/stack/kernel[1, 2]: missing" in message
        assert "[1, 1]" not in message

    def test_more_than_the_model_has_are_named(self):
        like = jax.tree.map(lambda x: x[:1], STACKED)
        message = refusal(STACKED_STATE, STACKED_TABLE, like)
        assert "params/stack/bias[1, 0]: not in the model" in message
        assert "[0, " not in message


class TestWholeModels:
    def test_there_and_back(self, like):
        variables = torch_weights.to_flax(STATE, TABLE, like, "torch")
        np.testing.assert_array_equal(variables["params"]["scale"], STATE["gain"])
        assert jax.tree.structure(variables) == jax.tree.structure(like)
        kept = {name: x for name, x in STATE.items() if name != "version"}
        assert_trees_equal(torch_weights.to_torch(variables, TABLE), kept)

    def test_dtypes_are_the_models(self, like):
        state = {name: np.float64(x) for name, x in STATE.items()}
        variables = torch_weights.to_flax(state, TABLE, like, "torch")
        assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype(np.float32)}

    def test_jax_arrays_and_tensors_are_arrays_too(self, like):
        torch = pytest.importorskip("torch")
        expected = torch_weights.to_flax(STATE, TABLE, like, "torch")
        for kind in (jnp.asarray, torch.tensor):
            state = {name: kind(x) for name, x in STATE.items()}
            assert_trees_equal(torch_weights.to_flax(state, TABLE, like, "torch"), expected)


class TestRefusals:
    def test_lists_everything_at_once(self, like):
        state = STATE | {"first.weight": normal(OUT, IN + 1), "stranger": normal(1)}
        del state["gain"], state["block.second.bias"]
        message = refusal(state, TABLE, like)
        for problem in (
            "params/dense/kernel: shape (5, 6), the model has (4, 6)",
            "stranger: no place for it",
            "params/scale: missing",
            "params/norm/bias: missing",
        ):
            assert problem in message
        assert message.count(";") == 3

    def test_places_without_a_row(self, like):
        message = refusal(STATE, TABLE[1:], like)
        assert "first.weight: no place for it" in message
        assert "params/dense/kernel: missing" in message

    def test_rows_without_a_place(self, like):
        like = {"params": {name: x for name, x in like["params"].items() if name != "norm"}}
        message = refusal(STATE, TABLE, like)
        assert "params/norm/scale: not in the model" in message

    def test_arrays_that_cannot_be_laid_out(self, like):
        assert "first: cannot be" in refusal(STATE | {"first.weight": normal(OUT)}, TABLE, like)

    @pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
    def test_an_lstm_that_lacks_something(self, name):
        like = jax.eval_shape(LSTM(OUT).init, jax.random.key(0), normal(BATCH, TIME, IN), ALL)
        shapes = {"weight_ih_l0": (4 * OUT, IN), "weight_hh_l0": (4 * OUT, OUT)}
        state = {
            f"rnn.{each}": normal(*shapes.get(each, (4 * OUT,)))
            for each in (*shapes, "bias_ih_l0", "bias_hh_l0")
        }
        table = [Layer("rnn", "cell", lstm())]
        torch_weights.to_flax(state, table, like, "torch")
        del state[f"rnn.{name}"]
        place = "kernel" if "weight" in name else "bias"
        part = "i" if "weight_ih" in name else "h"
        message = refusal(state, table, like)
        assert all(f"params/cell/{part}{gate}/{place}: missing" in message for gate in "ifgo")

    def test_a_table_that_fills_a_place_twice(self, like):
        with pytest.raises(ValueError, match="params/dense/kernel twice"):
            torch_weights.to_flax(STATE, [*TABLE, TABLE[0]], like, "torch")

    def test_variables_that_would_be_lost_on_the_way_to_torch(self, like):
        variables = torch_weights.to_flax(STATE, TABLE, like, "torch")
        with pytest.raises(ValueError, match="no row for params/dense/bias, params/dense/kernel"):
            torch_weights.to_torch(variables, TABLE[1:])
