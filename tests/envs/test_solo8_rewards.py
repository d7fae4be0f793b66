"""Each reward at values worked out by hand, and all of them under the mirror group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import mirror as m
from envs import solo8_constants as c
from envs.mirror import mirror
from envs.solo8_rewards import REWARDS, Signals, foot_clearance, total, weighted

REST = Signals(
    command=jnp.zeros(2),
    velocity=jnp.zeros(3),
    rotation=jnp.zeros(3),
    gravity=jnp.array([0.0, 0, -1]),
    height=jnp.array(0.232),
    torque=jnp.zeros(8),
    acceleration=jnp.zeros(8),
    action=jnp.zeros(8),
    last_action=jnp.zeros(8),
    foot_height=jnp.full(4, 0.016),
    foot_velocity=jnp.zeros((4, 2)),
    foot_force=jnp.full(4, 4.25),
    knee_force=jnp.zeros(4),
    standing=jnp.ones(4, bool),
    air_time=jnp.full(4, 0.02),
    landed=jnp.zeros(4, bool),
)
FIRST = jnp.arange(4) == 0


@pytest.mark.parametrize(
    ("name", "signals", "value"),
    [
        ("tracking_lin_vel", {"command": jnp.array([0.5, 0])}, 0.0110364),
        ("tracking_lin_vel", {"command": jnp.array([0.25, 0])}, 0.0233640),
        ("tracking_ang_vel", {"rotation": jnp.array([0, 0, -0.5])}, 0.0110364),
        (
            "feet_air_time",
            {"command": jnp.array([0.5, 0]), "air_time": jnp.full(4, 0.3), "landed": FIRST},
            -0.006,
        ),
        ("feet_air_time", {"air_time": jnp.full(4, 0.3), "landed": FIRST}, 0),
        ("lin_vel_z", {"velocity": jnp.array([9, 9, 0.5])}, -0.005),
        ("ang_vel_xy", {"rotation": jnp.array([1.0, 2, 9])}, -0.005),
        ("orientation", {"gravity": jnp.array([0, -jnp.sin(0.1), -jnp.cos(0.1)])}, -4.983e-4),
        ("base_height", {"height": jnp.array(0.212)}, -0.004),
        ("torques", {"torque": jnp.full(8, 0.5)}, -4e-5),
        ("dof_acc", {"acceleration": jnp.full(8, 100.0)}, -4e-4),
        ("action_rate", {"action": jnp.full(8, 0.5)}, -4e-4),
        ("action_bias", {"command": jnp.array([0.5, 0]), "action": jnp.ones(8)}, -2.943e-4),
        ("collision", {"knee_force": jnp.array([0.05, 0.2, 0, 30])}, -0.2),
        ("foot_clearance", {"foot_velocity": FIRST[:, None] * jnp.array([0.15, 0.2])}, -3.65e-4),
        (
            "foot_slip",
            {"foot_velocity": jnp.full((4, 2), 0.5), "standing": FIRST},
            -0.025,
        ),
        ("feet_contact_forces", {"foot_force": jnp.array([90.0, 79, 0, 100])}, -0.006),
    ],
)
def test_closed_form(name, signals, value):
    found = weighted(REST._replace(**signals))[name]
    np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-9)


def test_standing_still_on_command_is_all_there_is_to_gain():
    terms = weighted(REST)
    assert terms.keys() == REWARDS.keys() == c.SCALES.keys()
    assert total(terms) * c.EPISODE_STEPS == pytest.approx(24, abs=1e-2)


def test_total_is_never_negative():
    assert total(weighted(REST._replace(height=jnp.array(2.0)))) == 0


def test_penalty_scales_the_terms_below_zero_only():
    terms = weighted(REST._replace(height=jnp.array(0.132)))
    full, half, none = (float(total(terms, penalty)) for penalty in (1, 0.5, 0))
    assert none == pytest.approx(0.06, abs=1e-6)
    assert full == pytest.approx(0.04, abs=1e-4)
    assert half == pytest.approx((full + none) / 2, abs=1e-6)


def test_gradient_at_rest_is_finite():
    def loss(velocity):
        return foot_clearance(REST._replace(foot_velocity=velocity))

    assert jnp.isfinite(jax.grad(loss)(jnp.zeros((4, 2)))).all()


@pytest.mark.parametrize("element", [m.LEFT_RIGHT, m.FRONT_BACK, m.HALF_TURN])
def test_every_reward_is_the_same_for_the_mirrored_robot(element):
    random = np.random.default_rng(0)
    tables = {
        "command": m.COMMAND,
        "velocity": m.VECTOR,
        "rotation": m.ROTATION,
        "gravity": m.VECTOR,
        **dict.fromkeys(("torque", "acceleration", "action", "last_action"), m.JOINTS),
        **dict.fromkeys(("foot_height", "foot_force", "knee_force", "air_time"), m.LEGS),
    }
    signals = REST._replace(
        height=jnp.array(0.2),
        foot_velocity=random.normal(size=(4, 2)),
        standing=np.array([True, False, False, True]),
        landed=np.array([True, False, False, False]),
        **{name: random.normal(size=table.index.shape[1]) for name, table in tables.items()},
    )
    legs = m.LEGS.index[element]
    image = signals._replace(
        foot_velocity=signals.foot_velocity[legs] * m.VECTOR.sign[element, :2],
        standing=signals.standing[legs],
        landed=signals.landed[legs],
        **{name: mirror(getattr(signals, name), table, element) for name, table in tables.items()},
    )
    before, after = weighted(signals), weighted(image)
    for name in REWARDS:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, err_msg=name)
