"""A finished quadruped, brought back; the rule by which its detector switches may be another."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from configs.quadruped import RENAMED, QuadrupedConfig
from corrkd_jax.errors import InputError
from corrkd_jax.models.detector import FaultDetector
from corrkd_jax.models.policies import MultiTaskPolicy
from corrkd_jax.ranges import Fraction, Positive
from train.control import detection, ppo, robots
from train.control.robot import Robot
from train.engine.finished import Finished, by_arm, seed_number, zeros
from train.engine.workdir import CONFIG, load_model, restore_config


@dataclass(frozen=True)
class Trained(Finished[QuadrupedConfig]):
    """A finished quadruped; `models` holds `tuned` beside the arms if the run tuned the first.

    Attributes:
        robot: that was trained.
        policy: the network of every arm.
        detector: the network that watches the first arm.
        detector_params: its parameters, `[seeds, ...]`; None if the run trained none.
    """

    robot: Robot
    policy: MultiTaskPolicy
    detector: FaultDetector
    detector_params: Any

    def detector_of(self, seed: int = 0) -> Any:
        """Parameters of the detector of one seed; None if the run trained none.

        Args:
            seed: one of `seeds`; 0: the first.

        Raises:
            InputError: the run has no such seed.
        """
        number = seed_number(seed, self.config.first_seed, self.config.seeds)
        return jax.tree.map(lambda x: x[number], self.detector_params)


@dataclass(frozen=True)
class SwitchOptions:
    """Rule of the switch in the place of the run's; what is None stays as it was."""

    confidence: Annotated[float | None, Fraction] = None
    """Probability up to which a verdict counts for nothing."""
    strike: Annotated[int | None, Positive] = None
    """Number of consecutive confident verdicts before a fault's head takes over."""
    recovery: Annotated[int | None, Positive] = None
    """Number of consecutive confident verdicts before the healthy head takes over again."""


def load_run(folder: Path, switch: SwitchOptions | None = None) -> Trained:
    """Bring back a finished run.

    Args:
        folder: of the run.
        switch: what to change of its switch.

    Raises:
        InputError: no such run, an unfinished one, one of another version or program, or a model
            of another robot.
    """
    preset, config = restore_config(
        folder, "quadruped", QuadrupedConfig, "train.quadruped", RENAMED
    )
    if switch is not None:
        given = {name: x for name, x in dataclasses.asdict(switch).items() if x is not None}
        config = dataclasses.replace(config, switch=dataclasses.replace(config.switch, **given))
    robot = robots.build(config)
    policy, detector = ppo.build_policy(config, robot), detection.build_detector(config, robot)
    try:
        arrays = load_model(folder, _model_shapes(config, robot, policy, detector))
    except InputError as error:
        raise InputError(f"{error} ({folder / CONFIG}: robot {config.robot})") from None
    models = by_arm(arrays[ppo.POLICIES], config.arms)
    if ppo.TUNED in arrays:
        models[ppo.TUNED] = arrays[ppo.TUNED]
    return Trained(preset, config, models, robot, policy, detector, arrays.get("detector"))


def _model_shapes(
    config: QuadrupedConfig, robot: Robot, policy: MultiTaskPolicy, detector: FaultDetector
) -> Mapping[str, Any]:
    """Zeros with the shapes of the selected parameters, by stage."""
    key, window = jax.random.key(0), detection.blank(robot, 1).window
    blank = jnp.zeros((4, 1, robot.env.observation_size))
    params = jax.eval_shape(policy.init, key, blank, jnp.zeros(4, jnp.int32))["params"]
    shapes = {ppo.POLICIES: zeros(params, config.seeds, len(config.arms))}
    if config.detector.updates:
        watching = jax.eval_shape(detector.init, key, window)["params"]
        shapes["detector"] = zeros(watching, config.seeds)
    if config.detector.tune_iterations:
        shapes[ppo.TUNED] = zeros(params, config.seeds)
    return shapes
