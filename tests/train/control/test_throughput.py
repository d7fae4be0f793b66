"""Control steps a second, from times written down by hand."""

import json
from dataclasses import replace

import pytest

from configs.quadruped import DetectorConfig, PpoConfig, QuadrupedConfig
from train.control import throughput
from train.engine.report import drawn

CONFIG = QuadrupedConfig(
    num_envs=64,
    arms=("ours", "mix"),
    seeds=3,
    ppo=PpoConfig(rollout_length=24),
    detector=DetectorConfig(robots=32, rollout_length=4),
)


def call(stage, steps, seconds, device="cpu"):
    return json.dumps(
        {"stage": stage, "steps": steps, "seconds": seconds, "devices": 1, "device": device}
    )


def test_rates_of_a_run(tmp_path):
    lines = [
        call("policies", 2, 1.0),
        call("policies", 3, 4.0)[:20],  # a kill, and the resumed run after it in the same line
        call("policies", 6, 3.0),
        call("detector", 10, 2.0),
        call("tuned", 1, 0.5),
        call("tuned", 1, 0.25, "gpu"),
    ]
    lines[1:3] = [lines[1] + lines[2], call("policies", 6, 3.0)]
    (tmp_path / "timing.jsonl").write_text("\n".join(lines) + "\n")
    rates = throughput.of_training(tmp_path, CONFIG)
    assert [(each.what, each.device) for each in rates] == [
        ("policies", "1 x cpu"),
        ("detector", "1 x cpu"),
        ("tuned", "1 x cpu"),
        ("tuned", "1 x gpu"),
    ]
    # iterations x robots x control steps x arms x seeds
    assert (rates[0].steps, rates[0].seconds) == (8 * 64 * 24 * 2 * 3, 4)
    assert rates[0].rate == 8 * 64 * 24 * 2 * 3 / 4
    # one arm is watched, and one is tuned
    assert rates[1].steps == 10 * 32 * 4 * 3
    assert rates[2].steps == 64 * 24 * 3
    text = throughput.table(rates)
    assert "| policies | 1.84e+04 | 7.37e+04 steps, 4 s | 1 x cpu |" in text
    assert len(drawn(throughput.figure(rates))) > 5000


def test_as_many_robots_are_watched_as_trained_unless_said_otherwise():
    config = replace(CONFIG, detector=DetectorConfig(robots=0, rollout_length=1))
    assert throughput.control_steps("detector", config) == 64 * 3


def test_runs_that_wrote_nothing_down(tmp_path):
    assert throughput.of_training(tmp_path, CONFIG) == []


@pytest.mark.parametrize("rate", [0.4, 5e5])
def test_json(rate):
    (found,) = throughput.to_json([throughput.Rate("evaluation", 100, 100 / rate, "1 x gpu")])
    assert found["control_steps_a_second"] == pytest.approx(rate)
    assert found["device"] == "1 x gpu"
