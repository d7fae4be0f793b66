"""Which arm's parameters each row of the table is of: every arm is a mark, nothing is simulated."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import PRESETS
from train.control import episodes, reflection, robots, watching
from train.control.evaluation import by_condition
from train.control.report import BLIND, LEARNED, ORACLE, row_name


@pytest.fixture
def marks(monkeypatch):
    """Survival by row, and what the gates were asked about."""
    asked = []

    def run(robot, policy, params, switch, kind, key, count):
        value = jnp.full(count, params["mark"])
        return episodes.Episodes(value, 10 * value, {})

    def gates(robot, policy, own, key):
        asked.append(own["mark"].tolist())
        return {}

    monkeypatch.setattr(episodes, "run", run)
    monkeypatch.setattr(watching, "measure", lambda found, dt: "watched")
    monkeypatch.setattr(reflection, "gates", gates)

    def evaluate(*arms):
        config = replace(PRESETS["surrogate"], arms=arms, seeds=2, evaluation_robots=3)
        own = jnp.arange(2)[:, None] * 10 + jnp.arange(len(arms))
        best = {
            "policies": {"mark": own.astype(jnp.float32)},
            "detector": {"kernel": jnp.zeros(2)},
            "tuned": {"mark": jnp.array([7.0, 17.0])},
        }
        results = by_condition.evaluate(config, robots.build(config), best)
        for row in results.rows.values():
            np.testing.assert_allclose(row.reward, 10 * row.survival)
        survival = {name: row.survival for name, row in results.rows.items()}
        # every condition alike
        assert all((x == x[:, :1]).all() for x in survival.values())
        return {name: x[:, 0].tolist() for name, x in survival.items()}, results.watched, asked

    return evaluate


def test_the_detector_switches_the_first_arm_and_what_was_tuned(marks):
    found, watched, asked = marks("ours", "no-reflection", "mix")
    assert found == {
        ORACLE: [0, 10],
        LEARNED: [0, 10],
        row_name("tuned", "learned"): [7, 17],
        BLIND: [0, 10],
        row_name("no-reflection", "oracle"): [1, 11],
        row_name("mix", "blind"): [2, 12],
    }
    assert watched == "watched"
    assert asked == [[0, 10]]


def test_it_watched_no_other_arm_than_the_first(marks):
    found, watched, asked = marks("mix", "ours")
    assert found == {row_name("mix", "blind"): [0, 10], ORACLE: [1, 11], BLIND: [1, 11]}
    assert watched is None
    assert asked == [[1, 11]]
