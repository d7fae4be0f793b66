"""One compiled rollout of eight robots: the only program of the suite with MJX physics in it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.wrappers import training

from envs import faults
from envs import solo8_constants as c
from envs.solo8 import Config, Hardware, Solo8, randomize
from tests.envs.simulate import advance, load

# an episode of the physics
pytestmark = pytest.mark.seconds(60)

KEY = jax.random.PRNGKey(0)


class Plan(NamedTuple):
    """What eight robots live through, all of it data to one program."""

    fault: faults.Fault
    delayed: jax.Array
    push_phase: jax.Array
    first_step: jax.Array
    restart: int


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
                "brax": (data.q, data.qd, data.x, data.xd, data.contact.dist),
                "forces": (
                    jnp.einsum("nij,nj->ni", data._impl.M, data.qacc) - data.qfrc_smooth,
                    data.qfrc_constraint,
                ),
                "mjx": (data.xpos, data.xquat, data._impl.contact.dist, data.time),
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

    def test_what_brax_holds_is_what_mjx_holds(self, broken):
        after = broken[1]
        q, qd, x, xd, distance = after["brax"]
        position, quaternion, mjx_distance, time = after["mjx"]
        np.testing.assert_array_equal(q, after["qpos"])
        np.testing.assert_array_equal(qd, after["qvel"])
        np.testing.assert_array_equal(x.pos, position[:, :, 1:])
        np.testing.assert_array_equal(x.rot, quaternion[:, :, 1:])
        np.testing.assert_array_equal(distance, mjx_distance)
        # positions are those at the start of the last physics step, and so are their velocities
        moved = np.diff(position[:, HEALTHY, 1], axis=0) / np.diff(time[:, HEALTHY])[:, None]
        assert np.abs(xd.vel[1:, HEALTHY, 0] - moved).max() < 0.3
        assert np.corrcoef(xd.vel[1:, HEALTHY, 0, 2], moved[:, 2])[0, 1] > 0.8

    def test_forces_of_constraints_are_what_is_left_of_newtons_law(self, broken):
        left, found = broken[1]["forces"]
        assert np.abs(found).max() > 1
        assert np.quantile(np.abs(left - found), 0.95) < 1e-3

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
