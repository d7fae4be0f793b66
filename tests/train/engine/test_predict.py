"""Finished models over rows in blocks: every row once, in order, whatever the block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.engine.predict import by_block, positions, predict
from train.engine.stage import looped, vectorized

ROWS = {"x": np.arange(22, dtype=np.float32).reshape(11, 2), "n": np.arange(11)}
MODELS = {"scale": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)}


class Streamed:
    """Rows that are read; remembers in which blocks."""

    def __init__(self):
        self.blocks = []

    def __len__(self):
        return 11

    def take(self, index=slice(None)):
        self.blocks.append(np.asarray(index))
        return {name: x[index] for name, x in ROWS.items()}

    def first(self):
        return self


def one(model, batch):
    return {"sum": model["scale"] * batch["x"].sum(axis=1), "pair": batch["x"][:, ::-1]}


def expected():
    return {
        "sum": MODELS["scale"][..., None] * ROWS["x"].sum(axis=1),
        "pair": np.broadcast_to(ROWS["x"][:, ::-1], (2, 3, 11, 2)),
    }


@pytest.mark.parametrize("block", [1, 4, 11, 256])
@pytest.mark.parametrize("lanes", [vectorized, looped])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_row_once_and_in_order(block, lanes, streamed):
    rows = Streamed() if streamed else ROWS
    answer = predict(one, MODELS, rows, depth=2, lanes=lanes, block=block)
    jax.tree.map(np.testing.assert_allclose, answer, expected())
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(answer))
    if streamed:
        # one shape, so one compilation
        assert {len(index) for index in rows.blocks} == {min(block, 11)}


def test_one_model_without_leading_axes():
    answer = predict(one, {"scale": 2.0}, ROWS, block=3)
    np.testing.assert_allclose(answer["sum"], 2 * ROWS["x"].sum(axis=1))


def test_by_block_is_traced():
    call = jax.jit(lambda rows: by_block(lambda b: b["n"] * 10, rows, 4))
    np.testing.assert_array_equal(call(jax.tree.map(jnp.asarray, ROWS)), ROWS["n"] * 10)


def test_the_last_block_repeats_the_last_row():
    np.testing.assert_array_equal(positions(5, 2), [[0, 1], [2, 3], [4, 4]])
    np.testing.assert_array_equal(positions(2, 5), [[0, 1]])
