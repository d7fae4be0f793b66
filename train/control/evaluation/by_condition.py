"""Whole episodes of every arm of a run, under every condition, with every switch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.quadruped import QuadrupedConfig
from train.control import detection, episodes, ppo, reflection, watching
from train.control.report import Results, Row, row_name
from train.control.robot import CONDITIONS, Robot
from train.engine.finished import by_arm

TEST_KEY = 9
"""Key of the robots of the evaluation; never that of a run. All rows of the table have the same
robots."""


def evaluate(config: QuadrupedConfig, robot: Robot, best: dict[str, Any]) -> Results:
    """Survival and reward of a run's selected parameters.

    Args:
        config: of the run.
        robot: that it trained.
        best: stage -> parameters, leading axes seeds and, for the policies, arms.
    """
    if not config.evaluation_robots:
        return Results({}, None, {})
    policy, detector = ppo.build_policy(config, robot), detection.build_detector(config, robot)

    @jax.jit
    def told(params: Any, aware: Any, kind: Any, key: Any) -> tuple[Any, Any]:
        switch = episodes.oracle(aware)
        seen = episodes.run(robot, policy, params, switch, kind, key, config.evaluation_robots)
        return jnp.mean(seen.survived), jnp.mean(seen.reward)

    @jax.jit
    def switched(params: Any, detecting: Any, kind: Any, key: Any) -> episodes.Episodes:
        switch = detection.learned(robot, detector, detecting, config.switch)
        return episodes.run(robot, policy, params, switch, kind, key, config.evaluation_robots)

    def each(run: Any) -> list[list[Any]]:
        """Results of `run(seed, condition, key)`, `[seeds][conditions]`."""
        keys = jax.random.split(jax.random.key(TEST_KEY), config.seeds)
        kinds = range(len(CONDITIONS))
        return [
            [jax.tree.map(np.asarray, run(seed, kind, key)) for kind in kinds]
            for seed, key in enumerate(keys)
        ]

    def by_flag(models: Any, aware: bool) -> Row:
        cells = each(lambda seed, kind, key: told(_one(models, seed), aware, kind, key))
        return Row(*np.moveaxis(np.asarray(cells), -1, 0))

    def by_detector(models: Any) -> tuple[Row, watching.Watched]:
        seen = each(
            lambda seed, kind, key: switched(
                _one(models, seed), _one(best["detector"], seed), kind, key
            )
        )
        means = [[(e.survived.mean(), e.reward.mean()) for e in of_seed] for of_seed in seen]
        row = Row(*np.moveaxis(np.asarray(means), -1, 0))
        return row, watching.measure(seen, robot.env.dt)

    table, watched, gates = {}, None, {}
    for number, (name, models) in enumerate(by_arm(best[ppo.POLICIES], config.arms).items()):
        if name != ppo.OURS:
            aware = name == ppo.NO_REFLECTION
            table[row_name(name, "oracle" if aware else "blind")] = by_flag(models, aware)
            continue
        table[row_name(name, "oracle")] = by_flag(models, True)
        if number == 0 and "detector" in best:
            table[row_name(name, "learned")], watched = by_detector(models)
            if ppo.TUNED in best:
                table[row_name(ppo.TUNED, "learned")], _ = by_detector(best[ppo.TUNED])
        table[row_name(name, "blind")] = by_flag(models, False)
        if robot.kind.planted:
            gates = reflection.gates(robot, policy, models, jax.random.key(TEST_KEY))
    return Results(table, watched, gates)


def _one(models: Any, seed: int) -> Any:
    """Parameters of one seed on the device."""
    return jax.tree.map(lambda x: jnp.asarray(x[seed]), models)
