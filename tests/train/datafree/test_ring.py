"""A ring against a list that forgets, quantisation, and what is drawn after a restart."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from train.datafree import ring

PUSH = jax.jit(ring.push)


@pytest.mark.parametrize("sizes", [(3, 3), (3, 3, 3, 3), (7,), (1, 7, 2, 5)])
def test_keeps_the_newest(sizes):
    held, expected, number = ring.empty(7, (2,)), [], 0
    for size in sizes:
        rows = np.arange(number, number + size, dtype=np.uint8)[:, None] * np.ones(2, np.uint8)
        held, number = PUSH(held, rows), number + size
        expected = (expected + rows.tolist())[-7:]
        assert int(held.filled) == len(expected)
    assert held.rows.dtype == jnp.uint8
    there = held.rows[: int(held.filled)].tolist()
    assert sorted(there) == sorted(expected)
    # the next row takes the place of the oldest
    after = PUSH(held, jnp.full((1, 2), 255, jnp.uint8)).rows[:].tolist()
    assert after.count([255, 255]) == 1
    assert (expected[0] in after) == (len(expected) < 7)


def test_draws_are_of_what_is_there_and_even():
    held = PUSH(ring.empty(10, ()), jnp.arange(4, dtype=jnp.uint8) + 1)
    drawn = np.asarray(ring.draw(held, jax.random.key(0), 4000))
    counts = np.bincount(drawn, minlength=5)
    assert counts[0] == 0  # places that are still empty
    # 4 sigma of a binomial of 4000 and 1/4
    np.testing.assert_allclose(counts[1:], 1000, atol=4 * np.sqrt(4000 * 3 / 16))


@pytest.mark.parametrize(("written", "count"), [(0, 4), (3, 4), (4, 4), (6, 4), (6, 9)])
def test_distinct_draws(written, count):
    held = ring.empty(6, (), jnp.float32)
    if written:
        held = ring.push(held, jnp.arange(1.0, 1 + written))
    rows, weights = ring.draw_distinct(held, jax.random.key(1), count)
    assert rows.shape == weights.shape == (min(count, 6),)
    found = np.asarray(rows)[np.asarray(weights) > 0]
    assert len(found) == min(written, count)
    assert len(set(found.tolist())) == len(found)
    assert set(found.tolist()) <= set(range(1, written + 1))
    assert set(np.asarray(weights).tolist()) <= {0.0, 1.0}


def test_distinct_draws_leave_none_out():
    held = ring.push(ring.empty(5, ()), jnp.arange(5, dtype=jnp.uint8))
    draw = jax.jit(ring.draw_distinct, static_argnums=2)
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = np.stack([draw(held, key, 2)[0] for key in keys]).ravel()
    np.testing.assert_allclose(np.bincount(drawn), 80, atol=4 * np.sqrt(200 * 0.4 * 0.6))


def test_quantisation_cuts_off():
    images = jnp.array([-1.0, 0.0, 0.5, 0.999, 1.0, 2.0])
    assert ring.quantize(images).tolist() == [0, 0, 127, 254, 255, 255]
    assert ring.quantize(images).dtype == jnp.uint8


def test_a_restart_draws_the_same(tmp_path):
    images = jax.random.uniform(jax.random.key(2), (5, 2, 2, 3))
    held = PUSH(ring.empty(4, (2, 2, 3)), ring.quantize(images[:3]))
    with orbax.checkpoint.StandardCheckpointer() as saver:
        saver.save(tmp_path / "ring", held)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "ring", ring.empty(4, (2, 2, 3)))
    # over the end of the ring, and drawn from
    grown = [PUSH(one, ring.quantize(images[3:])) for one in (held, restored)]
    np.testing.assert_array_equal(*(one.rows for one in grown))
    np.testing.assert_array_equal(*(ring.draw(one, jax.random.key(3), 64) for one in grown))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="5 rows do not fit into a ring of 4"):
        ring.push(ring.empty(4, ()), jnp.zeros(5, jnp.uint8))
    with pytest.raises(ValueError, match="places must be 1 or more, got 0"):
        ring.empty(0, ())
