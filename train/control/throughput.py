"""Control steps a second: of training, from what a run wrote down, and of its evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from configs.quadruped import QuadrupedConfig
from train.control import ppo
from train.control.detection import watched_robots
from train.engine import tables
from train.engine.workdir import TIMING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Rate(NamedTuple):
    """How fast robots were simulated, learning included where there was any.

    Attributes:
        what: a stage of the training, or "evaluation".
        steps: control steps of all robots, arms and seeds together.
        seconds: that they took, compilation apart.
        device: number and kind.
    """

    what: str
    steps: int
    seconds: float
    device: str

    @property
    def rate(self) -> float:
        """Control steps a second."""
        return self.steps / self.seconds


def of_training(folder: Path, config: QuadrupedConfig) -> list[Rate]:
    """Rates of a run's stages in order; none where the run has not written down its times.

    Args:
        folder: of the run.
        config: of the run.
    """
    try:
        lines = (folder / TIMING).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    totals: dict[tuple[str, str], list[float]] = {}
    for text in lines:
        try:
            call = json.loads(text)
        except json.JSONDecodeError:
            continue  # a kill cut it short
        key = call["stage"], f"{call['devices']} x {call['device']}"
        total = totals.setdefault(key, [0, 0])
        total[0] += call["steps"] * control_steps(call["stage"], config)
        total[1] += call["seconds"]
    return [Rate(stage, int(n), seconds, at) for (stage, at), (n, seconds) in totals.items()]


def control_steps(stage: str, config: QuadrupedConfig) -> int:
    """Control steps of all robots, arms and seeds in one step of a stage."""
    if stage == "detector":
        return config.seeds * watched_robots(config) * config.detector.rollout_length
    arms = len(config.arms) if stage == ppo.POLICIES else 1
    return config.seeds * arms * config.num_envs * config.ppo.rollout_length


def table(rates: Sequence[Rate]) -> str:
    """Rates as Markdown."""
    lines = [
        [
            each.what,
            f"{each.rate:.3g}",
            f"{each.steps:.3g} steps, {each.seconds:.3g} s",
            each.device,
        ]
        for each in rates
    ]
    return tables.table(["control steps a second", "rate", "measured over", "device"], lines)


def figure(rates: Sequence[Rate]) -> "Figure":
    """A bar for each rate, logarithmic."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8, 0.8 + 0.45 * len(rates)), layout="constrained")
    axes = drawing.subplots()
    names = [f"{each.what}\n{each.device}" for each in rates]
    values = [each.rate for each in rates]
    bars = axes.barh(range(len(rates)), values, color="tab:blue")
    axes.bar_label(bars, [f" {value:,.0f}" for value in values], fontsize=8)
    axes.set_yticks(range(len(rates)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="control steps a second, all robots, arms and seeds")
    axes.set_xlim(min(1, *values), 10 * max(values))
    return drawing


def to_json(rates: Sequence[Rate]) -> list[dict[str, str | float]]:
    """Rates as plain values."""
    return [each._asdict() | {"control_steps_a_second": each.rate} for each in rates]
