"""The mirror group: its axioms, the published tables, and the physics it must commute with."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import faults
from envs import mirror as m
from envs import solo8_constants as c
from envs.mirror import mirror
from tests.envs.simulate import load, spawn

ELEMENTS = range(4)
REFLECTIONS = (m.LEFT_RIGHT, m.FRONT_BACK, m.HALF_TURN)
TABLES = {
    name: getattr(m, name)
    for name in ("LEGS", "JOINTS", "VECTOR", "ROTATION", "QUATERNION", "COMMAND", "QPOS", "QVEL")
} | m.OBSERVATION


def numbers(table, seed=0):
    return np.random.default_rng(seed).normal(size=(5, table.index.shape[1]))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
class TestGroup:
    def test_composes_by_exclusive_or(self, table):
        x = numbers(table)
        for a in ELEMENTS:
            for b in ELEMENTS:
                np.testing.assert_array_equal(
                    mirror(mirror(x, table, a), table, b), mirror(x, table, a ^ b)
                )

    def test_identity_and_no_other(self, table):
        x = numbers(table)
        np.testing.assert_array_equal(mirror(x, table, m.IDENTITY), x)
        images = [tuple(mirror(x, table, a)[0]) for a in ELEMENTS]
        assert len(set(images)) == 4

    def test_traced_one_an_environment(self, table):
        x = numbers(table)[:4]
        images = jax.vmap(lambda x, a: mirror(x, table, a))(jnp.asarray(x), jnp.arange(4))
        np.testing.assert_allclose(images, [mirror(x[a], table, a) for a in ELEMENTS], rtol=1e-6)


class TestTables:
    @pytest.mark.parametrize(
        ("element", "index", "sign"),
        [(m.LEFT_RIGHT, [2, 3, 0, 1, 6, 7, 4, 5], 1), (m.FRONT_BACK, [4, 5, 6, 7, 0, 1, 2, 3], -1)],
    )
    def test_joints(self, element, index, sign):
        x = np.arange(1.0, 9)
        np.testing.assert_array_equal(mirror(x, m.JOINTS, element), sign * x[index])

    @pytest.mark.parametrize(
        ("table", "left_right", "front_back"),
        [
            (m.VECTOR, [1, -1, 1], [-1, 1, 1]),
            (m.ROTATION, [-1, 1, -1], [1, -1, -1]),
            (m.QUATERNION, [1, -1, 1, -1], [1, 1, -1, -1]),
            (m.COMMAND, [1, -1], [-1, -1]),
        ],
    )
    def test_signs(self, table, left_right, front_back):
        ones = np.ones(len(left_right))
        np.testing.assert_array_equal(mirror(ones, table, m.LEFT_RIGHT), left_right)
        np.testing.assert_array_equal(mirror(ones, table, m.FRONT_BACK), front_back)

    @pytest.mark.parametrize(("mode", "size"), [("quat", 30), ("gravity", 29)])
    def test_observation(self, mode, size):
        x = np.arange(1.0, size + 1)
        image = mirror(x, m.OBSERVATION[mode], m.FRONT_BACK)
        orientation = [1, 2, -3, -4] if mode == "quat" else [-1, 2, 3]
        n = len(orientation)
        np.testing.assert_array_equal(image[: n + 2], [*orientation, -(n + 1), -(n + 2)])
        np.testing.assert_array_equal(image[n + 2 : n + 6], -x[n + 6 : n + 10])
        np.testing.assert_array_equal(image[-4:], -x[-8:-4])

    @pytest.mark.parametrize("element", ELEMENTS)
    def test_default_pose_is_its_own_image(self, element):
        np.testing.assert_array_equal(mirror(c.DEFAULT_POSE, m.JOINTS, element), c.DEFAULT_POSE)

    @pytest.mark.parametrize("condition", [faults.POWER_LOSS, faults.LOCKED])
    @pytest.mark.parametrize("joint", range(2))
    @pytest.mark.parametrize("leg", ELEMENTS)
    def test_element_takes_its_leg_to_the_front_left(self, leg, joint, condition):
        broken = faults.fault(condition, (c.JOINTS[2 * leg + joint],), onset=7)
        image = m.mirror_fault(broken, leg)
        expected = condition * (np.arange(8) == joint)
        np.testing.assert_array_equal(faults.condition(image, 7), expected)
        assert not np.asarray(image.power_loss & image.locked).any()
        assert image.onset == 7


class TestPhysics:
    """Twenty steps of random torques with feet on the floor, and their images."""

    def roll(self, model, element, locked=None):
        random = np.random.default_rng(0)
        start = spawn(model, height=0.23)
        qpos, qvel = start.qpos.copy(), 0.3 * random.normal(size=14)
        qpos[:3] += [0.1, 0.2, 0]
        qpos[3:7] += 0.05 * random.normal(size=4)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        qpos[7:] += 0.1 * random.normal(size=8)
        angle = qpos[7:].copy()
        data = mujoco.MjData(model)
        data.qpos, data.qvel = mirror(qpos, m.QPOS, element), mirror(qvel, m.QVEL, element)
        if locked is not None:
            data.eq_active = locked[m.JOINTS.index[element]]
            model.eq_data[:, 0] = mirror(angle, m.JOINTS, element)
        touched = False
        for _ in range(20):
            data.ctrl = mirror(random.uniform(-1, 1, 8), m.JOINTS, element)
            mujoco.mj_step(model, data)
            touched |= data.sensordata.any()
        assert touched
        return mirror(data.qpos, m.QPOS, element), mirror(data.qvel, m.QVEL, element)

    @pytest.mark.parametrize("robot", c.ROBOTS)
    @pytest.mark.parametrize("element", REFLECTIONS)
    def test_exact_for_the_symmetric_robot(self, robot, element):
        model = load(robot, symmetric=True)
        for ours, theirs in zip(self.roll(model, element), self.roll(model, 0), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)

    @pytest.mark.parametrize("element", REFLECTIONS)
    def test_exact_with_a_locked_joint(self, element):
        model, locked = load(symmetric=True), np.arange(8) == 1
        for ours, theirs in zip(
            self.roll(model, element, locked), self.roll(model, 0, locked), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)

    @pytest.mark.parametrize("element", REFLECTIONS)
    def test_close_for_the_robot_as_it_is(self, element):
        model = load()
        found, expected = self.roll(model, element)[0], self.roll(model, 0)[0]
        difference = np.abs(found - expected).max()
        assert 1e-9 < difference < 1e-2
