"""A quadruped run that nobody trained: small networks, sure of themselves so that heads switch."""

import jax
import jax.numpy as jnp

from configs.quadruped import DetectorConfig, NetworkConfig, QuadrupedConfig
from train.control import detection, ppo, robots
from train.control.finished import Trained

TINY = QuadrupedConfig(
    network=NetworkConfig(front=16, hidden=(8, 6)), detector=DetectorConfig(hidden=8)
)


def untrained(config):
    """As `train.control.finished.load_run` gives it."""
    robot = robots.build(config)
    policy, detector = ppo.build_policy(config, robot), detection.build_detector(config, robot)
    blank = jnp.zeros((4, 1, robot.env.observation_size))
    keys = jax.random.split(jax.random.key(0))
    params = jax.jit(policy.init)(keys[0], blank, jnp.zeros(4, jnp.int32))["params"]
    watching = jax.jit(detector.init)(keys[1], detection.blank(robot, 1).window)["params"]
    watching["condition"]["kernel"] *= 20
    own, watching = jax.tree.map(lambda x: x[None], (params, watching))
    models = dict.fromkeys(config.arms, own)
    return Trained("tiny", config, models, robot, policy, detector, watching)
