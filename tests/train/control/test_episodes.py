"""Whole episodes on a toy that falls when it is told to."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import PRESETS
from envs import surrogate
from envs.faults import LOCKED, POWER_LOSS, Fault
from train.control import episodes, ppo, robots

FALL = 7
"""Control step whose end finds a struck robot on the ground."""


class Falling(surrogate.Surrogate):
    """Earns one a step, on the ground as well; who is struck falls with step `FALL`."""

    def step(self, state, action):
        state = super().step(state, action)
        struck = state.info["fault"].power_loss.any() & (state.info["step"] == FALL)
        return state.replace(reward=jnp.ones(()), done=struck.astype(jnp.float32))


@pytest.fixture(scope="module")
def run():
    config = PRESETS["surrogate"]
    robot = robots.build(config)._replace(env=Falling())
    policy = ppo.build_policy(config, robot)
    blank = jnp.zeros((4, 1, robot.env.observation_size))
    params = policy.init(jax.random.key(0), blank, jnp.zeros(4, jnp.int32))["params"]

    @jax.jit
    def run(kind):
        key = jax.random.key(1)
        return episodes.run(robot, policy, params, episodes.oracle(), kind, key, 8)

    return run


def test_nothing_is_earned_by_who_has_fallen(run):
    found = run(POWER_LOSS)
    assert not found.survived.any()
    assert (found.reward == FALL - 1).all()
    # alive before the step that fells it, and not again although `done` is over
    alive = found.trail["alive"]
    np.testing.assert_array_equal(alive, np.arange(len(alive))[:, None] < np.full(8, FALL))


def test_who_stands_earns_to_the_end(run):
    found = run(0)
    assert found.survived.all()
    assert (found.reward == surrogate.EPISODE_STEPS).all()
    assert (found.trail["step"][:, 0] == np.arange(surrogate.EPISODE_STEPS)).all()


def test_an_oracle_sees_every_joint():
    """And the worst of a robot's conditions: locked before without power before healthy."""
    for joints in (4, 8):
        one, none = jnp.eye(joints, dtype=bool), jnp.zeros((joints, joints), bool)
        for fault, expected in (
            (Fault(one, none, jnp.full(joints, 3)), POWER_LOSS),
            (Fault(none, one, jnp.full(joints, 3)), LOCKED),
            (Fault(one, jnp.roll(one, 1, axis=1), jnp.full(joints, 3)), LOCKED),
        ):
            states = SimpleNamespace(info={"step": jnp.full(joints, 3), "fault": fault})
            assert (episodes.condition(states) == expected).all()
            # late by a step, and shown a step later
            assert not episodes.condition(states, 1).any()
            assert not episodes.shown(states).any()
            after = SimpleNamespace(info=states.info | {"step": jnp.full(joints, 4)})
            assert (episodes.shown(after).max(axis=-1) == expected).all()
            assert (episodes.shown(after) > 0).sum() == (fault.power_loss | fault.locked).sum()


def test_each_robot_is_struck_at_a_step_of_its_own(run):
    onset = run(POWER_LOSS).trail["onset"]
    assert (onset == onset[0]).all()
    assert len(np.unique(onset[0])) > 4
    head = run(POWER_LOSS).trail["head"]
    np.testing.assert_array_equal(head > 0, np.arange(len(head))[:, None] >= onset[0])
