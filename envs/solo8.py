"""SOLO8 under velocity commands, with joints that may fail: a Brax environment on MJX.

Task, observation, rewards and randomisation are those of arXiv:2402.08996 as its released code has
them. `Config` lists the additions: any leg and joint, a constraint for locking, gravity in place of
the quaternion, hardware spread.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from brax import math
from brax.base import Motion, System, Transform
from brax.envs.base import PipelineEnv, State
from brax.io import mjcf as brax_mjcf
from brax.mjx.base import State as MjxState
from jax import Array

from envs import faults, solo8_model, solo8_solver
from envs import solo8_constants as c
from envs.faults import ANY_LEG, Mixture
from envs.solo8_rewards import REWARDS, Signals, total, weighted

LINE_SEARCHES = 2
"""Steps of a line search; more change nothing (`python -m benchmarks.solver`)."""


@dataclass(frozen=True)
class Config:
    """Settings of a SOLO8 environment.

    Attributes:
        robot: "v7", the authors' robot, or "odri", the open hardware.
        symmetric: leave out what breaks the mirror group by a few hundredths of a millimetre.
        obs_mode: orientation as the paper's quaternion (30 features) or as gravity in the base's
            axes (29), which does not know the heading.
        noise: factor on the observation noise, 0 for none.
        push_velocity: bound of a push, m/s, 0 for none.
        backward: draw backward commands as well, as a policy for hind legs by `mirror` needs.
        faults: distribution drawn from at reset; `envs.faults.PAPER` is the paper's.
        action_limit: bound that actions are clipped to, in quarter radians; the paper's code has
            100. The motor gives all its torque half a radian from the target, so that ten cost a
            robot nothing. But the last action is observed. On a robot that lies on its knees a
            policy may excite itself up to the limit, and at 100 a hundredth of the samples then
            dominate gradient, divergence and learning rate.
        lock_play: rad that a locked joint may move below and above its angle.
        lock_motor_off: switch off the motor of a locked joint.
        hardware_spread: draw gains, strength, joint offsets and delay at reset.
        solver_iterations: iterations of the constraint solver in each physics step
            (`envs.solo8_solver`). With one, the error is two fifths of a step's change, a locked
            joint gives twice as much, and a robot whose knee has lost power falls in half the time;
            each costs a fortieth of a step on a CPU (`python -m benchmarks.solver`).
    """

    robot: Literal["v7", "odri"] = "v7"
    symmetric: bool = False
    obs_mode: Literal["quat", "gravity"] = "quat"
    noise: float = 1.0
    push_velocity: float = c.PUSH_VELOCITY
    backward: bool = False
    faults: Mixture = ANY_LEG
    action_limit: float = c.ACTION_LIMIT
    lock_play: tuple[float, float] = (0.0, 0.0)
    lock_motor_off: bool = False
    hardware_spread: bool = False
    solver_iterations: int = 5


class Hardware(NamedTuple):
    """Deviations of one robot's drive from the nominal one.

    Attributes:
        kp: `[]`, factor on the position gain.
        kd: `[]`, factor on the velocity gain.
        strength: `[]`, factor on the torque.
        offset: `[8]`, rad, error of the encoders.
        delayed: `[]` bool, actions arrive one control step late.
    """

    kp: Array
    kd: Array
    strength: Array
    offset: Array
    delayed: Array


class Solo8(PipelineEnv):
    """Environment of SOLO8: four legs, eight motors, 50 Hz.

    `state.info` holds what lasts between steps: `command`, `fault`, the counter `step`, `hardware`,
    the curriculum's factor `penalty`, and the inputs of the next step. All of it may be replaced
    between steps without another compilation: a fault, for instance, by `envs.faults.fault`. The
    true condition of the joints is `faults.condition(info["fault"], info["step"])`.

    `begin` starts an episode from any physics. Brax's training wrappers restore the physics and the
    first observation when an episode ends, and leave `info` alone but for the clock `steps` of
    their own. In the first step of the next episode this environment draws a new fault, command and
    hardware and starts its own clock (with an `action_repeat` of 1; that step's observation still
    shows the first command).
    """

    def __init__(self, config: Config | None = None, backend: str = "mjx"):
        """Build the physics.

        Args:
            config: `Config()` if None.
            backend: "mjx"; Brax's other engines have no joint equality.

        Raises:
            ValueError: another backend, an unknown robot or observation mode, faults that cannot
                be (`faults.check`), or a number out of its range.
        """
        config = config or Config()
        if backend != "mjx":
            raise ValueError(f"backend: {backend!r}; solo8 runs on 'mjx' only")
        if config.robot not in c.ROBOTS:
            raise ValueError(f"config.robot: {config.robot!r} not in {list(c.ROBOTS)}")
        if config.obs_mode not in ("quat", "gravity"):
            raise ValueError(f"config.obs_mode: {config.obs_mode!r} not in ['quat', 'gravity']")
        for name in ("noise", "push_velocity"):
            if not getattr(config, name) >= 0:
                raise ValueError(f"config.{name}: {getattr(config, name)} must not be negative")
        for name in ("action_limit", "solver_iterations"):
            if not getattr(config, name) > 0:
                raise ValueError(f"config.{name}: {getattr(config, name)} must be positive")
        if not min(config.lock_play) >= 0:
            raise ValueError(f"config.lock_play: {config.lock_play} must not be negative")
        faults.check(config.faults)
        robot = c.ROBOTS[config.robot]
        self.config = config
        self.robot = solo8_model.symmetric(robot) if config.symmetric else robot
        model = mujoco.MjModel.from_xml_string(
            solo8_model.mjcf(self.robot, config.solver_iterations)
        )
        # `solo8_model.touch` reads the forces, once a control step
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
        model.opt.ls_iterations = LINE_SEARCHES
        super().__init__(brax_mjcf.load_model(model), backend, c.SUBSTEPS)

    @property
    def observation_size(self) -> int:
        """Number of features of an observation: 30 with the quaternion, 29 with gravity."""
        # Brax's own property runs a reset
        return {"quat": 30, "gravity": 29}[self.config.obs_mode]

    @property
    def dt(self) -> float:
        """Duration of a control step, s."""
        return c.CONTROL_DT

    def reset(self, rng: Array) -> State:
        """First state of an episode: default pose above the floor, a small random velocity.

        Args:
            rng: random key.

        Returns:
            Brax's state, with a new command and a fault drawn from `config.faults`.
        """
        key, velocity_key = jax.random.split(rng)
        base = jax.random.uniform(
            velocity_key, (6,), minval=-c.SPAWN_VELOCITY, maxval=c.SPAWN_VELOCITY
        )
        q = jnp.concatenate([jnp.array([0, 0, c.SPAWN_HEIGHT, 1, 0, 0, 0]), c.DEFAULT_POSE])
        return self.begin(self.pipeline_init(q, jnp.concatenate([base, jnp.zeros(8)])), key)

    def begin(
        self, pipeline_state: MjxState, key: Array, fault: faults.Fault | None = None
    ) -> State:
        """First state of an episode that begins in the middle of a motion.

        It computes no physics: give it another environment's `pipeline_state` for the paper's
        reflection initialisation.

        Args:
            pipeline_state: physics to begin from.
            key: random key.
            fault: fault of the episode; drawn from `config.faults` if None.

        Returns:
            Brax's state.
        """
        keys = jax.random.split(key, 5)
        if fault is None:
            fault = faults.sample(keys[0], self.config.faults)
        info = {
            "key": keys[1],
            "step": jnp.zeros((), jnp.int32),
            "command": draw_command(keys[2], self.config.backward),
            "last_action": jnp.zeros(8),
            "air_time": jnp.zeros(4),
            "contact": jnp.zeros(4, bool),
            "fault": fault,
            "lock_angle": pipeline_state.qpos[7:],
            "hardware": draw_hardware(keys[3], self.config.hardware_spread),
            # an episode is shorter than the time between pushes, which count on across episodes
            "push_phase": jax.random.randint(keys[4], (), 0, c.PUSH_STEPS),
            "penalty": jnp.ones(()),
        }
        info["key"], noise_key = jax.random.split(info["key"])
        zero = jnp.zeros(())
        return State(
            pipeline_state,
            self._observe(pipeline_state, info, noise_key),
            zero,
            zero,
            metrics=dict.fromkeys(REWARDS, zero),
            info=info,
        )

    def step(self, state: State, action: Array) -> State:
        """State after one control step, which is four physics steps.

        Args:
            state: state of this environment.
            action: `[8]`, quarter radians from the default pose.

        Returns:
            Brax's state.
        """
        info = self._restarted(state)
        info["key"], push_key, command_key, noise_key = jax.random.split(info["key"], 4)
        limit = self.config.action_limit
        action = jnp.clip(action, -limit, limit)
        before = self._push(state.pipeline_state, info, push_key)
        power_loss, locked = faults.active(info["fault"], info["step"])
        data, torque = self._physics(before, action, info, power_loss, locked)

        contact = data.sensordata[solo8_model.FEET] > c.FOOT_CONTACT
        standing = contact | info["contact"]
        air_time = info["air_time"] + c.CONTROL_DT
        rotate = math.quat_inv(data.qpos[3:7])
        foot_height, foot_velocity = feet_motion(self.robot, data.qpos, data.qvel)
        terms = weighted(
            Signals(
                command=info["command"],
                velocity=math.rotate(data.qvel[:3], rotate),
                rotation=data.qvel[3:6],
                gravity=math.rotate(jnp.array([0.0, 0.0, -1.0]), rotate),
                height=data.qpos[2],
                torque=torque,
                acceleration=(data.qvel[6:] - before.qvel[6:]) / c.CONTROL_DT,
                action=action,
                last_action=info["last_action"],
                foot_height=foot_height,
                foot_velocity=foot_velocity,
                foot_force=data.sensordata[solo8_model.FEET],
                knee_force=data.sensordata[solo8_model.KNEES],
                standing=standing,
                air_time=air_time,
                landed=(info["air_time"] > 0) & standing,
            )
        )
        step = info["step"] + 1
        info |= {
            "step": step,
            "last_action": action,
            "air_time": jnp.where(standing, 0, air_time),
            "contact": contact,
            "lock_angle": jnp.where(locked, info["lock_angle"], data.qpos[7:]),
            "command": jnp.where(
                step % c.EPISODE_STEPS == 0,
                draw_command(command_key, self.config.backward),
                info["command"],
            ),
        }
        done = is_down(data.sensordata[solo8_model.TORSO], data.qpos[7:])
        return state.replace(
            pipeline_state=data,
            obs=self._observe(data, info, noise_key),
            reward=total(terms, info["penalty"]),
            done=done.astype(jnp.float32),
            metrics=state.metrics | terms,
            info=info,
        )

    def _restarted(self, state: State) -> dict:
        """Lasting info, drawn anew where Brax's clock has restarted and this one has not."""
        info = dict(state.info)
        if "steps" not in info:
            return info
        info["key"], key = jax.random.split(info["key"])
        fresh = self.begin(state.pipeline_state, key).info | {"penalty": info["penalty"]}
        new = (info["steps"] == 0) & (info["step"] > 0)
        old = {name: info[name] for name in fresh}
        return info | jax.tree.map(lambda a, b: jnp.where(new, a, b), fresh, old)

    def _push(self, data, info: dict, key: Array):
        bound = self.config.push_velocity
        velocity = jax.random.uniform(key, (2,), minval=-bound, maxval=bound)
        now = (bound > 0) & ((info["step"] + info["push_phase"]) % c.PUSH_STEPS == 0)
        qvel = data.qvel.at[:2].set(jnp.where(now, velocity, data.qvel[:2]))
        return data.replace(qvel=qvel, qd=qvel)

    def _physics(self, data, action: Array, info: dict, power_loss: Array, locked: Array) -> tuple:
        hardware: Hardware = info["hardware"]
        arriving = jnp.where(hardware.delayed, info["last_action"], action)
        target = c.DEFAULT_POSE + c.ACTION_SCALE * arriving
        dead = power_loss | locked if self.config.lock_motor_off else power_loss

        def substep(data, _):
            sys, data = faults.lock(
                self.sys, data, locked, info["lock_angle"], self.config.lock_play
            )
            torque = motor_torque(
                target - data.qpos[7:] - hardware.offset,
                data.qvel[6:],
                dead,
                hardware.kp * c.KP,
                hardware.kd * c.KD,
            )
            torque *= hardware.strength
            return solo8_solver.step(sys, data.replace(ctrl=torque)), torque

        data, torque = jax.lax.scan(substep, data, length=self._n_frames)
        data = _as_brax(self.sys, data)
        return data.replace(sensordata=solo8_model.touch(self.sys, data)), torque[-1]

    def _observe(self, data, info: dict, key: Array) -> Array:
        orientation = data.qpos[3:7]
        if self.config.obs_mode == "gravity":
            orientation = math.rotate(jnp.array([0.0, 0.0, -1.0]), math.quat_inv(orientation))
        parts = (
            (orientation, c.ORIENTATION_NOISE),
            (info["command"] * jnp.array(c.COMMAND_SCALE), 0),
            (data.qpos[7:] + info["hardware"].offset - c.DEFAULT_POSE, c.POSITION_NOISE),
            (data.qvel[6:] * c.VELOCITY_SCALE, c.VELOCITY_NOISE),
            (info["last_action"], 0),
        )
        clean = jnp.concatenate([part for part, _ in parts])
        width = jnp.concatenate([jnp.full(part.shape, half) for part, half in parts])
        noise = jax.random.uniform(key, clean.shape, minval=-1, maxval=1)
        return jnp.clip(clean + self.config.noise * width * noise, -c.CLIP, c.CLIP)


def _as_brax(sys: System, data):
    """Bring what Brax's state holds beside MJX's up to it, as its own pipeline does."""
    velocity = Motion(vel=data.cvel[1:, 3:], ang=data.cvel[1:, :3])
    offset = Transform.create(pos=data.xpos[1:] - data.subtree_com[sys.body_rootid[1:]])
    return data.replace(
        q=data.qpos,
        qd=data.qvel,
        x=Transform(pos=data.xpos[1:], rot=data.xquat[1:]),
        xd=offset.vmap().do(velocity),
        contact=data.contact.replace(**vars(data._impl.contact)),
    )


def motor_torque(
    error: Array, velocity: Array, dead: Array, kp: Array | float = c.KP, kd: Array | float = c.KD
) -> Array:
    """Torque of position feedback.

    NumPy arrays give a NumPy array.

    Args:
        error: `[8]`, target minus joint angle, rad.
        velocity: `[8]`, rad/s.
        dead: `[8]` bool, motors without power: exactly zero.
        kp: position gain, N m/rad.
        kd: velocity gain, N m s/rad.

    Returns:
        `[8]`, N m, within the motor's limit.
    """
    return (kp * error - kd * velocity).clip(-c.TORQUE_LIMIT, c.TORQUE_LIMIT) * ~dead


def is_down(torso_force: Array, joints: Array) -> Array:
    """Whether an episode is over: the torso pushes on the floor, or a joint has left its range.

    The second ends what the first does not see. A single robot that winds its legs up on its knees
    has observations and actions of up to a hundred, and would dominate the gradient of all others.

    Args:
        torso_force: `[]`, normal force on the torso, N.
        joints: `[8]`, joint angles, rad.

    Returns:
        `[]` bool.
    """
    return (torso_force > c.TORSO_CONTACT) | (jnp.abs(joints) > c.JOINT_RANGE).any()


def feet_positions(robot: c.Robot, joints: Array) -> Array:
    """Positions of the feet's centres in the torso's axes.

    Args:
        robot: lengths of the robot.
        joints: `[8]`, joint angles, rad.

    Returns:
        `[4, 3]`, m.
    """
    hip, knee = joints[0::2], joints[0::2] + joints[1::2]
    front, side = jnp.array([1, 1, -1, -1]), jnp.array([1, -1, 1, -1])
    x = front * robot.hip[0] - c.SEGMENT * (jnp.sin(hip) + jnp.sin(knee))
    y = side * (robot.hip[1] + robot.knee_y + robot.foot_y)
    z = -c.SEGMENT * (jnp.cos(hip) + jnp.cos(knee))
    return jnp.stack([x, y, z], axis=-1)


def feet_motion(robot: c.Robot, qpos: Array, qvel: Array) -> tuple[Array, Array]:
    """Heights and horizontal velocities of the feet's centres in the world.

    They are computed from the state itself, not from MuJoCo's positions, which are one physics step
    old after a step.

    Args:
        robot: lengths of the robot.
        qpos: `[15]`, MuJoCo's positions.
        qvel: `[14]`, MuJoCo's velocities.

    Returns:
        Heights `[4]`, m, and velocities `[4, 2]`, m/s.
    """
    feet, moving = jax.jvp(lambda q: feet_positions(robot, q), (qpos[7:],), (qvel[6:],))
    rotate = jax.vmap(math.rotate, in_axes=(0, None))
    velocity = qvel[:3] + rotate(jnp.cross(qvel[3:6], feet) + moving, qpos[3:7])
    return qpos[2] + rotate(feet, qpos[3:7])[:, 2], velocity[:, :2]


def draw_command(key: Array, backward: bool) -> Array:
    """Command drawn at random as in the released code: forward speed and yaw rate.

    Slow robots turn slowly or stand.

    Args:
        key: random key.
        backward: draw backward speeds as well.

    Returns:
        `[2]`, m/s and rad/s.
    """
    speed, yaw = jax.random.uniform(
        key,
        (2,),
        minval=jnp.array([-1.0 if backward else 0.0, -c.YAW_RATE]),
        maxval=jnp.array([1.0, c.YAW_RATE]),
    )
    yaw = jnp.where(jnp.abs(speed) < c.SLOW, yaw / 2, yaw)
    return jnp.where(jnp.abs(speed) < c.STOPPED, 0, jnp.stack([speed, yaw]))


def draw_hardware(key: Array, spread: bool) -> Hardware:
    """Drive of one robot; the nominal one without spread.

    Args:
        key: random key.
        spread: draw gains, strength, joint offsets and delay.

    Returns:
        `Hardware`.
    """
    if not spread:
        one = jnp.ones(())
        return Hardware(one, one, one, jnp.zeros(8), jnp.zeros((), bool))
    keys = jax.random.split(key, 5)

    def uniform(key, bounds, shape=()):
        return jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])

    return Hardware(
        kp=uniform(keys[0], c.GAIN_SPREAD),
        kd=uniform(keys[1], c.GAIN_SPREAD),
        strength=uniform(keys[2], c.STRENGTH_SPREAD),
        offset=uniform(keys[3], (-c.JOINT_OFFSET, c.JOINT_OFFSET), (8,)),
        delayed=jax.random.bernoulli(keys[4]),
    )


def randomize(sys: System, rng: Array, com_spread: bool = False) -> tuple[System, System]:
    """System with friction, torso mass and (on request) centre of mass drawn for each environment.

    It is a `randomization_fn` of Brax's training wrappers. Inertia grows with the mass.

    Args:
        sys: system of `Solo8`.
        rng: keys `[envs]`, one an environment.
        com_spread: move the torso's centre of mass by up to a centimetre along each axis.

    Returns:
        Batched system, and the axes to `vmap` it over.
    """

    @jax.vmap
    def draw(key):
        keys = jax.random.split(key, 3)
        friction = jax.random.uniform(keys[0], minval=c.FRICTION[0], maxval=c.FRICTION[1])
        added = jax.random.uniform(keys[1], minval=c.TORSO_MASS[0], maxval=c.TORSO_MASS[1])
        shift = jax.random.uniform(keys[2], (3,), minval=-c.COM_OFFSET, maxval=c.COM_OFFSET)
        mass = sys.body_mass.at[1].add(added)
        return {
            "geom_friction": sys.geom_friction.at[:, 0].set(friction),
            "body_mass": mass,
            "body_inertia": sys.body_inertia.at[1].multiply(mass[1] / sys.body_mass[1]),
            "body_ipos": sys.body_ipos.at[1].add(com_spread * shift),
        }

    drawn = draw(rng)
    axes = jax.tree.map(lambda _: None, sys)
    return sys.replace(**drawn), axes.replace(**dict.fromkeys(drawn, 0))
