"""`python -m benchmarks.solver`: cost and accuracy of SOLO8's constraint solver.

Each row is a solver, MJX's or `envs.solo8_solver`, with a number of Newton iterations and of steps
of their line searches. The error is that of one physics step, from states of robots that walk,
limp, fall and have locked joints, against a solver that has converged: its size over that of the
change of velocity. Time is that of a physics step of all robots, the least of all rounds, beside
Brax's ant as its environment has it.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.ant import Ant
from jax import Array, lax
from mujoco import mjx

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Positive
from envs import faults, solo8_solver
from envs import solo8_constants as c
from envs.solo8 import Config, Solo8, motor_torque
from train.engine import cli, tables

CONVERGED = (12, 20)
NO_PLAY = (0.0, 0.0)
STEPS = {"mjx": mjx.step, "own": solo8_solver.step}


@dataclass(frozen=True)
class Options:
    """The solvers that are timed, and how."""

    num_envs: Annotated[int, Positive] = 64
    """Number of robots at once: half healthy, a quarter without power, a quarter locked."""
    steps: Annotated[int, Positive] = 240
    """Number of physics steps."""
    rounds: Annotated[int, Positive] = 12
    """Number of times that every row has its turn."""
    rows: tuple[tuple[Literal["mjx", "own"], int, int], ...] = (
        ("mjx", 4, 3),
        ("own", 6, 2),
        ("own", 5, 2),
        ("own", 5, 1),
        ("own", 4, 2),
        ("own", 3, 2),
        ("own", 1, 2),
    )
    """Solver, iterations and steps of the line search, for each row."""


class Gait:
    """Robots that swing their legs with phases and sizes of their own, some of them with faults."""

    def __init__(self, count: int):
        """Draw the phases and sizes.

        Args:
            count: number of robots.
        """
        random = np.random.default_rng(0)
        self.phase = jnp.asarray(random.uniform(0, 2 * np.pi, (count, 8)))
        self.size = jnp.asarray(random.uniform(0, 0.5, (count, 1)))
        front_left = np.arange(8) < 2
        kind = np.arange(count) % 4
        self.dead = jnp.asarray((kind == 2)[:, None] & front_left)
        self.locked = jnp.asarray((kind == 3)[:, None] & front_left)

    def step(self, solver: str, sys: Any, data: Any, t: Array) -> Any:
        """One physics step of all robots.

        Args:
            solver: name in `STEPS`.
            sys: physics of the robot.
            data: batched MJX data.
            t: number of the step.

        Returns:
            Batched MJX data.
        """
        swing = self.size * jnp.sin(2 * np.pi * 2.5 * c.PHYSICS_DT * t + self.phase)
        error = c.DEFAULT_POSE + swing - data.qpos[:, 7:]
        torque = motor_torque(error, data.qvel[:, 6:], self.dead)

        def one(data: Any, torque: Array, locked: Array) -> Any:
            held = faults.lock(sys, data, locked, jnp.asarray(c.DEFAULT_POSE), NO_PLAY)
            return STEPS[solver](held[0], held[1].replace(ctrl=torque))

        return jax.vmap(one)(data, torque, self.locked)


def solo8(iterations: int, searches: int) -> Any:
    """Physics of the robot with a given accuracy of the solver.

    Args:
        iterations: number of Newton iterations.
        searches: number of steps of a line search.

    Returns:
        Brax's system.
    """
    sys = Solo8(Config(solver_iterations=iterations)).sys
    return sys.tree_replace({"opt.ls_iterations": searches})


def start(sys: Any, pose: Any, count: int) -> Any:
    """Robots in a pose, each a little in motion.

    Args:
        sys: physics of the robot.
        pose: `qpos` of all robots.
        count: number of robots.

    Returns:
        Batched MJX data.
    """
    data = mjx.make_data(sys).replace(qpos=jnp.asarray(pose, jnp.float32))
    keys = jax.random.split(jax.random.PRNGKey(0), count)
    return jax.vmap(lambda key: data.replace(qvel=0.2 * jax.random.normal(key, (sys.nv,))))(keys)


def timed(step: Callable[[Any, Array], Any], first: Any, steps: int) -> Callable[[], float]:
    """Clock of one physics step, compiled and warm.

    Args:
        step: `(data, number of the step) -> data`.
        first: batched data to begin with.
        steps: number of physics steps of a measurement.

    Returns:
        A function that measures anew at every call and returns seconds a step.
    """

    def rollout(data: Any) -> Any:
        return lax.scan(lambda d, t: (step(d, t), None), data, jnp.arange(steps))[0]

    compiled = jax.jit(rollout).lower(first).compile()
    jax.block_until_ready(compiled(first))

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(first))
        return (time.perf_counter() - began) / steps

    return once


def check(rows: Sequence[tuple[str, int, int]]) -> None:
    """Refuse rows without an iteration or a place; raises an InputError that names the row."""
    for row in rows:
        if min(row[1:]) < 1:
            raise InputError("--rows {} {} {}: iterations and places must be positive".format(*row))


def main(argv: Sequence[str]) -> None:
    """Measure all rows and print a table."""
    options = cli.parse_options(Options, argv, "python -m benchmarks.solver", __doc__ or "")
    check(options.rows)
    count, gait = options.num_envs, Gait(options.num_envs)
    times = jnp.arange(options.steps)
    exact = solo8(*CONVERGED)
    pose = np.concatenate([[0, 0, 0.24, 1, 0, 0, 0], c.DEFAULT_POSE])
    first = start(exact, pose, count)

    @jax.jit
    def history(data: Any) -> tuple[Any, Array]:
        def move(data: Any, t: Array) -> tuple[Any, Any]:
            after = gait.step("mjx", exact, data, t)
            return after, (data, after.qvel)

        return lax.scan(move, data, times)[1]

    states, right = jax.block_until_ready(history(first))
    change = np.sqrt(np.mean(np.sum((np.asarray(right) - states.qvel) ** 2, axis=-1)))
    clocks, errors = {}, {}
    ant = Ant(backend="mjx").sys
    at_rest = start(ant, ant.qpos0, count)
    clocks["ant"] = timed(
        lambda d, t: jax.vmap(lambda d: mjx.step(ant, d))(d), at_rest, options.steps
    )
    for row in options.rows:
        print("compiling {}, {} iterations, {} places".format(*row), file=sys.stderr, flush=True)
        step = partial(gait.step, row[0], solo8(*row[1:]))
        clocks[row] = timed(step, first, options.steps)

        @jax.jit
        def again(states: Any, step: Any = step) -> Array:
            return lax.map(lambda x: step(*x).qvel, (states, times))

        size = np.linalg.norm(np.asarray(again(states)) - np.asarray(right), axis=-1) / change
        errors[row] = np.sqrt(np.mean(size**2)), np.quantile(size, 0.99)
    taken = {name: [] for name in clocks}
    for _ in range(options.rounds):
        for name, clock in clocks.items():
            taken[name].append(clock())
    least = {name: min(each) for name, each in taken.items()}
    print(f"{jax.devices()[0].device_kind}, {count} robots; least of {options.rounds} rounds\n")
    names = "solver", "iterations", "places", "ms a step", "speed against ant", "error, rms", "99 %"
    lines = [["ant's, of MJX", "", "", f"{1e3 * least['ant']:.3f}", "1", "", ""]]
    for row, (rms, tail) in errors.items():
        times_of = f"{1e3 * least[row]:.3f}", f"{least['ant'] / least[row]:.2f}"
        lines.append([*map(str, row), *times_of, f"{rms:.4f}", f"{tail:.4f}"])
    print(tables.table(names, lines))


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
