"""Rewards of SOLO8, one function each, before their weights (arXiv:2402.08996, released code).

Each takes the signals of one control step and returns a scalar `[]`.

Two of the paper's terms cannot act on this robot. That on limits of joint angles is left out,
because the range is 10 rad here. That on foot overload is kept for heavier robots.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from envs import solo8_constants as c


class Signals(NamedTuple):
    """Quantities that the rewards read, after a control step, in SI units and the base's own axes.

    Attributes:
        command: `[2]`, forward speed and yaw rate.
        velocity: `[3]`, linear velocity of the base.
        rotation: `[3]`, angular velocity of the base.
        gravity: `[3]`, direction of gravity, a unit vector.
        height: `[]`, height of the base.
        torque: `[8]`, torque of the last physics step.
        acceleration: `[8]`, acceleration of the joints, over the control step.
        action: `[8]`, action of this control step.
        last_action: `[8]`, action of the one before.
        foot_height: `[4]`, height of the feet's centres.
        foot_velocity: `[4, 2]`, horizontal velocity of the feet.
        foot_force: `[4]`, normal force on the feet.
        knee_force: `[4]`, normal force on the knees.
        standing: `[4]` bool, foot on the ground now or a control step ago.
        air_time: `[4]`, seconds since each foot last stood, this step included.
        landed: `[4]` bool, first step on the ground.
    """

    command: Array
    velocity: Array
    rotation: Array
    gravity: Array
    height: Array
    torque: Array
    acceleration: Array
    action: Array
    last_action: Array
    foot_height: Array
    foot_velocity: Array
    foot_force: Array
    knee_force: Array
    standing: Array
    air_time: Array
    landed: Array


def tracking_lin_vel(s: Signals) -> Array:
    """Closeness of the forward speed to its command, `exp(-(v_x* - v_x)^2 / 0.25)`, in (0, 1]."""
    return jnp.exp(-jnp.square(s.command[0] - s.velocity[0]) / c.TRACKING_WIDTH)


def tracking_ang_vel(s: Signals) -> Array:
    """Closeness of the yaw rate to its command, `exp(-(w_z* - w_z)^2 / 0.25)`, in (0, 1]."""
    return jnp.exp(-jnp.square(s.command[1] - s.rotation[2]) / c.TRACKING_WIDTH)


def feet_air_time(s: Signals) -> Array:
    """Sum over landing feet of `air time - 0.5 s`; 0 where the command's length is 0.1 or less."""
    moving = jnp.sum(s.command**2) > 0.1**2
    return moving * jnp.sum((s.air_time - c.AIR_TIME) * s.landed)


def lin_vel_z(s: Signals) -> Array:
    """Square of the vertical speed, m^2/s^2."""
    return jnp.square(s.velocity[2])


def ang_vel_xy(s: Signals) -> Array:
    """Sum of the squares of the roll and the pitch rate, rad^2/s^2."""
    return jnp.sum(s.rotation[:2] ** 2)


def orientation(s: Signals) -> Array:
    """Square of the horizontal part of gravity in the base's axes: 0 upright, 1 on the side."""
    return jnp.sum(s.gravity[:2] ** 2)


def base_height(s: Signals) -> Array:
    """Absolute distance of the base's height from 0.232 m, in metres."""
    return jnp.abs(s.height - c.HEIGHT)


def torques(s: Signals) -> Array:
    """Sum of the squares of the joints' torques, (N m)^2."""
    return jnp.sum(s.torque**2)


def dof_acc(s: Signals) -> Array:
    """Sum of the squares of the joints' accelerations, rad^2/s^4."""
    return jnp.sum(s.acceleration**2)


def action_rate(s: Signals) -> Array:
    """Sum of the squares of the actions' changes since the last control step."""
    return jnp.sum((s.last_action - s.action) ** 2)


def action_bias(s: Signals) -> Array:
    """Sum of squared actions times `exp(-2 |v_x*|)`, so that a slow robot stands still."""
    return jnp.exp(-2 * jnp.abs(s.command[0])) * jnp.sum(s.action**2)


def collision(s: Signals) -> Array:
    """Number of knees that touch the floor with more than 0.1 N.

    The released code counts upper and lower legs. Of these, only knees can meet the floor here.
    """
    return jnp.sum(s.knee_force > c.KNEE_CONTACT, dtype=s.height.dtype)


def foot_clearance(s: Signals) -> Array:
    """Sum over feet of `|height - 0.089 m| sqrt(horizontal speed)`: moving feet should be lifted.

    The heights are those of the feet's centres; 0.089 m is the height at rest plus 0.073 m.
    """
    # the root of a norm, with a finite gradient at rest
    root_speed = (jnp.sum(s.foot_velocity**2, axis=-1) + 1e-16) ** 0.25
    return jnp.sum(jnp.abs(s.foot_height - c.FOOT_REST - c.FOOT_CLEARANCE) * root_speed)


def foot_slip(s: Signals) -> Array:
    """Sum over standing feet of the square of the horizontal speed, m^2/s^2."""
    return jnp.sum(jnp.sum(s.foot_velocity**2, axis=-1) * s.standing)


def feet_contact_forces(s: Signals) -> Array:
    """Sum over feet of the normal force beyond 80 N; 0 on this robot, which weighs 17 N."""
    return jnp.sum(jnp.maximum(s.foot_force - c.FOOT_OVERLOAD, 0))


REWARDS = {
    function.__name__: function
    for function in (
        tracking_lin_vel,
        tracking_ang_vel,
        feet_air_time,
        lin_vel_z,
        ang_vel_xy,
        orientation,
        base_height,
        torques,
        dof_acc,
        action_rate,
        action_bias,
        collision,
        foot_clearance,
        foot_slip,
        feet_contact_forces,
    )
}
"""Rewards by name."""


def weighted(signals: Signals) -> dict[str, Array]:
    """All rewards of one control step, times their weight and the step's duration.

    Args:
        signals: quantities of the control step.

    Returns:
        Name -> `[]`.
    """
    return {
        name: c.SCALES[name] * c.CONTROL_DT * reward(signals) for name, reward in REWARDS.items()
    }


def total(terms: dict[str, Array], penalty: Array | float = 1.0) -> Array:
    """Reward of a control step, never negative.

    Args:
        terms: of `weighted`.
        penalty: factor on the terms below zero: 1, or less early in a reward curriculum.

    Returns:
        `[]`.
    """
    values = jnp.stack(list(terms.values()))
    return jnp.maximum(jnp.sum(jnp.where(values < 0, penalty * values, values)), 0)
