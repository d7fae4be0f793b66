"""The contrast with a memory: closed forms, what is drawn, and where gradients go."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.datafree import ring
from train.datafree.contrast import contrast, remembered

KEY = jax.random.key(0)
LINES = jnp.eye(4)


CONTRAST = jax.jit(lambda *args: contrast(lambda x: x, *args), static_argnums=(4, 5))


def test_without_a_memory_it_is_the_batch_alone():
    memory = ring.empty(6, (8,), jnp.float32)
    value = CONTRAST(LINES[:2], LINES[:2], memory, KEY, 4, 0.5)
    assert value == pytest.approx(0.126928, abs=1e-5)


def test_remembered_rows_are_told_apart_too():
    """Four orthonormal rows, two of them remembered: each half averages log(1 + 3 e^-2)."""
    memory = ring.push(ring.empty(6, (8,), jnp.float32), remembered(LINES[2:], LINES[2:]))
    value = CONTRAST(LINES[:2], LINES[:2], memory, KEY, 6, 0.5)
    assert value == pytest.approx(2 * math.log(1 + 3 * math.exp(-2)), abs=1e-5)
    # a draw of one: three rows, and the halves are alike again
    value = CONTRAST(LINES[:2], LINES[:2], memory, KEY, 1, 0.5)
    assert value == pytest.approx(2 * math.log(1 + 2 * math.exp(-2)), abs=1e-5)


def test_local_and_whole_keep_their_sides():
    """Of two remembered crops of one whole, the other is told from nothing."""
    rows = remembered(LINES[2:], LINES[jnp.array([2, 2])])
    memory = ring.push(ring.empty(2, (8,), jnp.float32), rows)
    value = CONTRAST(LINES[:2], LINES[:2], memory, KEY, 2, 0.5)
    present = math.log(1 + 3 * math.exp(-2))
    cached = (math.log(2 + 2 * math.exp(-2)) + math.log(4)) / 2
    assert value == pytest.approx(present + cached, abs=1e-5)


def test_the_head_learns_from_what_is_remembered():
    rows = jax.random.normal(KEY, (6, 8))
    memory = ring.push(ring.empty(6, (16,), jnp.bfloat16), remembered(rows, rows))

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def learn(kernel, local, memory):
        return contrast(lambda x: x @ kernel, local, rows[:2], memory, KEY, 6, 1.0)

    value, (by_kernel, by_local) = learn(jnp.eye(8), rows[:2], memory)
    assert np.isfinite(value)
    assert jnp.abs(by_local).max() > 1e-3  # images are to change by it
    forgotten = memory._replace(written=jnp.int32(0))
    _, (alone, _) = learn(jnp.eye(8), rows[:2], forgotten)
    assert jnp.abs(by_kernel - alone).max() > 1e-2
