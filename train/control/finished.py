"""A finished quadruped, brought back; the rule by which its detector switches, and its check."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.quadruped import RENAMED, QuadrupedConfig
from corrkd_jax.errors import InputError
from corrkd_jax.models.detector import FaultDetector
from corrkd_jax.models.policies import MultiTaskPolicy
from corrkd_jax.ranges import Fraction, Positive
from train.control import detection, ppo, robots
from train.control.robots import Robot
from train.engine import cli
from train.engine.workdir import CONFIG, load_model, restore_config


class Loaded(NamedTuple):
    """A finished run.

    Attributes:
        config: of the run.
        robot: that it trained.
        policy: the network.
        policies: its parameters by arm, `[seeds, ...]`; `tuned` among them if the run tuned the
            first arm's.
        detector: the network that watches the first arm.
        detector_params: its parameters, `[seeds, ...]`; None if the run trained none.
    """

    config: QuadrupedConfig
    robot: Robot
    policy: MultiTaskPolicy
    policies: dict[str, Any]
    detector: FaultDetector
    detector_params: Any


@dataclass(frozen=True)
class OwnRule:
    """Rule of the switch in the place of the run's; what is None stays as it was."""

    confidence: Annotated[float | None, Fraction] = None
    """Probability up to which a verdict counts for nothing."""
    strike: Annotated[int | None, Positive] = None
    """Number of consecutive confident verdicts before a fault's head takes over."""
    recovery: Annotated[int | None, Positive] = None
    """Number of consecutive confident verdicts before the healthy head takes over again."""


def load(folder: Path, own: OwnRule | None = None) -> Loaded:
    """Bring back a finished run.

    Args:
        folder: of the run.
        own: what to change of its switch.

    Raises:
        InputError: no such run, an unfinished one, one of another version or program, a model of
            another robot; or a switch that could never change the head.
    """
    _, config = restore_config(folder, "quadruped", QuadrupedConfig, "train.quadruped", RENAMED)
    if own is not None:
        given = {name: x for name, x in dataclasses.asdict(own).items() if x is not None}
        rule = dataclasses.replace(config.switch, **given)
        cli.check_ranges(rule, "switch.")
        config = dataclasses.replace(config, switch=rule)
    robot = robots.build(config)
    policy, detector = ppo.build_policy(config, robot), detection.build_detector(config, robot)
    blank = jnp.zeros((4, 1, robot.env.observation_size))
    window = detection.blank(robot, 1).window
    key = jax.random.key(0)
    like = {
        "policies": _zeros(
            jax.eval_shape(policy.init, key, blank, jnp.zeros(4, jnp.int32))["params"],
            (config.seeds, len(config.arms)),
        )
    }
    if config.detector.updates:
        shapes = jax.eval_shape(detector.init, key, window)["params"]
        like["detector"] = _zeros(shapes, (config.seeds,))
    if config.detector.tune_iterations:
        like[ppo.TUNED] = jax.tree.map(lambda x: x[:, 0], like["policies"])
    try:
        found = load_model(folder, like)
    except InputError as error:
        raise InputError(f"{error} ({folder / CONFIG}: robot {config.robot})") from None
    policies = {
        name: jax.tree.map(lambda x: x[:, number], found["policies"])  # noqa: B023 — used here only
        for number, name in enumerate(config.arms)
    }
    if ppo.TUNED in found:
        policies[ppo.TUNED] = found[ppo.TUNED]
    return Loaded(config, robot, policy, policies, detector, found.get("detector"))


def _zeros(shapes: Any, lead: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: np.zeros((*lead, *x.shape), x.dtype), shapes)
