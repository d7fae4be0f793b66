"""The toy: its equations by hand, its faults, and the effect that is planted in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.base import Env

from envs import faults, surrogate
from envs.surrogate import Body, Config, Surrogate

PAGE = Config(powerless_coupling=(0.0, -1.0, -1.0, 1.0))
"""With one leg whose coupling keeps its sign."""


@pytest.fixture(scope="module")
def env():
    return Surrogate()


def begun(env, fault, speed=0.4, tilt=0.1, thrust=(0.2, 0.1, 0.1, 0.1)):
    body = Body(jnp.float32(speed), jnp.float32(tilt), jnp.array(thrust))
    state = env.begin(body, jax.random.PRNGKey(0), fault)
    return state.replace(info=state.info | {"command": jnp.float32(0.8)})


@pytest.mark.parametrize(
    ("kind", "thrust", "coupling"),
    [
        (faults.HEALTHY, (1.0, 0.5, -0.25, 0.25), (1, -1, 1, -1)),
        (faults.POWER_LOSS, (0.0, 0.5, -0.25, 0.25), (0, 1, -1, 1)),
        (faults.LOCKED, (0.2, 0.5, -0.25, 0.25), (1, -1, 1, -1)),
    ],
)
def test_one_step_by_hand(env, kind, thrust, coupling):
    """Actions are clipped to 1; a dead leg gives nothing, a locked one what it gave before."""
    state = begun(env, surrogate.fault(kind))
    after = env.step(state, jnp.array([3.0, 0.5, -0.25, 0.25]))
    body = after.pipeline_state
    speed = 0.4 + 0.02 * (sum(thrust) - 0.4)
    np.testing.assert_allclose(body.thrust, thrust, atol=1e-6)
    np.testing.assert_allclose(body.speed, speed, rtol=1e-6)
    tilt = 0.1 + 0.02 * (0.2 + np.dot(coupling, thrust))
    assert abs(body.tilt - tilt) < 5 * 0.02 * 0.02**0.5
    np.testing.assert_allclose(after.reward, 0.02 * np.exp(-((0.8 - speed) ** 2) / 0.25), rtol=1e-6)
    np.testing.assert_allclose(after.obs[:3], [body.speed, body.tilt, 0.8])
    np.testing.assert_allclose(after.obs[3:7], [3.0, 0.5, -0.25, 0.25])
    assert np.abs(after.obs[7:] - np.array(thrust)).max() < 5 * surrogate.SENSOR_NOISE
    assert after.done == 0


def test_onset_and_fall(env):
    """A fault waits for its step; a tilt of one is a fall."""
    state = begun(env, surrogate.fault(faults.POWER_LOSS, 1))
    first = env.step(state, jnp.ones(4))
    assert first.pipeline_state.thrust[0] == 1
    assert env.step(first, jnp.ones(4)).pipeline_state.thrust[0] == 0
    assert env.step(begun(env, surrogate.fault(faults.HEALTHY), tilt=1.2), jnp.zeros(4)).done == 1


def test_is_a_brax_environment(env):
    assert isinstance(env, Env)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.PRNGKey(0), 64))
    assert state.obs.shape == (64, env.observation_size)
    assert (state.pipeline_state.speed == 0).all()
    assert np.abs(state.pipeline_state.tilt).max() <= surrogate.FIRST_TILT
    conditions = jax.vmap(faults.condition, in_axes=(0, None))(state.info["fault"], 400)
    assert set(np.unique(conditions)) == {0, 1, 2}
    assert not conditions[:, 1:].any()


def survival(config, gain=4.0):
    """Of 512 robots under analytic controllers, onset anywhere, command 0.8."""
    env = Surrogate(config)
    healthy = jnp.array(surrogate.HEALTHY_COUPLING)
    weak = jnp.array(config.powerless_coupling)
    # sums to one and does not tip the body on its other legs
    share = jnp.where(weak == -jnp.sum(weak), 0.5, 0.25).at[0].set(0)

    def episode(kind, switched, key, onset):
        def move(carry, _):
            state, alive = carry
            tilt, command = state.pipeline_state.tilt, state.info["command"]
            on = switched & (state.info["step"] >= onset)
            other = share * command - gain * weak * tilt
            action = jnp.where(on, other, command / 4 - gain * healthy * tilt)
            state = env.step(state, action)
            return (state, alive & (state.done == 0)), None

        state = env.reset(key)
        info = state.info | {"fault": surrogate.fault(kind, onset), "command": jnp.float32(0.8)}
        start = (state.replace(info=info), jnp.array(True))
        return jax.lax.scan(move, start, length=surrogate.EPISODE_STEPS)[0][1]

    names = ("health", "blind", "switched", "locked")
    kinds = jnp.array([faults.HEALTHY, faults.POWER_LOSS, faults.POWER_LOSS, faults.LOCKED])
    keys = jax.random.split(jax.random.PRNGKey(0), 512)
    onsets = jax.random.randint(jax.random.PRNGKey(1), (512,), 0, 399)
    robots = jax.vmap(episode, in_axes=(None, None, 0, 0))
    each = jax.vmap(robots, in_axes=(0, 0, None, None))
    switched = jnp.array([False, False, True, False])
    found = jax.jit(each)(kinds, switched, keys, onsets).mean(axis=1)
    return dict(zip(names, found.tolist(), strict=True))


def test_planted_effect():
    """What balances a healthy body fells one without power; locking is benign."""
    found = survival(Config())
    assert found["health"] == found["locked"] == found["switched"] == 1
    assert found["blind"] < 0.12


def test_published_coupling():
    """0.12, 0.10, 0.09, 0.09 for gains 1, 2, 4, 8, where one leg keeps its sign."""
    found = survival(PAGE)
    assert found["health"] == found["locked"] == found["switched"] == 1
    assert found["blind"] == pytest.approx(0.09, abs=0.03)
