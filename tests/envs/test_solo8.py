"""The Brax environment without its physics: what it draws, shows and drives with."""

from functools import partial
from types import SimpleNamespace

import brax.envs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.wrappers import training
from flax import struct

from envs import faults, mirror, solo8, solo8_model, solo8_solver
from envs import solo8_constants as c
from envs.solo8 import Config, Solo8, draw_command, draw_hardware, is_down, randomize

KEY = jax.random.PRNGKey(0)
SIZES = {"quat": 30, "gravity": 29}


@pytest.fixture(scope="module")
def envs():
    return {
        mode: brax.envs.get_environment("solo8", config=Config(obs_mode=mode, noise=0))
        for mode in SIZES
    }


@pytest.fixture(scope="module")
def moving():
    """Something to begin from that is not the default pose."""
    random = np.random.default_rng(0)
    qpos = np.concatenate([[0, 0, 0.2], [0.9, 0.1, -0.2, 0.3], random.normal(size=8)])
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    return SimpleNamespace(qpos=jnp.array(qpos), qvel=jnp.array(random.normal(size=14)))


class TestConstruction:
    def test_registered_with_brax(self, envs):
        for mode, env in envs.items():
            assert isinstance(env, Solo8)
            assert (env.observation_size, env.action_size) == (SIZES[mode], 8)
            assert env.dt == pytest.approx(0.02)
            assert jax.eval_shape(env.reset, KEY).obs.shape == (SIZES[mode],)

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"backend": "spring"}, "backend"),
            ({"config": Config(robot="v6")}, "config.robot"),
            ({"config": Config(obs_mode="euler")}, "config.obs_mode"),
            ({"config": Config(noise=-1)}, "config.noise: -1"),
            ({"config": Config(action_limit=0)}, "config.action_limit: 0"),
            ({"config": Config(solver_iterations=0)}, "config.solver_iterations: 0"),
            ({"config": Config(lock_play=(-1.0, 0.0))}, "config.lock_play"),
            ({"config": Config(faults=faults.Mixture(legs=("XX",)))}, "faults.legs: 'XX' not in"),
            (
                {"config": Config(faults=faults.Mixture(onset=(0, 400)))},
                "faults.onset: .* 0 to 399",
            ),
        ],
    )
    def test_refuses(self, arguments, field):
        with pytest.raises(ValueError, match=field):
            Solo8(**arguments)

    def test_goes_through_braxs_training_wrappers(self, envs):
        keys = jax.random.split(KEY, 3)
        env = training.wrap(
            envs["quat"], c.EPISODE_STEPS, randomization_fn=partial(randomize, rng=keys)
        )
        before = jax.eval_shape(env.reset, keys)
        program, after = jax.make_jaxpr(env.step, return_shape=True)(before, jnp.zeros((3, 8)))
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert "callback" not in str(program)


class TestObservation:
    def test_order_and_scale(self, envs, moving):
        state = envs["quat"].begin(moving, KEY)
        expected = [
            *moving.qpos[3:7],
            2 * state.info["command"][0],
            0.25 * state.info["command"][1],
            *(moving.qpos[7:] - c.DEFAULT_POSE),
            *(0.05 * moving.qvel[6:]),
            *np.zeros(8),
        ]
        np.testing.assert_allclose(state.obs, expected, atol=1e-6)

    def test_gravity(self, envs, moving):
        roll = moving.qpos.at[3:7].set(jnp.array([jnp.cos(0.05), jnp.sin(0.05), 0, 0]))
        state = envs["gravity"].begin(SimpleNamespace(qpos=roll, qvel=moving.qvel), KEY)
        expected = [0, -np.sin(0.1), -np.cos(0.1)]
        np.testing.assert_allclose(state.obs[:3], expected, atol=1e-6)
        np.testing.assert_allclose(state.obs[3:], envs["quat"].begin(moving, KEY).obs[4:])

    @pytest.mark.parametrize("mode", SIZES)
    @pytest.mark.parametrize("element", range(4))
    def test_of_the_mirrored_robot_is_the_mirrored_one(self, envs, moving, mode, element):
        env = envs[mode]
        image = SimpleNamespace(
            qpos=mirror.mirror(moving.qpos, mirror.QPOS, element),
            qvel=mirror.mirror(moving.qvel, mirror.QVEL, element),
        )
        expected = mirror.mirror(env.begin(moving, KEY).obs, mirror.OBSERVATION[mode], element)
        command = slice(SIZES[mode] - 26, SIZES[mode] - 24)
        np.testing.assert_allclose(
            np.delete(env.begin(image, KEY).obs, command), np.delete(expected, command), atol=1e-6
        )

    def test_noise_has_the_published_widths(self, envs, moving):
        noisy = Solo8(Config())
        keys = jax.random.split(KEY, 2000)
        difference = jax.vmap(
            lambda key: noisy.begin(moving, key).obs - envs["quat"].begin(moving, key).obs
        )(keys)
        widths = np.repeat([0.05, 0, 0.01, 0.075, 0], [4, 2, 8, 8, 8])
        np.testing.assert_allclose(np.abs(difference).max(0), widths, rtol=0.01, atol=1e-6)
        np.testing.assert_allclose(difference.mean(0), 0, atol=4e-3)

    def test_encoders_have_their_offsets(self, envs, moving):
        env, state = envs["quat"], envs["quat"].begin(moving, KEY)
        offset = jnp.arange(8) / 100
        hardware = state.info["hardware"]._replace(offset=offset)
        found = env._observe(moving, state.info | {"hardware": hardware}, KEY)
        expected = state.obs.at[6:14].add(offset)
        np.testing.assert_allclose(found, expected, atol=1e-6)


class TestBraxsResets:
    """A robot whose joints creep, in the wrappers of Brax's trainers; episodes of 5 steps."""

    STEPS = 5

    @pytest.fixture
    def trail(self, moving, monkeypatch):
        env = Solo8(Config(noise=0, faults=faults.Mixture((0.0, 0.0, 1.0), onset=(2, 2))))
        body = Body(moving.qpos, moving.qvel, jnp.zeros(9), jnp.zeros(8))
        monkeypatch.setattr(env, "reset", lambda key: env.begin(body, key))
        creep = jnp.arange(15) >= 7

        def physics(data, *_):
            return data.replace(qpos=data.qpos + 0.01 * creep), jnp.zeros(8)

        monkeypatch.setattr(env, "_physics", physics)
        monkeypatch.setattr(env, "_push", lambda data, *_: data)
        wrapped = training.wrap(env, self.STEPS)
        state = wrapped.reset(jax.random.split(KEY, 4))
        # as a curriculum does, which goes on across episodes
        state.info["penalty"] = jnp.full(4, 0.25)
        found, step = [state], jax.jit(wrapped.step)
        for _ in range(2 * self.STEPS + 1):
            found.append(step(found[-1], jnp.zeros((4, 8))))
        return found

    def test_an_episode_has_its_own_clock_and_locks_where_its_robot_is(self, trail, moving):
        clocks = [int(state.info["step"][0]) for state in trail]
        assert clocks == [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1]
        for state, clock in zip(trail[1:], clocks[1:], strict=True):
            locked = np.asarray(state.info["fault"].locked)
            assert locked.any(axis=1).all()
            # what moves 0.01 a step locks in the third step of its own episode
            moved = np.asarray(state.info["lock_angle"] - moving.qpos[7:])
            expected = np.where(locked, 0.01 * min(clock, 2), 0.01 * clock)
            np.testing.assert_allclose(moved, expected, atol=1e-6)

    def test_an_episode_draws_its_own_fault_and_command(self, trail):
        first, second = trail[self.STEPS], trail[self.STEPS + 1]
        for name in ("command", "push_phase"):
            assert (first.info[name] != second.info[name]).any()
        assert (first.info["fault"].locked != second.info["fault"].locked).any()
        # and keeps them
        for state in trail[self.STEPS + 2 : -1]:
            np.testing.assert_array_equal(state.info["command"], second.info["command"])
            np.testing.assert_array_equal(state.info["fault"].locked, second.info["fault"].locked)
        assert (trail[-1].info["penalty"] == 0.25).all()


@struct.dataclass
class Body:
    """What the drive reads of MJX's data, and what it sets."""

    qpos: jax.Array
    qvel: jax.Array
    sensordata: jax.Array
    ctrl: jax.Array


class TestDrive:
    """The torque that reaches a physics which does nothing."""

    @pytest.fixture
    def torque(self, moving, monkeypatch):
        monkeypatch.setattr(faults, "lock", lambda sys, data, *_: (sys, data))
        monkeypatch.setattr(solo8_model, "touch", lambda sys, data: data.sensordata)
        monkeypatch.setattr(solo8_solver, "step", lambda sys, data: data)
        monkeypatch.setattr(solo8, "_as_brax", lambda sys, data: data)
        body = Body(moving.qpos, moving.qvel, jnp.zeros(9), jnp.zeros(8))
        nominal = draw_hardware(KEY, False)

        def call(power_loss=(), locked=(), motor_off=False, last=0.0, **hardware):
            env = Solo8(Config(noise=0, lock_motor_off=motor_off))
            info = {
                "hardware": nominal._replace(**hardware),
                "last_action": jnp.full(8, last),
                "lock_angle": jnp.zeros(8),
            }
            broken = (jnp.isin(jnp.arange(8), jnp.array(x, int)) for x in (power_loss, locked))
            return np.asarray(env._physics(body, jnp.ones(8), info, *broken)[1])

        return call

    def by_hand(self, moving, action=1.0, kp=1.0, kd=1.0, offset=0.0):
        error = c.DEFAULT_POSE + 0.25 * action - moving.qpos[7:] - offset
        return np.clip(3 * kp * error - 0.3 * kd * moving.qvel[6:], -1.5, 1.5)

    def test_nominal(self, torque, moving):
        np.testing.assert_allclose(torque(), self.by_hand(moving), atol=1e-6)

    def test_spread(self, torque, moving):
        offset = jnp.linspace(-0.5, 0.5, 8)
        found = torque(kp=jnp.array(1.1), kd=jnp.array(0.5), offset=offset)
        expected = self.by_hand(moving, kp=1.1, kd=0.5, offset=offset)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        # a strong motor passes the nominal limit, a weak one does not reach it
        for strength in (0.85, 1.05):
            found = torque(strength=jnp.array(strength))
            np.testing.assert_allclose(found, strength * self.by_hand(moving), atol=1e-6)
        found = torque(last=-1.0, delayed=jnp.array(True))
        np.testing.assert_allclose(found, self.by_hand(moving, action=-1), atol=1e-6)

    def test_motors_without_power_and_of_locked_joints(self, torque, moving):
        nominal = self.by_hand(moving)
        alive = np.where(np.arange(8) == 2, 0, nominal)
        np.testing.assert_allclose(torque(power_loss=[2], locked=[5]), alive, atol=1e-6)
        alive[5] = 0
        found = torque(power_loss=[2], locked=[5], motor_off=True)
        np.testing.assert_allclose(found, alive, atol=1e-6)


class TestDraws:
    @pytest.mark.parametrize("backward", [False, True])
    def test_command(self, backward):
        keys = jax.random.split(KEY, 4000)
        speed, yaw = np.asarray(jax.vmap(lambda key: draw_command(key, backward))(keys)).T
        least = -1 if backward else 0
        assert speed.min() == pytest.approx(least, abs=0.01)
        assert speed.max() == pytest.approx(1, abs=0.01)
        assert not yaw[speed == 0].any()
        assert (speed == 0).mean() == pytest.approx(0.1, abs=0.02)
        assert np.abs(speed[speed != 0]).min() >= 0.1
        slow = (np.abs(speed) < 0.4) & (speed != 0)
        assert np.abs(yaw[slow]).max() == pytest.approx(0.25, abs=0.01)
        assert np.abs(yaw).max() == pytest.approx(0.5, abs=0.01)

    def test_hardware(self):
        nominal = draw_hardware(KEY, spread=False)
        assert (nominal.kp, nominal.kd, nominal.strength) == (1, 1, 1)
        assert not nominal.offset.any()
        assert not nominal.delayed
        drawn = jax.vmap(lambda key: draw_hardware(key, True))(jax.random.split(KEY, 2000))
        for values, bounds in [
            (drawn.kp, (0.9, 1.1)),
            (drawn.kd, (0.9, 1.1)),
            (drawn.strength, (0.85, 1.05)),
            (drawn.offset, (-0.02, 0.02)),
        ]:
            np.testing.assert_allclose((values.min(), values.max()), bounds, atol=2e-3)
        assert drawn.delayed.mean() == pytest.approx(0.5, abs=0.05)

    @pytest.mark.parametrize("com_spread", [False, True])
    def test_system(self, envs, com_spread):
        sys = envs["quat"].sys
        drawn, axes = randomize(sys, jax.random.split(KEY, 500), com_spread)
        np.testing.assert_allclose(
            (drawn.geom_friction[..., 0].min(), drawn.geom_friction[..., 0].max()),
            (0.6, 1.5),
            atol=0.02,
        )
        added = drawn.body_mass - sys.body_mass
        np.testing.assert_allclose((added.min(), added.max()), (-0.2, 1.0), atol=0.02)
        assert not np.delete(added, 1, axis=1).any()
        np.testing.assert_allclose(
            drawn.body_inertia[:, 1] / sys.body_inertia[1],
            np.tile((drawn.body_mass / sys.body_mass)[:, 1:2], 3),
            rtol=1e-5,
        )
        shift = np.abs(drawn.body_ipos - sys.body_ipos)
        assert shift.max() == pytest.approx(0.01 * com_spread, abs=1e-4)
        batched = {name for name, axis in vars(axes).items() if isinstance(axis, int) and axis == 0}
        assert {"geom_friction", "body_mass", "body_inertia", "body_ipos"} <= batched


def test_down_is_a_torso_on_the_floor_or_a_leg_wound_up():
    pose = jnp.asarray(c.DEFAULT_POSE)
    assert not is_down(jnp.float32(0.9), pose)
    assert is_down(jnp.float32(1.1), pose)
    assert not is_down(jnp.float32(0), pose.at[3].set(-9.9))
    assert is_down(jnp.float32(0), pose.at[3].set(-10.1))
