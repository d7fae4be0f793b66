"""Whole episodes of every arm of a run, under every condition, with every switch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.quadruped import QuadrupedConfig
from train.control import detection, episodes, ppo, reflection, watching
from train.control.report import Results, Row, row_name
from train.control.robots import CONDITIONS, Robot

TEST_KEY = 9
"""Of the robots that judge; never that of a run. All rows of the table have the same robots."""


def judge(config: QuadrupedConfig, robot: Robot, best: dict[str, Any]) -> Results:
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
        found = episodes.run(robot, policy, params, switch, kind, key, config.evaluation_robots)
        return jnp.mean(found.survived), jnp.mean(found.reward)

    @jax.jit
    def switched(params: Any, own: Any, kind: Any, key: Any) -> episodes.Episodes:
        switch = detection.learned(robot, detector, own, config.switch)
        return episodes.run(robot, policy, params, switch, kind, key, config.evaluation_robots)

    def each(run: Any) -> list[list[Any]]:
        """Results of `run(seed, condition, key)`, `[seeds][conditions]`."""
        keys = jax.random.split(jax.random.key(TEST_KEY), config.seeds)
        kinds = range(len(CONDITIONS))
        return [
            [jax.tree.map(np.asarray, run(seed, kind, key)) for kind in kinds]
            for seed, key in enumerate(keys)
        ]

    def by_flag(arm: int, aware: bool) -> Row:
        cells = each(lambda s, kind, key: told(pick(best[ppo.POLICIES], s, arm), aware, kind, key))
        return Row(*np.moveaxis(np.asarray(cells), -1, 0))

    def by_detector(policies: Any) -> tuple[Row, watching.Watched]:
        found = each(
            lambda s, kind, key: switched(pick(policies, s), pick(best["detector"], s), kind, key)
        )
        means = [[(e.survived.mean(), e.reward.mean()) for e in own] for own in found]
        row = Row(*np.moveaxis(np.asarray(means), -1, 0))
        return row, watching.measure(found, robot.env.dt)

    table, watched, gates = {}, None, {}
    for number, name in enumerate(config.arms):
        if name != ppo.OURS:
            aware = name == ppo.NO_REFLECTION
            table[row_name(name, "oracle" if aware else "blind")] = by_flag(number, aware)
            continue
        table[row_name(name, "oracle")] = by_flag(number, True)
        if number == 0 and "detector" in best:
            first = jax.tree.map(lambda x: x[:, 0], best[ppo.POLICIES])
            table[row_name(name, "learned")], watched = by_detector(first)
            if ppo.TUNED in best:
                table[row_name(ppo.TUNED, "learned")], _ = by_detector(best[ppo.TUNED])
        table[row_name(name, "blind")] = by_flag(number, False)
        if config.robot == "surrogate":
            own = jax.tree.map(lambda x: x[:, number], best[ppo.POLICIES])  # noqa: B023 — at once
            gates = reflection.gates(robot, policy, own, jax.random.key(TEST_KEY))
    return Results(table, watched, gates)


def pick(tree: Any, *index: int) -> Any:
    """Parameters of one seed, or of one seed and arm, on the device."""
    return jax.tree.map(lambda x: jnp.asarray(x[index]), tree)
