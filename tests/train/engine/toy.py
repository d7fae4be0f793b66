"""A pipeline that compiles in a second: linear regression by a teacher, then by a student.

The loss couples the rows of a batch (the square of the mean prediction), so that it is wrong
wherever shards of a batch are not put together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from corrkd_jax.losses.batch import psum
from train.engine import parallel
from train.engine.pipeline import Pipeline
from train.engine.stage import Lanes, Stage, looped
from train.engine.workdir import Workdir

FEATURES = 3
NEVER = -1.0
TRACES: list[str] = []
"""Names of the stages whose step Python has run through, in order: one entry a trace."""


def data(rows: int = 64, valid: int = 30) -> dict[str, dict[str, np.ndarray]]:
    """Sets `train` and `valid` of noisy linear targets; `valid` does not divide into blocks."""
    random = np.random.default_rng(0)
    truth = np.array([1.0, -2.0, 0.5], np.float32)

    def part(n: int) -> dict[str, np.ndarray]:
        x = random.normal(size=(n, FEATURES)).astype(np.float32)
        y = (x @ truth + 0.5 * random.normal(size=n)).astype(np.float32)
        return {"x": x, "y": y, "row": np.ones(n, np.float32)}

    return {"train": part(rows), "valid": part(valid)}


@dataclass(frozen=True)
class ToyRows:
    """What `train.engine.feed.Feed` asks of a data set."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["row"])

    def take(self, index: Any = slice(None)) -> dict[str, np.ndarray]:
        return {name: x[index] for name, x in self.arrays.items()}


def two_arms(rate=(0.05, 0.2), soft=(0.0, 0.5), broken_at=(NEVER, NEVER)) -> dict[str, np.ndarray]:
    """Two arms: learning rate, weight of the teacher's targets, step whose metric is NaN."""
    arms = {"rate": rate, "soft": soft, "broken_at": broken_at}
    return {name: np.asarray(values, np.float32) for name, values in arms.items()}


def stages(
    axis_name: str | None,
    epochs: tuple[int, int] = (3, 4),
    noise: float | tuple[float, float] = 0.0,
    batch: int = 16,
    arms: dict[str, np.ndarray] | None = None,
    validate_every: int = 1,
    refresh: Callable[..., Any] | None = None,
    rate: float = 0.05,
) -> list[Stage]:
    """Teacher and student.

    Args:
        axis_name: as `train.sentiment.corrkd.build_stages` takes it.
        epochs: of the teacher and of the student.
        noise: deviation of what is added to the targets in every step, from the step's key.
        batch: rows a step.
        arms: hyper-parameters of the student's arms; by default `two_arms()`.
        validate_every: epochs between validations, in both stages.
        refresh: of the teacher.
        rate: the teacher's learning rate.
    """
    teacher = Stage(
        name="teacher",
        epochs=epochs[0],
        data="train",
        batch=batch,
        init=partial(_init, rate=rate),
        step=partial(_step, name="teacher", axis_name=axis_name, noise=noise),
        evaluate=_evaluate,
        summarize=_summarize,
        select=lambda state: state["w"],
        validate_every=validate_every,
        refresh=refresh,
    )
    student = replace(
        teacher,
        name="student",
        epochs=epochs[1],
        step=partial(_step, name="student", axis_name=axis_name, noise=noise),
        prepare=lambda batch, key, context: {
            **batch,
            "soft": batch["x"] @ context["teacher"] + noise * jax.random.normal(key),
        },
        hyper=two_arms() if arms is None else arms,
        refresh=None,
    )
    return [teacher, student]


def pipeline(layout: parallel.Layout, lanes: Lanes = looped, **options: Any) -> Pipeline:
    """Both stages on a layout."""
    return Pipeline(stages(layout.axis_name, **options), layout, lanes)


def claimed(folder: Path, kind: type[Workdir] = Workdir, resume: bool = False) -> Workdir:
    """A run's folder, ready to be written."""
    workdir = kind(folder, {}, resume)
    workdir.claim()
    return workdir


def train(
    pipe: Pipeline,
    sets: dict[str, Any],
    seeds: tuple[int, ...] = (5,),
    cuts: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Tracks after all epochs, in canonical layout; `cuts` are global epochs between two calls."""
    tracks = parallel.spread(pipe.empty(sets, seeds), pipe.layout)
    own = parallel.spread(np.asarray(seeds, np.int32), pipe.layout)
    on_device = parallel.replicate(sets, pipe.layout)
    ends = [0, *cuts, pipe.epochs]
    for first, last in pairwise(ends):
        tracks = pipe.advance(tracks, own, on_device, first, last)
    return parallel.collect(tracks, pipe.layout)


def _init(key, batch, hyper, context, *, rate):
    if hyper is None:
        plain = {"rate": rate, "soft": 0.0, "broken_at": NEVER}
        hyper = {name: jnp.float32(value) for name, value in plain.items()}
    return {
        "w": jax.random.normal(key, (batch["x"].shape[1],)),
        "offset": jnp.float32(0),
        "step": jnp.int32(0),
        "hyper": hyper,
    }


def _step(state, batch, key, *, name, axis_name, noise):
    TRACES.append(name)
    arm = state["hyper"]
    count = psum(jnp.sum(batch["row"]), axis_name)
    y = batch["y"] + noise * jax.random.normal(key, batch["y"].shape)

    def objective(w):
        prediction = batch["x"] @ w + state["offset"]
        fit = psum(jnp.sum((prediction - y) ** 2), axis_name) / count
        balance = (psum(jnp.sum(prediction), axis_name) / count) ** 2
        soft = (
            psum(jnp.sum((prediction - batch["soft"]) ** 2), axis_name) / count
            if "soft" in batch
            else jnp.float32(0)
        )
        total = fit + balance + arm["soft"] * soft
        return total, {"fit": fit, "balance": balance, "soft": soft}

    (total, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(state["w"])
    gradient = parallel.mean(gradient, axis_name)
    broken = jnp.where(state["step"] == arm["broken_at"], jnp.nan, 0.0)
    metrics = {
        **metrics,
        "balance": metrics["balance"] + broken,
        "total": total + broken,
        "gradient_norm": jnp.linalg.norm(gradient) + broken,
    }
    w = state["w"] - arm["rate"] * gradient
    return {**state, "w": w, "step": state["step"] + 1}, metrics


def _evaluate(state, batch):
    error = (batch["x"] @ state["w"] + state["offset"] - batch["y"]) ** 2
    return {"error": jnp.sum(batch["row"] * error), "count": jnp.sum(batch["row"])}


def _summarize(sums):
    mse = sums["error"] / sums["count"]
    return {"score": -mse, "mse": mse}
