"""The robot against the published numbers and C MuJoCo against closed forms."""

import mujoco
import numpy as np
import pytest
from mujoco import mjx

from envs import solo8_constants as c
from envs import solo8_model
from envs.solo8 import feet_motion, feet_positions
from tests.envs.simulate import advance, load, spawn


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.mark.parametrize(("robot", "mass"), [("v7", 1.73192381), ("odri", 2.17784899)])
def test_mass(robot, mass):
    assert load(robot).body_mass.sum() == pytest.approx(mass, abs=1e-8)


def test_sizes_and_order(model):
    assert (model.nq, model.nv, model.nu, model.neq) == (15, 14, 8, 8)
    expected = ["FL_HFE", "FL_KFE", "FR_HFE", "FR_KFE", "HL_HFE", "HL_KFE", "HR_HFE", "HR_KFE"]
    assert list(c.JOINTS) == expected
    assert [model.joint(i + 1).name for i in range(8)] == expected
    assert [model.jnt_qposadr[model.joint(name).id] for name in expected] == list(range(7, 15))
    assert [model.joint(model.actuator_trnid[i, 0]).name for i in range(8)] == expected
    assert [model.joint(i).name for i in model.eq_obj1id] == expected
    assert not model.eq_active0.any()
    np.testing.assert_array_equal(model.jnt_axis[1:], np.tile([0, 1, 0], (8, 1)))
    np.testing.assert_allclose(model.dof_armature[6:], 0.00036207, atol=1e-9)


def test_inertia_of_a_right_leg_is_the_left_one_turned(model):
    left, right = (model.body(f"{leg}_upper").id for leg in ("FL", "FR"))
    turn = np.diag([-1.0, -1.0, 1.0])

    def tensor(body):
        axes = np.zeros(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[body])
        axes = axes.reshape(3, 3)
        return axes @ np.diag(model.body_inertia[body]) @ axes.T

    np.testing.assert_allclose(tensor(right), turn @ tensor(left) @ turn, atol=1e-12)
    np.testing.assert_allclose(tensor(left)[1, 2], -4.589e-5, atol=1e-10)
    np.testing.assert_allclose(model.body_ipos[right], turn @ model.body_ipos[left], atol=1e-12)


def test_only_the_floor_is_ever_touched(model):
    # folded so that every leg goes through the torso and its neighbour
    data = spawn(model, height=1.0)
    data.qpos[7:] = np.array([np.pi / 2, 3.0] * 2 + [-np.pi / 2, -3.0] * 2)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0
    data.qpos[2] = -1
    mujoco.mj_forward(model, data)
    assert data.ncon == 12


def test_default_pose():
    expected = np.pi / 4 * np.array([1, -2, 1, -2, -1, 2, -1, 2])
    np.testing.assert_allclose(c.DEFAULT_POSE, expected)
    heights = -feet_positions(c.ROBOTS["v7"], c.DEFAULT_POSE)[:, 2] + c.FOOT_RADIUS
    np.testing.assert_allclose(heights, 0.2422, atol=1e-4)


class TestFeet:
    def test_closed_form(self):
        feet = feet_positions(c.ROBOTS["v7"], np.array([0.3, -0.9] + [0.0] * 6))
        np.testing.assert_allclose(feet[0], [0.23765956, 0.14795, -0.28490754], atol=1e-6)
        np.testing.assert_allclose(feet[3], [-0.1946, -0.14795, -0.32], atol=1e-6)

    @pytest.mark.parametrize("robot", c.ROBOTS)
    def test_motion_is_mujocos(self, robot):
        model, random = load(robot), np.random.default_rng(0)
        data = spawn(model)
        data.qpos[:] += random.normal(size=15)
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qvel[:] = random.normal(size=14)
        mujoco.mj_forward(model, data)
        height, velocity = feet_motion(
            c.ROBOTS[robot], np.float32(data.qpos), np.float32(data.qvel)
        )
        for i, leg in enumerate(c.LEGS):
            geom = model.geom(f"{leg}_foot").id
            assert height[i] == pytest.approx(data.geom_xpos[geom, 2], abs=1e-5)
            found = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_GEOM, geom, found, 0)
            np.testing.assert_allclose(velocity[i], found[3:5], atol=1e-5)


def test_settles_at_the_published_height(model):
    """Four seconds after the spawn; the feet of a stance creep in MuJoCo, so the time matters."""
    qpos, _, torque, contact = advance(model, spawn(model), 4)
    assert qpos[-1, 2] == pytest.approx(0.218, abs=0.003)
    assert qpos[-1, 7] == pytest.approx(0.731, abs=0.01)
    assert qpos[-1, 8] == pytest.approx(-1.749, abs=0.01)
    assert abs(torque[-1, 1]) == pytest.approx(0.54, abs=0.02)
    assert contact[-1, solo8_model.FEET].sum() == pytest.approx(16.99, abs=0.2)
    assert not contact[-1, : solo8_model.FEET.start].any()


def test_touch_tells_knees_and_torso_apart(model):
    """Fallen on one side without power: knees and torso carry what the feet do not."""
    data = spawn(model)
    *_, contact = advance(model, data, 4, power_loss=np.ones(8, bool))
    weight = 9.81 * model.body_mass.sum()
    assert contact[-1].sum() == pytest.approx(weight, rel=0.02)
    assert contact[-1, solo8_model.TORSO] > c.TORSO_CONTACT


@pytest.mark.parametrize("lying", [False, True])
def test_touch_is_what_the_sensors_read(lying):
    model = load()
    data = spawn(model)
    if lying:
        # on knees and torso, feet in the air or not
        data.qpos[7:] = np.tile([1.2, -0.4], 4)
        data.qpos[3:7] = [1, 0.1, 0.05, 0]
    advance(model, data, 0.6, torque=None if not lying else lambda _: np.zeros(8))
    parts = (solo8_model.KNEES, slice(0, 1)) if lying else (solo8_model.FEET,)
    assert all(data.sensordata[part].any() for part in parts)
    found = solo8_model.touch(mjx.put_model(model), mjx.put_data(model, data))
    np.testing.assert_allclose(found, data.sensordata, atol=1e-3)
