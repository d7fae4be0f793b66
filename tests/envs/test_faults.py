"""Power loss and locking: as data without physics, then what they do to a standing robot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import faults
from envs import solo8_constants as c
from envs.solo8 import motor_torque
from tests.envs.simulate import advance, fall, joints, load, spawn

BOTH = ("HFE", "KFE")


@pytest.fixture(scope="module")
def model():
    return load(symmetric=True)


@pytest.fixture
def standing(model):
    data = spawn(model)
    advance(model, data, 2)
    return data


class TestMotorTorque:
    @pytest.mark.parametrize(
        ("error", "velocity", "torque"),
        [(-0.4, 0, -1.2), (-1, 0, -1.5), (1, 0, 1.5), (0.4, 2, 0.6), (0, 100, -1.5)],
    )
    def test_closed_form(self, error, velocity, torque):
        error, velocity = np.full(8, float(error)), np.full(8, float(velocity))
        dead = np.arange(8) < 2
        np.testing.assert_allclose(motor_torque(error, velocity, dead), torque * ~dead, atol=1e-12)
        assert (motor_torque(jnp.array(error), jnp.array(velocity), dead)[:2] == 0).all()


class TestFault:
    def test_begins_at_its_onset_and_stays(self):
        power_loss = faults.fault(faults.POWER_LOSS, ("HR_KFE",), onset=3)
        locked = faults.fault(faults.LOCKED, ("FL_HFE", "FL_KFE"), onset=3)
        for step, on in [(2, False), (3, True), (399, True)]:
            dead, held = faults.active(power_loss, step)
            np.testing.assert_array_equal(dead, on * (np.arange(8) == 7))
            assert not held.any()
            dead, held = faults.active(locked, step)
            np.testing.assert_array_equal(held, on * (np.arange(8) < 2))
            assert not dead.any()

    @pytest.mark.parametrize("condition", [faults.POWER_LOSS, faults.LOCKED])
    @pytest.mark.parametrize("parts", [("HFE",), ("KFE",), BOTH], ids="+".join)
    @pytest.mark.parametrize(("number", "leg"), list(enumerate(c.LEGS)))
    def test_is_of_its_joints_and_its_leg(self, number, leg, parts, condition):
        fault = faults.fault(condition, tuple(f"{leg}_{part}" for part in parts))
        broken = {
            faults.POWER_LOSS: np.asarray(fault.power_loss),
            faults.LOCKED: np.asarray(fault.locked),
        }
        expected = np.array([joint[:2] == leg and joint[3:] in parts for joint in c.JOINTS])
        np.testing.assert_array_equal(broken.pop(condition), expected)
        assert not broken.popitem()[1].any()
        np.testing.assert_array_equal(faults.condition(fault, 0), condition * expected)
        assert faults.leg(fault) == number

    def test_leg_of_many_robots_and_of_one_joint_a_leg(self):
        """Both bodies, all legs at once, the last axis the joints; health is leg 0."""
        for count in (4, 8):
            one = np.eye(count, dtype=bool)
            none = np.zeros_like(one)
            legs = np.arange(count) // (count // 4)
            for fault in (faults.Fault(one, none, 0), faults.Fault(none, one, 0)):
                np.testing.assert_array_equal(faults.leg(fault), legs)
            assert not faults.leg(faults.Fault(none, none, 0)).any()

    @pytest.mark.parametrize(("number", "leg"), list(enumerate(c.LEGS)))
    def test_drawn_of_one_leg_alone(self, number, leg):
        """Each set of joints of it and each condition is drawn, and no other leg."""
        mixture = faults.ANY_LEG._replace(legs=(leg,), probabilities=(0.0, 0.5, 0.5))
        keys = jax.random.split(jax.random.key(number), 64)
        drawn = jax.vmap(lambda key: faults.sample(key, mixture))(keys)
        np.testing.assert_array_equal(faults.leg(drawn), number)
        for broken in (np.asarray(drawn.power_loss), np.asarray(drawn.locked)):
            sets = {tuple(joints) for joints in broken.reshape(-1, 4, 2)[:, number]}
            assert sets == {(False, False), (True, False), (False, True), (True, True)}
            assert not np.delete(broken.reshape(-1, 4, 2), number, axis=1).any()

    def test_unknown_joint(self):
        with pytest.raises(ValueError, match="XX_HFE"):
            faults.fault(faults.LOCKED, ("XX_HFE",))

    @pytest.mark.parametrize("onset", [-1, c.EPISODE_STEPS])
    def test_onset_beyond_the_episode(self, onset):
        with pytest.raises(ValueError, match=f"onset: {onset}; an episode has control steps 0 to"):
            faults.fault(faults.LOCKED, ("FL_HFE",), onset)

    def test_unknown_condition(self):
        with pytest.raises(ValueError, match="condition: 3 not in 0, 1, 2"):
            faults.fault(3, ("FL_HFE",))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("probabilities", (0.5, 0.5, 0.5)),
            ("probabilities", (-0.5, 0.5, 1.0)),
            ("legs", ("FL", "XX")),
            ("legs", ()),
            ("both", 1.5),
            ("onset", (5, 4)),
            ("onset", (-1, 4)),
        ],
    )
    def test_mixture_that_cannot_be(self, field, value):
        faults.check(faults.PAPER)
        with pytest.raises(ValueError, match=f"faults.{field}: "):
            faults.check(faults.ANY_LEG._replace(**{field: value}))

    def test_condition(self):
        fault = faults.Fault(np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1], bool), 5)
        found = faults.condition(fault, 5)
        np.testing.assert_array_equal(
            found, [faults.HEALTHY, faults.POWER_LOSS, faults.LOCKED, faults.LOCKED]
        )
        np.testing.assert_array_equal(faults.condition(fault, 4), 4 * [faults.HEALTHY])

    def test_mixture(self):
        n = 8000
        keys = jax.random.split(jax.random.key(0), n)
        drawn = jax.vmap(lambda key: faults.sample(key, faults.ANY_LEG))(keys)
        power_loss, locked = np.asarray(drawn.power_loss), np.asarray(drawn.locked)
        assert not (power_loss.any(1) & locked.any(1)).any()
        for broken in (power_loss, locked):
            share = broken.any(1).mean()
            assert share == pytest.approx(0.25, abs=0.02)
            legs = broken.reshape(n, 4, 2)
            assert legs.any(2).sum(1).max() == 1
            np.testing.assert_allclose(legs.any(2).mean(0), 0.25 / 4, atol=0.01)
            assert (legs.all(2).any(1).sum() / broken.any(1).sum()) == pytest.approx(0.5, abs=0.04)
            np.testing.assert_allclose(broken.mean(0), 0.75 * 0.25 / 4, atol=0.01)
        assert (drawn.onset.min(), drawn.onset.max()) == (0, 398)
        assert drawn.onset.mean() == pytest.approx(199, abs=5)

    def test_paper(self):
        keys = jax.random.split(jax.random.key(0), 200)
        drawn = jax.vmap(lambda key: faults.sample(key, faults.PAPER))(keys)
        broken = np.asarray(drawn.power_loss | drawn.locked)
        assert not broken[:, 2:].any()
        np.testing.assert_array_equal(broken[:, 0], broken[:, 1])
        assert not drawn.onset.any()


class TestEngage:
    LOCKED = np.array([True] * 4 + [False] * 4)

    def test_without_play_always_at_the_angle(self):
        q = np.array([0.0, 0.1, -0.1, 0.0] * 2)
        target, on = faults.engage(q, np.zeros(8), self.LOCKED, np.zeros(8), (0, 0))
        np.testing.assert_array_equal(target, 0)
        np.testing.assert_array_equal(on, self.LOCKED)

    def test_free_between_the_edges(self):
        q = np.array([0.1, -0.05, -0.3, -0.05] * 2)
        velocity = np.array([0, 0, 0, 20.0] * 2)
        target, on = faults.engage(q, velocity, self.LOCKED, np.zeros(8), (0.2, 0.0))
        np.testing.assert_array_equal(on, [True, False, True, True] + [False] * 4)
        np.testing.assert_allclose(target[on], [0, -0.2, 0])

    def test_clip_of_the_paper(self):
        q = np.array([0.1, -0.05, -0.3, 0.0] * 2)
        clipped = faults.clip_joints(q, self.LOCKED, np.zeros(8), c.PAPER_LOCK_PLAY)
        np.testing.assert_allclose(
            clipped, [0, -0.05, -0.05 * np.pi, 0, 0.1, -0.05, -0.3, 0], rtol=1e-6, atol=1e-9
        )


class TestPowerLoss:
    @pytest.mark.parametrize(
        ("names", "earliest", "latest"), [(BOTH, 0.4, 0.8), (("KFE",), 1.0, 1.7), (("HFE",), 4, 4)]
    )
    def test_a_standing_robot_falls(self, model, names, earliest, latest):
        times = []
        for leg in c.LEGS:
            data = spawn(model)
            advance(model, data, 2)
            *_, torque, contact = advance(model, data, 4, power_loss=joints(leg, *names))
            assert (torque[:, joints(leg, *names)] == 0).all()
            times.append(np.nan_to_num(fall(contact), nan=4))
        assert earliest <= min(times) <= max(times) <= latest
        assert max(times) - min(times) <= c.PHYSICS_DT + 1e-9

    def test_a_healthy_one_stands(self, model, standing):
        *_, contact = advance(model, standing, 4)
        assert np.isnan(fall(contact))


class TestLocking:
    @pytest.mark.parametrize("leg", c.LEGS)
    def test_a_standing_robot_keeps_standing(self, model, leg):
        data = spawn(model)
        # a free robot, too, sinks by 5 mm after 2 s, where the page locks: MuJoCo's feet creep
        advance(model, data, 4)
        height = data.qpos[2]
        qpos, *_, contact = advance(model, data, 4, locked=joints(leg, *BOTH))
        assert np.isnan(fall(contact))
        assert np.abs(qpos[:, 2] - height).max() < 0.002

    @pytest.mark.parametrize("leg", c.LEGS)
    def test_holds_against_full_torque(self, model, standing, leg):
        locked, start = joints(leg, *BOTH), standing.qpos[7:].copy()
        qpos, qvel, *_ = advance(
            model, standing, 2, locked=locked, torque=lambda t: 1.5 * locked * np.sin(4 * np.pi * t)
        )
        assert np.abs(qpos[:, 7:] - start)[:, locked].max() < 2e-3
        assert np.sqrt((qvel[:, 6:][:, locked] ** 2).mean()) < 0.1

    def test_others_move(self, model, standing):
        locked, start = joints("FL", "KFE"), standing.qpos[7:].copy()
        qpos, *_ = advance(model, standing, 0.3, locked=locked, action=lambda t: np.ones(8))
        moved = np.abs(qpos[-1, 7:] - start)
        assert moved[1] < 2e-3
        assert np.delete(moved, 1).min() > 0.02

    def test_a_lock_that_is_off_was_never_there(self, standing, model):
        bare = load(symmetric=True)
        bare.opt.disableflags |= 1 << 1  # equality constraints
        free, bound = spawn(bare), spawn(model)

        def push(time):
            return np.sin(20 * time + np.arange(8))

        def both(seconds, **lock):
            for this, data in ((bare, free), (model, bound)):
                qpos, qvel, *_ = advance(
                    this, data, seconds, torque=push, **(lock if this is model else {})
                )
                yield np.hstack([qpos, qvel])

        before = list(both(0.5))
        np.testing.assert_allclose(*before, atol=1e-9)
        during = list(both(0.1, locked=joints("HL", *BOTH)))
        assert np.abs(during[0] - during[1]).max() > 0.01
        for name in ("qpos", "qvel", "qacc_warmstart"):
            getattr(free, name)[:] = getattr(bound, name)
        np.testing.assert_allclose(*both(0.1), atol=1e-9)


class TestPlay:
    def hung(self, model, seconds=2, **kwargs):
        locked = joints("FL", *BOTH)
        data = spawn(model, height=1.0)
        qpos, qvel, *_ = advance(
            model,
            data,
            seconds,
            locked=locked,
            play=c.PAPER_LOCK_PLAY,
            torque=lambda t: 1.5 * locked * np.sin(4 * np.pi * t),
            **kwargs,
        )
        return (qpos[:, 7:] - c.DEFAULT_POSE)[:, locked], qvel[:, 6:][:, locked]

    @pytest.fixture
    def weightless(self):
        model = load(symmetric=True)
        model.opt.gravity[:] = 0
        return model

    def test_moves_between_the_edges(self, weightless):
        moved, _ = self.hung(weightless)
        np.testing.assert_allclose(moved.min(0), -0.05 * np.pi, atol=0.02)
        np.testing.assert_allclose(moved.max(0), 0, atol=0.02)

    def test_the_papers_clip_holds_the_angle_and_lets_the_velocity_wind_up(self, weightless):
        moved, velocity = self.hung(weightless, seconds=0.15, clip=True)
        assert moved.min() >= -0.05 * np.pi - 1e-6
        assert moved.max() <= 1e-6
        still = np.abs(moved[-1] - moved[-2]) < 1e-6
        assert still.any()
        assert np.abs(velocity[-1, still]).max() > 3

    def test_the_papers_clip_with_the_velocity_stopped_agrees(self, weightless):
        moved, _ = self.hung(weightless, clip=True, stop=True)
        assert moved.min() >= -0.05 * np.pi - 1e-6
        constraint, _ = self.hung(weightless)
        np.testing.assert_allclose(moved.min(0), constraint.min(0), atol=0.02)
        np.testing.assert_allclose(moved.max(0), constraint.max(0), atol=0.02)
