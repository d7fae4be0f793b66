"""`python -m benchmarks.quadruped`: SOLO8 steps a second, alone and while learning, against ant.

Variants: `solo8`, control steps under random actions; `ant`, Brax's on the same engine (MJX);
`learning`, the whole of an iteration of `train.quadruped solo8`: rollout, advantages, updates; and,
by `--variants ant solo8 learning go1`, MuJoCo Playground's Go1 joystick task with `impl=jax`.
Each lives in a process of its own; all are timed in turn. Memory is what the compiler plans for a
step, a robot, and that times 8,192.
"""

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from benchmarks.rounds import Measured, Variant, jax_peak_mb, measure, ratio, serve
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Positive
from train.engine import cli, tables
from train.engine.finished import choose

MANY = 8192
"""Robots for which the planned memory is said."""


@dataclass(frozen=True)
class Options:
    """The variants that are timed, and how."""

    num_envs: Annotated[int, Positive] = 64
    """Number of robots at once."""
    steps: Annotated[int, Positive] = 24
    """Control steps timed at a go; an iteration of the learner has 24 as well."""
    rounds: Annotated[int, Positive] = 3
    """Number of times that every variant has its turn; the median is shown."""
    variants: tuple[str, ...] = ("ant", "solo8", "learning")
    """Variants, of these three and go1, which needs MuJoCo Playground and its meshes."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print a table.

    Args:
        argv: command line without the program's name.

    Raises:
        InputError: see `check`.
    """
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = cli.parse_options(Options, argv, "python -m benchmarks.quadruped", __doc__ or "")
    check(options.variants)
    timings = measure("benchmarks.quadruped", options.variants, asdict(options), options.rounds)
    print(table(timings, options))


def table(timings: dict[str, Measured], options: Options) -> str:
    """A row for each variant."""
    lines = []
    for name, timing in timings.items():
        rate = options.num_envs / timing.median
        against = "-"
        if "ant" in timings and name != "ant":
            against = ratio(timings["ant"], timing, SUBSTEPS[name] / SUBSTEPS["ant"])
        lines.append(
            [
                name,
                f"{rate:.0f}",
                f"{SUBSTEPS[name] * rate:.0f}",
                against,
                f"{timing.compile_s:.0f}",
                f"{timing.peak_mb:.0f}",
            ]
        )
    head = ["variant", "control steps/s", "physics steps/s", "physics steps, against ant"]
    head += ["compile s", "peak MB"]
    return (
        f"{next(iter(timings.values())).device}; {options.num_envs} robots, median of "
        f"{options.rounds} x {options.steps} control steps\n\n{tables.table(head, lines)}"
    )


SUBSTEPS = {"ant": 5, "solo8": 4, "learning": 4, "go1": 5}
"""Number of physics steps of a control step."""


def check(variants: tuple[str, ...]) -> None:
    """Refuse variants that cannot be timed here, before a process is started for them.

    Args:
        variants: names of variants.

    Raises:
        InputError: no such variant, one named twice, or Playground or its meshes are missing.
    """
    choose(SUBSTEPS, variants, "--variants")
    if not variants:
        raise InputError(f"--variants: name at least one of {', '.join(SUBSTEPS)}")
    if "go1" not in variants:
        return
    place = importlib.util.find_spec("mujoco_playground")
    if place is None:
        raise InputError("--variants go1: needs MuJoCo Playground (pip install playground)")
    meshes = Path(place.origin).parent / "external_deps" / "mujoco_menagerie" / "unitree_go1"
    if not meshes.is_dir():
        raise InputError(
            f"--variants go1: no {meshes}; Playground fetches it when it first loads a robot "
            "(`from mujoco_playground import registry; registry.load('Go1JoystickFlatTerrain')`)"
        )


def worker(name: str, options: Options) -> None:
    """Serve one variant to the parent process.

    Args:
        name: name of the variant.
        options: settings of the measurement.
    """
    serve(build(name, options), jax_peak_mb)


def build(name: str, options: Options) -> Variant:
    """A variant by name, compiled; says on stderr what memory the compiler plans.

    Args:
        name: name of the variant.
        options: settings of the measurement.
    """
    # mjx greets on import, and what stands here is read by the parent
    with contextlib.redirect_stdout(sys.stderr):
        import jax

        step, state = prepare(name, options)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, jax.random.PRNGKey(0)).compile()
    compile_s = time.perf_counter() - start
    if plan := compiled.memory_analysis():
        held = plan.argument_size_in_bytes + plan.temp_size_in_bytes
        each = held / options.num_envs
        print(
            f"{name}: {each / 1e3:.0f} kB a robot, {each * MANY / 1e9:.2f} GB for {MANY}",
            file=sys.stderr,
        )
    carry = {"state": jax.block_until_ready(compiled(state, jax.random.PRNGKey(1)))}

    def run() -> float:
        start = time.perf_counter()
        state = compiled(carry["state"], jax.random.PRNGKey(2))
        carry["state"] = jax.block_until_ready(state)
        return (time.perf_counter() - start) / options.steps

    facts = {"compile_s": compile_s, "device": jax.devices()[0].device_kind}
    return Variant(run, facts, compiled.as_text)


Step = Callable[[Any, Any], Any]


def prepare(name: str, options: Options) -> tuple[Step, Any]:
    """What a variant repeats, `(state, key) -> state`, and the state to start from."""
    make = {"ant": _ant, "solo8": _solo8, "learning": _learning, "go1": _go1}[name]
    return make(options)


def _ant(options: Options) -> tuple[Step, Any]:
    from brax.envs.ant import Ant

    return _wander(Ant(backend="mjx"), options)


def _solo8(options: Options) -> tuple[Step, Any]:
    from envs.solo8 import Solo8

    return _wander(Solo8(), options)


def _go1(options: Options) -> tuple[Step, Any]:
    from mujoco_playground import registry

    env = registry.load("Go1JoystickFlatTerrain", config_overrides={"impl": "jax"})
    return _wander(env, options)


def _wander(env: Any, options: Options) -> tuple[Step, Any]:
    """Robots under random actions; what falls lies on."""
    import jax

    keys = jax.random.split(jax.random.PRNGKey(0), options.num_envs)

    def step(state: Any, key: Any) -> Any:
        def once(state: Any, key: Any) -> tuple[Any, None]:
            shape = (options.num_envs, env.action_size)
            actions = jax.random.uniform(key, shape, minval=-1, maxval=1)
            return jax.vmap(env.step)(state, actions), None

        return jax.lax.scan(once, state, jax.random.split(key, options.steps))[0]

    return step, jax.jit(jax.vmap(env.reset))(keys)


def _learning(options: Options) -> tuple[Step, Any]:
    import jax
    import jax.numpy as jnp

    from configs.quadruped import PRESETS
    from train.control import ppo, robots

    config = PRESETS["solo8"]
    config = replace(
        config, num_envs=options.num_envs, ppo=replace(config.ppo, rollout_length=options.steps)
    )
    stage = ppo.PpoStage(config, robots.build(config), None)
    batch = {"row": jnp.ones(options.num_envs)}
    hyper = jax.tree.map(jnp.asarray, ppo.arms(config)[ppo.OURS])
    state = jax.jit(lambda key: stage.init(key, batch, hyper, {}))(jax.random.key(0))

    def step(state: Any, key: Any) -> Any:
        return stage.step(state, batch, jax.random.wrap_key_data(key))[0]

    return step, state


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
