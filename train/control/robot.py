"""What a robot is to the programs that train, evaluate, export and film it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from brax.envs.base import Env, State
from jax import Array

from configs.quadruped import FaultConfig, QuadrupedConfig, RobotConfig
from corrkd_jax.errors import InputError
from envs import faults

CONDITIONS = ("health", "power loss", "locked")
"""Names of the conditions of `envs.faults`; also the tasks of the policy's heads."""
PARTS = {"HFE": ("HFE",), "KFE": ("KFE",), "both": ("HFE", "KFE")}
"""Joints of a leg that fail together."""


class Place(NamedTuple):
    """Where a fault strikes.

    Attributes:
        leg: name of the leg.
        joints: name of the set of joints.
        broken: `[joints]` bool.
    """

    leg: str
    joints: str
    broken: np.ndarray


class Kind(ABC):
    """What is known of a kind of robot before one is built.

    Attributes:
        name: as a configuration has it.
        joints: names of the joints that a detector looks at, in order.
        legs: names of the legs, by the number that a switch gives them.
        planted: whether the robot was made to show effects of known size. Its run evaluates itself
            and says which of them it shows; other robots are evaluated by `train.evaluate`.
        published: whether the paper's robots stand beside it in an evaluation.
        penalties: whether its reward has negative terms.
        slow_on_cpu: whether a CPU simulates but a few of them at once.
        survival: meaning of survival.
    """

    name: str
    joints: tuple[str, ...]
    legs: tuple[str, ...]
    planted: bool
    published: bool
    penalties: bool
    slow_on_cpu: bool
    survival: str

    @abstractmethod
    def build(self, config: QuadrupedConfig) -> "Robot":
        """The robot of a configuration; raises InputError if its faults cannot strike it."""

    @abstractmethod
    def mirrored(self, config: FaultConfig) -> bool:
        """Whether a policy trained for the faults of one leg serves all legs by mirroring."""

    @abstractmethod
    def any_leg(self, robot: "Robot", config: FaultConfig) -> "Robot":
        """The robot with faults in any leg."""

    @abstractmethod
    def places(self, legs: Sequence[str], parts: Sequence[str]) -> list[Place]:
        """Where faults strike in an evaluation.

        Args:
            legs: names of the legs that fail.
            parts: names in `PARTS`.
        """

    @abstractmethod
    def quiet(self, robot: "Robot", added_mass: bool = True, noise: float = 0.0) -> "Robot":
        """The robot without sensor noise, pushes and spread, on the nominal floor.

        Args:
            robot: that was trained.
            added_mass: random mass of every robot's torso as in training, as the released code
                draws it when it evaluates (arXiv:2402.08996).
            noise: factor on the sensor noise.
        """

    @abstractmethod
    def torso(self, added_mass: bool) -> str:
        """Mass of the torso in an evaluation, in words."""

    @abstractmethod
    def sensor_noise(self, factor: float) -> str:
        """Sensor noise in an evaluation, in words."""

    @abstractmethod
    def straight_on(self, speed: Array) -> Array:
        """Commands to walk straight on at speeds `[robots]`, as `state.info` holds them."""

    @abstractmethod
    def sensed(self, states: State) -> dict[str, Array]:
        """What an evaluation measures of `[robots]`, by name.

        Forward speed, tilt (rad on the real robot), by how much speed and yaw rate miss their
        commands, and which feet stand; the toy has neither yaw nor feet.
        """

    @abstractmethod
    def observation(self, config: RobotConfig) -> list[str]:
        """Meaning of each number of an observation."""

    @abstractmethod
    def actuation(self, config: RobotConfig) -> dict[str, Any]:
        """How actions move the robot, for the metadata of a controller.

        Its `action` says what each number of an action is.
        """

    @abstractmethod
    def safety(self, metadata: dict[str, Any]) -> str:
        """What the user of a controller has to see to, as a paragraph; empty if nothing.

        Args:
            metadata: of the controller.
        """


class Robot(NamedTuple):
    """A robot, its faults and the clock of its episodes.

    Attributes:
        kind: what it has in common with others of its kind.
        env: Brax environment of one robot.
        spawn: `(template, key) -> pipeline_state`, a robot at the start of an ordinary episode;
            cheap, from the physics of some first state.
        fault: `(key, condition, onset) -> Fault`, all traced: a fault of that kind in one of the
            configured places.
        vary: `(keys) -> variation`, `[robots]` each: how one robot in training differs from the
            nominal one for good.
        step: `(variation, state, action) -> state`, the environment's step of such a robot.
        steps: control steps of an episode.
        observed: how many of the observation's last features a detector reads.
        mjcf: the robot's model for C MuJoCo; empty if no rigid bodies make it up.
    """

    kind: Kind
    env: Env
    spawn: Callable[[Any, Array], Any]
    fault: Callable[[Array, Array, Array], faults.Fault]
    vary: Callable[[Array], Any]
    step: Callable[[Any, State, Array], State]
    steps: int
    observed: int
    mjcf: str

    @property
    def joints(self) -> int:
        """Number of joints that a detector looks at."""
        return len(self.kind.joints)


def check_faults(config: QuadrupedConfig, steps: int) -> None:
    """Refuse faults that would strike after an episode, or never.

    Args:
        config: of the run.
        steps: control steps of an episode.

    Raises:
        InputError: names the option and says what would do.
    """
    for name in ("onset", "takeover"):
        first, last = getattr(config.faults, name)
        if not first <= last < steps:
            raise InputError(
                f"--faults.{name} {first} {last}: first and last of an episode's control steps, "
                f"0 to {steps - 1}"
            )


def features(robot: Robot, observations: Array) -> Array:
    """What a detector reads of a control step, `[..., observed]`, of the policy's observation."""
    return observations[..., -robot.observed :]
