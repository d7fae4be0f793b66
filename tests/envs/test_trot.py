import numpy as np
import pytest

from envs import solo8_constants as c
from envs import trot
from envs.faults import HEALTHY, LOCKED, POWER_LOSS

STEPS, ONSET = 120, 60
POSITION, VELOCITY, ACTION = slice(5, 13), slice(13, 21), slice(21, 29)


@pytest.fixture(scope="module")
def recording():
    kinds = [HEALTHY] * 3 + [POWER_LOSS] * 6 + [LOCKED] * 6
    return trot.record(np.random.default_rng(0), kinds, STEPS, (ONSET, ONSET))


def test_hangs_by_its_torso():
    model = trot.hung()
    assert (model.nq, model.nv, model.nu) == (8, 8, 8)
    assert [model.joint(i).name for i in range(8)] == list(c.JOINTS)


def test_truth_is_a_fault_of_one_leg_from_its_onset_on(recording):
    kinds = recording.conditions.max(axis=-1)
    np.testing.assert_array_equal(kinds[:, ONSET - 1], 0)
    np.testing.assert_array_equal(kinds[:, -1], [0] * 3 + [1] * 6 + [2] * 6)
    legs = (recording.conditions[3:, -1] > 0).reshape(12, 4, 2).any(axis=2).sum(axis=1)
    np.testing.assert_array_equal(legs, 1)
    np.testing.assert_array_equal(recording.onset, [STEPS] * 3 + [ONSET] * 12)


def test_trots_as_the_script_says(recording):
    action = recording.features[..., ACTION]
    turns = trot.FREQUENCY * c.CONTROL_DT * np.arange(STEPS)
    wave = np.exp(-2j * np.pi * turns)
    found = 2 * np.abs(action.swapaxes(1, 2) @ wave) / STEPS * c.ACTION_SCALE
    np.testing.assert_allclose(found, np.tile(trot.AMPLITUDE, (15, 1)), rtol=1e-5)
    diagonal = action[..., [0, 1, 2, 3]] - action[..., [6, 7, 4, 5]]
    np.testing.assert_allclose(diagonal, 0, atol=1e-6)


def test_locked_joints_stand_and_powerless_ones_stray(recording):
    after = recording.features[:, ONSET + 1 :]
    conditions = recording.conditions[:, ONSET + 1 :]
    # peak to peak, the observation's noise included
    moved = np.ptp(after[..., POSITION], axis=1)
    locked, powerless = (conditions[:, 0] == kind for kind in (LOCKED, POWER_LOSS))
    assert moved[locked].max() < 2 * c.POSITION_NOISE + 0.01
    assert np.abs(after[..., VELOCITY])[conditions == LOCKED].max() < c.VELOCITY_NOISE + 0.02
    assert moved[~locked].min() > 0.1
    lag = np.abs(after[..., POSITION] - c.ACTION_SCALE * after[..., ACTION]).mean(axis=1)
    assert np.median(lag[powerless]) > 2 * np.median(lag[conditions[:, 0] == HEALTHY])


def test_pulses_push_to_both_sides_one_joint_at_a_time():
    torque = trot._pulses(np.random.default_rng(0), 1000)
    assert set(np.unique(torque)) == {-trot.PULSE, 0, trot.PULSE}
    assert (torque != 0).any(axis=1).sum() > 20
    assert (torque != 0).sum(axis=1).max() == 1


def test_a_leg_without_power_is_not_pushed(monkeypatch):
    """Hung by its torso, each leg moves by itself: without pulses those of the rest differ."""
    seen = []
    for torque in (0, trot.PULSE):
        monkeypatch.setattr(trot, "_pulses", lambda rng, steps, t=torque: np.full((steps, 8), t))
        broken = np.tile(np.arange(8) < 2, (20, 1))
        rng = np.random.default_rng(0)
        seen.append(trot._trot(rng, trot.hung(), POWER_LOSS, broken)[:, POSITION])
    moved = np.abs(seen[0] - seen[1]).max(axis=0)
    assert moved[:2].max() < 1e-9
    assert moved[2:].min() > 0.01


def test_a_joint_locks_where_it_is(monkeypatch):
    """Not where it was a control step ago, which is up to a tenth of a radian away."""
    monkeypatch.setattr(c, "POSITION_NOISE", 0)
    broken = np.tile(np.arange(8) < 2, (20, 1)) & (np.arange(20) >= 9)[:, None]
    q = trot._trot(np.random.default_rng(1), trot.hung(), LOCKED, broken)[:, POSITION]
    assert np.abs(q[9:, :2] - q[8, :2]).max() < 5e-3
    assert np.abs(q[8, :2] - q[7, :2]).max() > 0.05
