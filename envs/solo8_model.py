"""MJCF of SOLO8 from its published numbers, primitives only.

It is built in Python rather than kept as a file, because the four legs are one leg, turned.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from mujoco import mjx

from envs import solo8_constants as c

TORSO, KNEES, FEET = 0, slice(1, 5), slice(5, 9)
"""Places of the contact forces in `sensordata`: the sum of normal forces on each, N."""
_SENSOR_OF_BODY = np.array([TORSO, TORSO, *(n for i in range(4) for n in (1 + i, 5 + i, 5 + i))])
"""World, torso, then each leg's upper part, which has the knee's sphere, lower part and foot."""


def symmetric(robot: c.Robot) -> c.Robot:
    """Robot whose mirror group is exact, for exact tests.

    Its centres of mass lie where the joints do along x, the torso's in the middle; the real robot
    misses that by a fraction of a millimetre.

    Args:
        robot: any robot.

    Returns:
        `solo8_constants.Robot`.
    """

    def flat(body: c.Body, keep_yz: bool) -> c.Body:
        xx, yy, zz, _, _, yz = body.inertia
        com = (0, body.com[1] * keep_yz, body.com[2])
        return body._replace(com=com, inertia=(xx, yy, zz, 0, 0, yz * keep_yz))

    return robot._replace(
        torso=flat(robot.torso, False),
        **{name: flat(getattr(robot, name), True) for name in ("upper", "lower", "foot")},
    )


def mjcf(robot: c.Robot, solver_iterations: int = 5) -> str:
    """Model of a floating robot on a flat floor.

    Feet, knees and the torso's corners are spheres that meet the floor and nothing else; feet alone
    have friction. Motors take torques. Every joint has an equality constraint, inactive, whose
    first coefficient is the angle it locks the joint at. Degrees of freedom: `qpos` is position,
    quaternion (w, x, y, z) and `JOINTS`.

    Args:
        robot: bodies and lengths.
        solver_iterations: number of Newton iterations of the constraint solver.

    Returns:
        XML for `mujoco.MjModel.from_xml_string`.
    """
    x, y, z = (size / 2 for size in c.TORSO_SIZE)
    corners = "".join(
        f'<geom class="sphere" size="{z}" pos="{a * (x - z)} {b * (y - z)} 0"/>'
        for a in (1, -1)
        for b in (1, -1)
    )
    locks = "".join(f'<joint joint1="{name}"/>' for name in c.JOINTS)
    motors = "".join(f'<motor name="{name}" joint="{name}"/>' for name in c.JOINTS)
    touch = "".join(
        f'<touch name="{site}" site="{site}"/>'
        for site in ["torso", *(f"{leg}_{part}" for part in ("knee", "foot") for leg in c.LEGS)]
    )
    return f"""
<mujoco model="solo8">
  <compiler angle="radian"/>
  <option timestep="{c.PHYSICS_DT}" iterations="{solver_iterations}" ls_iterations="5">
    <flag eulerdamp="disable"/>
  </option>
  <default>
    <joint axis="0 1 0" armature="{c.ARMATURE}"/>
    <geom contype="0" conaffinity="0" friction="{c.FLOOR_FRICTION}" rgba=".3 .3 .35 1"/>
    <default class="sphere"><geom type="sphere" conaffinity="1" condim="1"/></default>
    <site rgba="0 0 0 0"/>
    <equality active="false" solref="{_row(c.LOCK_SOLREF)}" solimp="{_row(c.LOCK_SOLIMP)}"/>
  </default>
  <worldbody>
    <light pos="0 0 3" directional="true"/>
    <geom name="floor" type="plane" size="0 0 1" contype="1" condim="1" rgba=".8 .8 .8 1"/>
    <body name="torso" pos="0 0 {c.SPAWN_HEIGHT}">
      <freejoint/>
      {_inertial(robot.torso)}
      <geom type="box" size="{x} {y} {z}"/>{corners}
      <site name="torso" type="box" size="{x} {y} {2 * z}"/>
      {"".join(_leg(robot, leg) for leg in c.LEGS)}
    </body>
  </worldbody>
  <equality>{locks}</equality>
  <actuator>{motors}</actuator>
  <sensor>{touch}</sensor>
</mujoco>"""


def _leg(robot: c.Robot, leg: str) -> str:
    front = 1 if leg[0] == "F" else -1
    # a right leg is a left one turned by half a circle about z
    side = 1 if leg[1] == "L" else -1
    knee = f"0 {side * robot.knee_y} {-c.SEGMENT}"
    foot = f"0 {side * robot.foot_y} {-c.SEGMENT}"
    return f"""
<body name="{leg}_upper" pos="{front * robot.hip[0]} {side * robot.hip[1]} 0">
  <joint name="{leg}_HFE"/>
  {_inertial(robot.upper, side)}
  <geom type="capsule" size="0.012" fromto="0 0 0 {knee}"/>
  <geom class="sphere" size="{c.KNEE_RADIUS}" pos="{knee}"/>
  <site name="{leg}_knee" size="{1.5 * c.KNEE_RADIUS}" pos="{knee}"/>
  <body name="{leg}_lower" pos="{knee}">
    <joint name="{leg}_KFE"/>
    {_inertial(robot.lower, side)}
    <geom type="capsule" size="0.008" fromto="0 0 0 {foot}"/>
    <body name="{leg}_foot" pos="{foot}">
      {_inertial(robot.foot, side)}
      <geom name="{leg}_foot" class="sphere" size="{c.FOOT_RADIUS}" condim="3"/>
      <site name="{leg}_foot" size="{1.5 * c.FOOT_RADIUS}"/>
    </body>
  </body>
</body>"""


def _inertial(body: c.Body, side: int = 1) -> str:
    (x, y, z), (xx, yy, zz, xy, xz, yz) = body.com, body.inertia
    com = _row((side * x, side * y, z))
    inertia = _row((xx, yy, zz, xy, side * xz, side * yz))
    return f'<inertial mass="{body.mass}" pos="{com}" fullinertia="{inertia}"/>'


def _row(values) -> str:
    return " ".join(map(str, values))


def touch(model: mjx.Model, data: mjx.Data) -> Array:
    """Values of the touch sensors, from the constraint solver's own forces.

    MJX tests of every sensor and contact whether one is inside the other, in every physics step,
    which takes a quarter of the step's time. Every sphere here belongs to one sensor, so no test is
    needed.

    Args:
        model: MJX model of `mjcf`.
        data: MJX data after a step.

    Returns:
        `[9]`, sums of normal forces, N: torso, four knees, four feet.
    """
    contact = data._impl.contact
    # a contact with friction has two edges of the pyramid for each tangent
    edges = np.where(contact.dim == 1, 1, 2 * (contact.dim - 1))
    rows = np.concatenate(
        [at + np.arange(n) for at, n in zip(contact.efc_address, edges, strict=True)]
    )
    # the floor's number is 0
    sphere = jnp.sum(contact.geom, axis=-1)[np.repeat(np.arange(len(edges)), edges)]
    sensor = jnp.asarray(_SENSOR_OF_BODY[model.geom_bodyid])[sphere]
    return data._impl.efc_force[rows] @ (sensor[:, None] == jnp.arange(9)).astype(jnp.float32)
