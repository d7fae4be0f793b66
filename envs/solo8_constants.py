"""Constants of SOLO8 and of its training, each with its source.

[FMT]: released code of arXiv:2402.08996 (github.com/Calvindrinks/FMT, commit 594b897).
[ODRI]: github.com/open-dynamic-robot-initiative/robot_properties_solo and
github.com/Gepetto/example-robot-data. [own]: chosen here.
"""

from typing import NamedTuple

import numpy as np

LEGS = ("FL", "FR", "HL", "HR")
"""Names of the legs, front or hind, left or right; the order of every array over legs."""

JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("HFE", "KFE"))
"""Names of the joints, hip and knee of each leg, all about +y; the order of all arrays. [FMT]"""


class Body(NamedTuple):
    """Rigid body of a left leg, or the torso.

    Attributes:
        mass: kg.
        com: centre of mass in the body's frame, m.
        inertia: xx, yy, zz, xy, xz, yz about the centre of mass, kg m^2.
    """

    mass: float
    com: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]


class Robot(NamedTuple):
    """Bodies and lengths of a SOLO8. Lengths are in metres, of the front left leg.

    Attributes:
        torso: body of the torso.
        upper: body of the upper leg.
        lower: body of the lower leg.
        foot: body of the foot, which is welded to the lower leg.
        hip: x and y of the hip joint in the torso.
        knee_y: y of the knee joint in the upper leg.
        foot_y: y of the foot in the lower leg.
    """

    torso: Body
    upper: Body
    lower: Body
    foot: Body
    hip: tuple[float, float]
    knee_y: float
    foot_y: float


_FOOT = Body(0.00693606, (0, 0, 0.00035767), (5.7e-7, 8.4e-7, 5.3e-7, 0, 0, 0))

ROBOTS = {
    # the authors' measured robot, which they train on [FMT]
    "v7": Robot(
        torso=Body(
            1.02195485,
            (-0.00012331, 0.00031510, -0.00026969),
            (0.00533767, 0.01314118, 0.01821833, -5.16e-6, 1.22e-6, 6.1e-7),
        ),
        upper=Body(
            0.14737324,
            (1.53e-5, 0.0176764, -0.0783823),
            (4.1540e-4, 4.1637e-4, 2.982e-5, 0, 1e-7, -4.589e-5),
        ),
        lower=Body(
            0.02318294,
            (0, 0.00776716, -0.07003876),
            (8.508e-5, 8.580e-5, 1.39e-6, 0, 0, -2.00e-6),
        ),
        foot=_FOOT,
        hip=(0.1946, 0.1015),
        knee_y=0.03745,
        foot_y=0.009,
    ),
    # the open hardware [ODRI]
    "odri": Robot(
        torso=Body(1.43315091, (0, 0, 0), (0.00578574, 0.01938108, 0.02476124, 0, 0, 0)),
        upper=Body(
            0.14853845,
            (1.377e-5, 0.01935853, -0.078707),
            (4.1107e-4, 4.1193e-4, 3.024e-5, 0, 1e-7, 4.671e-5),
        ),
        lower=Body(
            0.03070001,
            (0, 0.00787644, -0.08928215),
            (1.2024e-4, 1.2029e-4, 2.16e-6, 0, 0, 3.05e-6),
        ),
        foot=_FOOT,
        hip=(0.19, 0.1046),
        knee_y=0.03745,
        foot_y=0.008,
    ),
}
"""Robots by name."""

SEGMENT = 0.16
"""Length from hip to knee and from knee to foot, along z, m. [FMT, ODRI]"""
FOOT_RADIUS = 0.0159
"""Radius of a foot, m. [FMT]"""
KNEE_RADIUS = 0.0185
"""Radius of a knee, m. [FMT]"""
TORSO_SIZE = (0.421, 0.201, 0.042)
"""Full size of the torso's box, m. [FMT]"""
FLOOR_FRICTION = 0.8
"""Friction of the floor before randomisation. [own]"""
ARMATURE = 81 * 4.47e-6
"""Rotor inertia behind the 9:1 belt, kg m^2; [FMT] trains without it though its URDF has it."""

# Locking as a joint equality: 0.7 mrad under 1.5 N m at 2 Hz with four solver iterations. [own]
LOCK_SOLREF = (0.01, 1)
LOCK_SOLIMP = (0.99, 0.999, 0.001, 0.5, 2)
PAPER_LOCK_PLAY = (0.05 * np.pi, 0.0)
"""Radians below and above the locked angle that the paper's code leaves free. [FMT]"""

DEFAULT_POSE = np.array([np.pi / 4, -np.pi / 2] * 2 + [-np.pi / 4, np.pi / 2] * 2)
"""Joint angles of the default pose, knees inwards, rad. [FMT]"""
SPAWN_HEIGHT = 0.25
"""Height of the torso at the start, m. [FMT]"""
SPAWN_VELOCITY = 0.25
"""Bound of each component of the base's first velocity, m/s and rad/s. [FMT]"""

ACTION_SCALE = 0.25
"""Radians of the target angle that an action of 1 means. [FMT]"""
ACTION_LIMIT = 10.0
"""Bound of an action before it is scaled; see `solo8.Config`. [own]"""
KP, KD = 3.0, 0.3
"""Gains in N m/rad and N m s/rad; the hardware's own reference is 5 and 0.1 [ODRI]. [FMT]"""
TORQUE_LIMIT = 1.5
"""Largest torque of a motor, N m, at 6.67 A. [FMT]"""
JOINT_RANGE = 10.0
"""Range of a joint, rad: the URDF's limit, three turns of a leg. [FMT]"""
PHYSICS_DT, SUBSTEPS = 0.005, 4
"""Duration of a physics step, s, and its number in a control step: 200 Hz and 50 Hz. [FMT]"""
CONTROL_DT = PHYSICS_DT * SUBSTEPS
"""Duration of a control step, s."""
EPISODE_STEPS = 400
"""Number of control steps of an episode, 8 s. [FMT]"""

# observation [FMT]
COMMAND_SCALE = (2.0, 0.25)
VELOCITY_SCALE = 0.05
ORIENTATION_NOISE, POSITION_NOISE, VELOCITY_NOISE = 0.05, 0.01, 1.5 * VELOCITY_SCALE
"""Half-widths of the uniform noise on observations, after scaling."""
CLIP = 100.0
"""Bound of observations; of actions too in the released code."""

# commands [FMT]
YAW_RATE = 0.5
"""Bound of the yaw rate's command, rad/s."""
SLOW, STOPPED = 0.4, 0.1
"""Speeds in m/s: below the first the yaw command is halved, below the second both are zero."""

# contacts, N [FMT]
FOOT_CONTACT, KNEE_CONTACT, TORSO_CONTACT, FOOT_OVERLOAD = 1.0, 0.1, 1.0, 80.0

# rewards [FMT]
TRACKING_WIDTH = 0.25
"""Width of the tracking rewards, the divisor of the squared error."""
AIR_TIME = 0.5
"""Time in the air that a landing foot should exceed, s."""
HEIGHT = 0.232
"""Height that the base should have, m."""
FOOT_REST, FOOT_CLEARANCE = 0.016, 0.073
"""Height of a standing foot, and how far above it a swinging one should be, m."""
SCALES = {
    "tracking_lin_vel": 1.5,
    "tracking_ang_vel": 1.5,
    "feet_air_time": 1.5,
    "lin_vel_z": -1.0,
    "ang_vel_xy": -0.05,
    "orientation": -2.5,
    "base_height": -10.0,
    "torques": -1e-3,
    "dof_acc": -2.5e-7,
    "action_rate": -0.01,
    "action_bias": -0.005,
    "collision": -5.0,
    "foot_clearance": -0.5,
    "foot_slip": -2.5,
    "feet_contact_forces": -0.01,
}
"""Weight of each reward; a control step multiplies by `CONTROL_DT`."""

# randomisation [FMT]
FRICTION = (0.6, 1.5)
"""Bounds of the friction."""
TORSO_MASS = (-0.2, 1.0)
"""Bounds of the mass added to the torso, kg."""
PUSH_STEPS = 750
"""Number of control steps from one push to the next, 15 s."""
PUSH_VELOCITY = 1.0
"""Bound of each horizontal component of a push, m/s."""

# randomisation of the hardware [own]
GAIN_SPREAD = (0.9, 1.1)
"""Bounds of the factors on the gains."""
STRENGTH_SPREAD = (0.85, 1.05)
"""Bounds of the factor on the torque."""
JOINT_OFFSET = 0.02
"""Bound of the encoders' error, rad."""
COM_OFFSET = 0.01
"""Bound of the torso's shift of the centre of mass, m."""
