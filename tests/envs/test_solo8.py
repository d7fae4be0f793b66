"""The Brax environment: what it draws and shows without physics, then one compiled rollout."""

from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import brax.envs
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.wrappers import training
from flax import struct

from envs import faults, mirror, solo8_model
from envs import solo8_constants as c
from envs.solo8 import Config, Hardware, Solo8, draw_command, draw_hardware, is_down, randomize
from tests.envs.simulate import advance, load

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


@struct.dataclass
class Body:
    """What the drive reads of MJX's data, and what it sets."""

    qpos: jax.Array
    qvel: jax.Array
    sensordata: jax.Array


class TestDrive:
    """The torque that reaches a physics which does nothing."""

    @pytest.fixture
    def torque(self, moving, monkeypatch):
        monkeypatch.setattr(faults, "lock", lambda sys, data, *_: (sys, data))
        monkeypatch.setattr(solo8_model, "touch", lambda sys, data: data.sensordata)
        still = SimpleNamespace(step=lambda sys, data, torque, debug: data)
        body = Body(moving.qpos, moving.qvel, jnp.zeros(9))
        nominal = draw_hardware(KEY, False)

        def call(power_loss=(), locked=(), motor_off=False, last=0.0, **hardware):
            env = Solo8(Config(noise=0, lock_motor_off=motor_off))
            env._pipeline = still
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


class Plan(NamedTuple):
    """What eight robots live through, all of it data to one program."""

    fault: faults.Fault
    delayed: jax.Array
    push_phase: jax.Array
    first_step: jax.Array
    restart: int


def test_down_is_a_torso_on_the_floor_or_a_leg_wound_up():
    pose = jnp.asarray(c.DEFAULT_POSE)
    assert not is_down(jnp.float32(0.9), pose)
    assert is_down(jnp.float32(1.1), pose)
    assert not is_down(jnp.float32(0), pose.at[3].set(-9.9))
    assert is_down(jnp.float32(0), pose.at[3].set(-10.1))


STEPS, ONSET = 14, 4
HEALTHY, DEAD, LOCKED, STUCK, LIMP, PARTNER, DELAYED, PUSHED = range(8)
FRONT_LEFT = ("FL_HFE", "FL_KFE")
NEVER = -1


def plan(broken: bool, restart: int = NEVER) -> Plan:
    cases = {
        HEALTHY: (faults.HEALTHY, FRONT_LEFT, 0),
        DEAD: (faults.POWER_LOSS, FRONT_LEFT, ONSET),
        LOCKED: (faults.LOCKED, FRONT_LEFT, ONSET),
        STUCK: (faults.LOCKED, ("HR_KFE",), 0),
        LIMP: (faults.POWER_LOSS, ("HL_HFE",), 0),
        PARTNER: (faults.LOCKED, ("FR_HFE", "FR_KFE"), 0 if restart != NEVER else 100),
        DELAYED: (faults.HEALTHY, FRONT_LEFT, 0),
        PUSHED: (faults.HEALTHY, FRONT_LEFT, 0),
    }
    drawn = [
        faults.fault(condition if broken else faults.HEALTHY, joints, onset)
        for condition, joints, onset in cases.values()
    ]
    robots = jnp.arange(8)
    return Plan(
        jax.tree.map(lambda *x: jnp.stack(x), *drawn),
        robots == DELAYED,
        jnp.where((robots == PUSHED) & broken, c.PUSH_STEPS - ONSET, 1),
        jnp.where((robots == PUSHED), c.EPISODE_STEPS - 10 - (c.EPISODE_STEPS - 10) * broken, 0),
        restart,
    )


class Run:
    """The only program with MJX physics in it: a reset and fourteen control steps."""

    def __init__(self):
        self.keys = jax.random.split(KEY, 8)
        self.env = Solo8(Config(noise=0))
        self.wrapped = training.DomainRandomizationVmapWrapper(
            self.env, partial(randomize, rng=self.keys)
        )
        self.actions = jax.random.normal(jax.random.PRNGKey(1), (STEPS, 8, 8))
        self.program = jax.jit(self._program)

    def __call__(self, plan):
        return self.program(plan, self.actions)

    def _program(self, plan, actions):
        state = self.wrapped.reset(self.keys)
        nominal: Hardware = state.info["hardware"]
        state.info.update(
            fault=plan.fault,
            hardware=nominal._replace(delayed=plan.delayed),
            push_phase=plan.push_phase,
            step=plan.first_step,
        )

        def body(state, inputs):
            t, action = inputs
            donor = jax.tree.map(lambda x: jnp.repeat(x[:1], 8, 0), state.pipeline_state)
            begun = jax.vmap(self.env.begin)(donor, self.keys, state.info["fault"])
            restarts = (t == plan.restart) & (jnp.arange(8) == PARTNER)
            state = jax.tree.map(
                lambda new, old: jnp.where(restarts.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                begun,
                state,
            )
            after = self.wrapped.step(state, action)
            return after, (seen(state), seen(after))

        def seen(state):
            data = state.pipeline_state
            return {
                "qpos": data.qpos,
                "qvel": data.qvel,
                "torque": data.ctrl,
                "obs": state.obs,
                "reward": state.reward,
                "done": state.done,
                "metrics": state.metrics,
                "condition": jax.vmap(faults.condition)(state.info["fault"], state.info["step"]),
                **{k: v for k, v in state.info.items() if k not in ("fault", "hardware")},
            }

        return jax.lax.scan(body, state, (jnp.arange(STEPS), actions))[1]


@pytest.fixture(scope="module")
def run():
    return Run()


@pytest.fixture(scope="module")
def healthy(run):
    return jax.tree.map(np.asarray, run(plan(broken=False)))


@pytest.fixture(scope="module")
def broken(run):
    return jax.tree.map(np.asarray, run(plan(broken=True)))


class TestRollout:
    def test_finite_and_in_range(self, broken):
        _, after = broken
        for leaf in jax.tree.leaves(after):
            assert np.isfinite(leaf).all()
        assert (after["reward"] >= 0).all()
        assert (after["reward"] < 0.06 + 0.03).all()
        assert after["reward"].any()
        assert not after["done"].any()

    def test_reward_is_the_sum_of_the_metrics(self, broken):
        _, after = broken
        np.testing.assert_allclose(
            after["reward"], np.maximum(sum(after["metrics"].values()), 0), atol=1e-6
        )

    @pytest.mark.parametrize("t", [0, 3, STEPS - 1])
    def test_rewards_are_of_what_is_seen(self, run, broken, t):
        before, after = jax.tree.map(lambda x: x[t, HEALTHY].astype(float), broken)
        command, action = before["command"], np.asarray(run.actions[t, HEALTHY])
        inverse, velocity, gravity = np.zeros(4), np.zeros(3), np.zeros(3)
        mujoco.mju_negQuat(inverse, after["qpos"][3:7])
        mujoco.mju_rotVecQuat(velocity, after["qvel"][:3], inverse)
        mujoco.mju_rotVecQuat(gravity, np.array([0.0, 0, -1]), inverse)
        standing = (before["contact"] + after["contact"]) > 0
        air_time = before["air_time"] + 0.02
        landed = standing & (before["air_time"] > 0)
        expected = {
            "tracking_lin_vel": 1.5 * np.exp(-4 * (command[0] - velocity[0]) ** 2),
            "tracking_ang_vel": 1.5 * np.exp(-4 * (command[1] - after["qvel"][5]) ** 2),
            "feet_air_time": 1.5 * (np.hypot(*command) > 0.1) * (landed * (air_time - 0.5)).sum(),
            "lin_vel_z": -(velocity[2] ** 2),
            "ang_vel_xy": -0.05 * (after["qvel"][3:5] ** 2).sum(),
            "orientation": -2.5 * (gravity[:2] ** 2).sum(),
            "base_height": -10 * abs(after["qpos"][2] - 0.232),
            "torques": -1e-3 * (after["torque"] ** 2).sum(),
            "dof_acc": -2.5e-7 * (((after["qvel"] - before["qvel"])[6:] / 0.02) ** 2).sum(),
            "action_rate": -0.01 * ((action - before["last_action"]) ** 2).sum(),
            "action_bias": -0.005 * np.exp(-2 * command[0]) * (action**2).sum(),
        }
        for name, value in expected.items():
            assert after["metrics"][name] == pytest.approx(0.02 * value, rel=1e-3, abs=1e-7), name
        np.testing.assert_allclose(after["air_time"], np.where(standing, 0, air_time), atol=1e-6)
        np.testing.assert_array_equal(after["last_action"], action)

    def test_condition_is_the_fault_of_the_moment(self, broken):
        before, _ = broken
        expected = np.zeros((STEPS, 8, 8), int)
        expected[ONSET:, DEAD, :2] = faults.POWER_LOSS
        expected[ONSET:, LOCKED, :2] = faults.LOCKED
        expected[:, STUCK, 7] = faults.LOCKED
        expected[:, LIMP, 4] = faults.POWER_LOSS
        np.testing.assert_array_equal(before["condition"], expected)

    def test_no_torque_without_power(self, broken):
        before, after = broken
        dead = before["condition"] == faults.POWER_LOSS
        assert (after["torque"][dead] == 0).all()
        assert (after["torque"][~dead] != 0).all()
        assert np.abs(after["torque"]).max() <= c.TORQUE_LIMIT

    def test_locked_joints_stay_where_they_were(self, broken):
        before, after = broken
        held = before["condition"] == faults.LOCKED
        moved = np.abs(after["qpos"][..., 7:] - before["lock_angle"])
        assert moved[held].max() < 0.01
        start = before["qpos"][ONSET, LOCKED, 7:9]
        np.testing.assert_array_equal(before["lock_angle"][ONSET:, LOCKED, :2], [start] * 10)
        np.testing.assert_array_equal(
            before["lock_angle"][..., ~held.any((0, 1))],
            before["qpos"][..., 7:][..., ~held.any((0, 1))],
        )
        assert moved[ONSET:, HEALTHY].max() > 0.05

    def test_nothing_is_compiled_again_and_nothing_differs_before_the_onset(
        self, run, healthy, broken
    ):
        assert run.program._cache_size() == 1
        for name in ("qpos", "qvel", "reward"):
            whole, faulty = healthy[1][name], broken[1][name]
            np.testing.assert_array_equal(whole[:, HEALTHY], faulty[:, HEALTHY])
            np.testing.assert_array_equal(whole[:ONSET, [DEAD, LOCKED]], faulty[:ONSET, [1, 2]])
        for robot in (DEAD, LOCKED):
            change = np.abs(healthy[1]["qpos"] - broken[1]["qpos"])[ONSET, robot, 7:9]
            assert change.min() > 1e-3

    def test_first_step_is_c_mujocos(self, run, broken):
        """Each robot with its own mass and friction, two of them broken, one with a late action."""
        before, after = broken
        sys = run.wrapped._sys_v
        for robot in range(8):
            model = load(friction=sys.geom_friction[robot, 0, 0])
            model.body_subtreemass[:2] += sys.body_mass[robot, 1] - model.body_mass[1]
            model.body_mass[1] = sys.body_mass[robot, 1]
            model.body_inertia[1] = sys.body_inertia[robot, 1]
            data = mujoco.MjData(model)
            data.qpos, data.qvel = before["qpos"][0, robot], before["qvel"][0, robot]
            action = np.zeros(8) if robot == DELAYED else np.asarray(run.actions[0, robot])
            qpos, *_ = advance(
                model,
                data,
                c.CONTROL_DT,
                power_loss=before["condition"][0, robot] == faults.POWER_LOSS,
                locked=before["condition"][0, robot] == faults.LOCKED,
                action=lambda _, action=action: action,
            )
            np.testing.assert_allclose(after["qpos"][0, robot], qpos[-1], atol=1e-4)

    def test_push(self, healthy, broken):
        whole, pushed = (run[1]["qvel"][:, PUSHED, :2] for run in (healthy, broken))
        np.testing.assert_array_equal(whole[:ONSET], pushed[:ONSET])
        assert np.abs(whole[ONSET] - pushed[ONSET]).max() > 0.1
        assert np.abs(pushed[ONSET]).max() < 1.5

    def test_new_command_after_an_episodes_time(self, healthy):
        command, step = healthy[0]["command"], healthy[0]["step"]
        assert step[10, PUSHED] == c.EPISODE_STEPS
        assert (command[:10, PUSHED] == command[0, PUSHED]).all()
        assert (command[10:, PUSHED] != command[0, PUSHED]).any()
        others = np.delete(command, PUSHED, 1)
        np.testing.assert_array_equal(others, np.broadcast_to(others[0], others.shape))

    def test_begins_in_the_middle_of_anothers_motion(self, run, broken):
        at = 8
        before, after = jax.tree.map(np.asarray, run(plan(broken=True, restart=at)))
        assert run.program._cache_size() == 1
        for name in ("qpos", "qvel"):
            np.testing.assert_array_equal(before[name][at, PARTNER], before[name][at, HEALTHY])
        lock = before["qpos"][at, HEALTHY, 9:11]
        np.testing.assert_array_equal(
            before["lock_angle"][at:, PARTNER, 2:4], [lock] * (STEPS - at)
        )
        assert np.abs(after["qpos"][at:, PARTNER, 9:11] - lock).max() < 0.01
        assert before["step"][at, PARTNER] == 0
        for name in ("last_action", "air_time", "contact"):
            assert not before[name][at, PARTNER].any()
        assert not np.array_equal(before["command"][at, PARTNER], before["command"][at, HEALTHY])
        others = np.delete(np.arange(8), PARTNER)
        np.testing.assert_array_equal(after["qpos"][:, others], broken[1]["qpos"][:, others])
