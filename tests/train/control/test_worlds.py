"""Episodes that start anew, and from their partners: SOLO8's own first states, physics faked."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from configs.quadruped import QuadrupedConfig
from envs import faults
from envs import solo8_constants as c
from train.control import robots, worlds

COUNT = 16
GROUP = COUNT // 4
HEALTHY, WEAK, LOCKED = slice(0, 2 * GROUP), slice(2 * GROUP, 3 * GROUP), slice(3 * GROUP, COUNT)


@struct.dataclass
class Body:
    """What an episode begins from, of MJX's data."""

    qpos: jax.Array
    qvel: jax.Array
    qd: jax.Array


@pytest.fixture(scope="module")
def robot():
    solo8 = robots.build(QuadrupedConfig())

    def step(state, action):
        """No physics: an action above a half falls, one below minus a half loses its numbers."""
        body = state.pipeline_state
        body = body.replace(qpos=jnp.where(action[0] < -0.5, jnp.nan, body.qpos))
        return state.replace(
            pipeline_state=body,
            reward=jnp.ones(()),
            metrics=state.metrics | {"torques": jnp.where(action[0] < -0.5, jnp.nan, -1.0)},
            done=(action[0] > 0.5).astype(jnp.float32),
            info=state.info | {"step": state.info["step"] + 1, "last_action": action},
        )

    env = SimpleNamespace(step=step, begin=solo8.env.begin)
    return solo8._replace(env=env, step=lambda _, state, action: step(state, action))


def draw(key):
    conditions = jnp.repeat(jnp.array(worlds.GROUPS), GROUP)
    broken = jnp.arange(8) < 2
    return faults.Fault(
        (conditions == faults.POWER_LOSS)[:, None] & broken,
        (conditions == faults.LOCKED)[:, None] & broken,
        jnp.zeros(COUNT, jnp.int32),
    )


@pytest.fixture(scope="module")
def walking(robot):
    """Robots that differ from each other in every number, in the middle of their episodes."""
    rng = np.random.default_rng(0)
    qpos = rng.normal(size=(COUNT, 15))
    qvel = rng.normal(size=(COUNT, 14))
    body = Body(*(jnp.asarray(x, jnp.float32) for x in (qpos, qvel, qvel)))
    keys = jax.random.split(jax.random.PRNGKey(1), COUNT)
    states = jax.vmap(robot.env.begin)(body, keys, draw(None))
    states = states.replace(
        info=states.info | {"step": jnp.full(COUNT, 100), "air_time": jnp.ones((COUNT, 4))}
    )
    pose = np.concatenate([[0, 0, c.SPAWN_HEIGHT, 1, 0, 0, 0], c.DEFAULT_POSE])
    template = Body(jnp.asarray(pose, jnp.float32), jnp.zeros(14), jnp.zeros(14))
    return worlds.Worlds(states, template, {})


@pytest.fixture(scope="module")
def advance(robot):
    run = jax.jit(partial(worlds.advance, robot, draw=draw))

    def call(before, falls=(), lost=(), reflection=1.0, key=0):
        actions = jnp.zeros((COUNT, 8)).at[jnp.array(falls, int), 0].set(1)
        actions = actions.at[jnp.array(lost, int), 0].set(-1)
        after, outcome = run(
            before, actions, key=jax.random.key(key), reflection=jnp.float32(reflection)
        )
        return jax.tree.map(np.asarray, after.states), jax.tree.map(np.asarray, outcome)

    return call


@pytest.mark.parametrize("number", [2 * GROUP + 1, 3 * GROUP + 2])
def test_a_faulty_episode_starts_where_its_partner_is(walking, advance, number):
    before = walking.states
    after, _ = advance(walking, falls=[number])
    partner = number - COUNT // 2
    for name in ("qpos", "qvel", "qd"):
        mine = getattr(after.pipeline_state, name)[number]
        np.testing.assert_array_equal(mine, getattr(before.pipeline_state, name)[partner])
        # the partner walks on
        np.testing.assert_array_equal(mine, getattr(after.pipeline_state, name)[partner])
    info = after.info
    np.testing.assert_array_equal(info["lock_angle"][number], after.pipeline_state.qpos[number, 7:])
    assert not np.array_equal(info["command"][number], before.info["command"][partner])
    assert not np.array_equal(info["command"][number], before.info["command"][number])
    for name in ("last_action", "air_time", "step"):
        assert not info[name][number].any()
    active = faults.active(jax.tree.map(lambda x: x[number], info["fault"]), 0)
    assert np.concatenate(active).sum() == 2


def test_without_reflection_it_starts_at_rest(walking, advance):
    after, _ = advance(walking, falls=range(COUNT), reflection=0.0)
    body = after.pipeline_state
    np.testing.assert_array_equal(body.qpos, np.tile(walking.template.qpos, (COUNT, 1)))
    assert np.abs(body.qvel[:, :6]).max() <= c.SPAWN_VELOCITY
    assert len(np.unique(body.qvel[:, 0])) == COUNT
    np.testing.assert_array_equal(body.qvel[:, 6:], 0)
    np.testing.assert_array_equal(after.info["lock_angle"], body.qpos[:, 7:])


def test_healthy_robots_are_never_written(walking, advance):
    after, _ = advance(walking, falls=range(2 * GROUP, COUNT))
    for name in ("qpos", "qvel"):
        old, new = (getattr(x.pipeline_state, name)[HEALTHY] for x in (walking.states, after))
        np.testing.assert_array_equal(new, old)
    after, _ = advance(walking, falls=range(2 * GROUP))
    np.testing.assert_array_equal(
        after.pipeline_state.qpos[HEALTHY], np.tile(walking.template.qpos, (2 * GROUP, 1))
    )


def test_a_partner_that_starts_anew_is_copied_as_it_starts(walking, advance):
    after, _ = advance(walking, falls=[1, 2 * GROUP + 1])
    np.testing.assert_array_equal(after.pipeline_state.qpos[2 * GROUP + 1], walking.template.qpos)
    mine, partner = (after.pipeline_state.qvel[i] for i in (2 * GROUP + 1, 1))
    np.testing.assert_array_equal(mine, partner)
    assert mine.any()


def test_one_draw_decides_for_all_robots_of_a_step(walking, advance):
    resting = []
    for key in range(12):
        after, _ = advance(walking, falls=range(2 * GROUP, COUNT), reflection=0.5, key=key)
        started = after.pipeline_state.qpos[2 * GROUP :]
        rest = (started == walking.template.qpos).all(axis=1)
        assert rest.all() or not rest.any()
        resting.append(rest.all())
    assert 0 < sum(resting) < 12


def test_lost_physics_starts_anew_and_is_counted(walking, advance):
    # a healthy one, and a faulty one whose partner is lost in the same step
    after, outcome = advance(walking, lost=[1, 2 * GROUP + 1])
    assert outcome.lost.nonzero()[0].tolist() == [1, 2 * GROUP + 1]
    np.testing.assert_array_equal(outcome.fell, outcome.lost)
    np.testing.assert_array_equal(outcome.reward, 1.0 - outcome.lost)
    np.testing.assert_array_equal(outcome.terms["torques"], outcome.lost - 1.0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.pipeline_state))


def test_the_clock_ends_an_episode_and_a_fall_is_not_its_doing(walking, advance):
    late = walking.states.info | {"step": jnp.full(COUNT, c.EPISODE_STEPS - 1)}
    late = walking._replace(states=walking.states.replace(info=late))
    after, outcome = advance(late, falls=[0])
    assert outcome.fell.nonzero()[0].tolist() == [0]
    np.testing.assert_array_equal(outcome.timeout, ~outcome.fell)
    assert not after.info["step"].any()


def test_eased_robots_keep_all_but_their_penalty(walking):
    eased = worlds.eased(walking, jnp.float32(0.25))
    np.testing.assert_array_equal(eased.states.info["penalty"], np.full(COUNT, 0.25))
    back = worlds.eased(eased, jnp.float32(1))
    jax.tree.map(np.testing.assert_array_equal, back, walking)
