"""`python -m train.export RUN OUT` for runs of `train.quadruped`: a controller for a robot.

The controller is policy, detector and switch. `OUT/policy.npz` and `OUT/policy.py` need nothing but
NumPy; `OUT/policy.stablehlo` is the same control step for many robots (for
`jax.export.deserialize`; CPU, CUDA and TPU); `OUT/README.md` says what an observation is and how to
call either.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from envs import switching
from train.control import canonical, detection, finished, ppo
from train.control import policy as controller
from train.control.finished import SwitchOptions, Trained
from train.control.robot import CONDITIONS
from train.engine import cli, tables
from train.engine.progress import say
from train.engine.workdir import make_folder, write_text


@dataclass(frozen=True)
class ExportOptions:
    """The network of the run that is exported."""

    arm: str = ""
    """Arm of the run; empty: the tuned one, or else the first."""
    seed: Annotated[int, NotNegative] = 0
    """Seed; 0: the first of the run."""
    switch: SwitchOptions = field(default_factory=SwitchOptions)


def export(folder: Path, out: Path, argv: Sequence[str]) -> None:
    """Write the controller of a finished run; arguments as of `train.programs`.

    Raises:
        InputError: the run is not finished, has no such arm or seed, or no detector; or the disk
            refuses.
    """
    options = cli.parse_options(
        ExportOptions, argv, "python -m train.export RUN OUT", __doc__ or ""
    )
    run = finished.load_run(folder, options.switch)
    driver = driver_of(run, options.arm, options.seed)
    make_folder(out)
    arm, seed = arm_of(run, options.arm), run.seed(options.seed)
    metadata = metadata_of(run) | {"run": folder.name, "arm": arm, "seed": seed}
    content = controller_file(metadata, driver)
    write_atomically(out / "policy.npz", lambda file: file.write(content))
    write_text(out / "policy.py", Path(controller.__file__).read_text(encoding="utf-8"))
    blob = build(run, driver).serialize()
    write_atomically(out / "policy.stablehlo", lambda file: file.write(blob))
    text = readme(metadata, tables.seeds_in_words(run.seeds), run.robot.kind.safety(metadata))
    write_text(out / "README.md", text)
    say(text)


class Driver(NamedTuple):
    """What drives a robot: parameters of policy and detector, and how one leg serves all."""

    policy: Any
    detector: Any
    tables: canonical.Mirrors


def arm_of(run: Trained, arm: str) -> str:
    """The arm that a name stands for; empty: the tuned one, or else the first."""
    return arm or (ppo.TUNED if ppo.TUNED in run.models else run.config.arms[0])


def driver_of(run: Trained, arm: str, seed: int) -> Driver:
    """One seed of an arm.

    An arm of one network drives by it whatever the detector believes, and is not mirrored.

    Args:
        run: as brought back.
        arm: its name; empty: the tuned one, or else the first.
        seed: 0: the first of the run.

    Raises:
        InputError: the run has no such arm or seed, or no detector.
    """
    arm = arm_of(run, arm)
    policy = run.one(arm, seed)
    if run.detector_params is None:
        raise InputError("the run trained no detector (--detector.updates 0): nothing to switch by")
    tables = canonical.mirrors(run.config, run.robot)
    if arm in ppo.ONE_NETWORK:
        policy = jax.tree.map_with_path(_healthy_head, policy)
        tables = canonical.unmirrored(run.robot)
    networks = jax.tree.map(jnp.asarray, (policy, run.detector_of(seed)))
    return Driver(*networks, tables)


def _healthy_head(path: tuple, x: Array) -> Array:
    """All heads of a stacked parameter as the first; others as they are."""
    return jnp.broadcast_to(x[:1], x.shape) if ppo.of_heads(path) else x


def metadata_of(run: Trained) -> dict[str, Any]:
    """What the caller of a controller must know, as JSON."""
    robot, config = run.robot, run.config
    return {
        "robot": robot.kind.name,
        "heads": list(CONDITIONS),
        "legs": list(robot.kind.legs),
        "joints": robot.joints,
        "observed": robot.observed,
        "layers": len(config.network.hidden) + 1,
        "kernel": run.detector.kernel,
        "window": switching.WINDOW,
        "confidence": config.switch.confidence,
        "strike_steps": config.switch.strike,
        "recovery_steps": config.switch.recovery,
        "dt": robot.env.dt,
        "observation": robot.kind.observation(config.body),
        **robot.kind.actuation(config.body),
    }


def controller_file(metadata: dict[str, Any], driver: Driver) -> bytes:
    """`policy.npz`: what `train.control.policy.Controller` reads.

    Args:
        metadata: of `metadata_of`.
        driver: weights and tables.
    """
    content = io.BytesIO()
    np.savez(content, metadata=json.dumps(metadata), **arrays(driver))
    return content.getvalue()


def arrays(driver: Driver) -> dict[str, np.ndarray]:
    """All weights and tables by name, float32 and int."""
    tree = {
        "actor": driver.policy["actor"],
        "detector": driver.detector,
        "mirror": {
            name: {"index": table.index, "sign": table.sign.astype(np.float32)}
            for name, table in driver.tables._asdict().items()
        },
    }
    return {name: np.asarray(x) for name, x in flatten_dict(tree, sep="/").items()}


def build(run: Trained, driver: Driver) -> jax.export.Exported:
    """The control step of many robots, as an exported function."""
    robot = run.robot

    def step(observations: Array, memory: dict[str, Array]) -> tuple[Array, Array, dict]:
        latest = observations[:, -robot.observed :]
        memory = jax.vmap(switching.remember)(switching.Memory(**memory), latest)
        logits = run.detector.apply({"params": driver.detector}, memory.window)
        probabilities = jax.nn.softmax(logits)
        memory = detection.decide(memory, probabilities, run.config.switch)
        actions = canonical.drive(
            run.policy, driver.policy, driver.tables, observations, memory.kind, memory.leg
        )
        return actions, probabilities, memory._asdict()

    (batch,) = jax.export.symbolic_shape("batch")
    one = detection.blank(robot, 1)._asdict()
    memory = {n: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for n, x in one.items()}
    observations = jax.ShapeDtypeStruct((batch, robot.env.observation_size), np.float32)
    exporter = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))
    return exporter(observations, memory)


def readme(metadata: dict[str, Any], seeds: str, safety: str) -> str:
    """How to call what was written.

    Args:
        metadata: of the controller.
        seeds: of the run, in words.
        safety: what its user has to see to; may be empty.
    """
    rows = "\n".join(f"| {i} | {what} |" for i, what in enumerate(metadata["observation"]))
    actions = "\n".join(f"| {i} | {what} |" for i, what in enumerate(metadata["action"]))
    safety = f"\n{safety}\n" if safety else ""
    return f"""# Controller of {metadata["run"]}

Arm {metadata["arm"]}, seed {metadata["seed"]}; the run has {seeds}.

Call it every {metadata["dt"]} s. With NumPy alone:

```python
from policy import Controller

controller = Controller("policy.npz")
action = controller(observation)  # [{len(metadata["observation"])}] -> [{len(metadata["action"])}]
controller.kind, controller.leg, controller.probabilities  # what it believes of the robot
```

For many robots at once, on CPU, CUDA or TPU:

```python
import jax.export
import numpy as np

step = jax.export.deserialize(bytearray(open("policy.stablehlo", "rb").read()))
robots = 4
memory = {{"window": np.zeros((robots, {metadata["window"]}, {metadata["observed"]}), np.float32)}}
memory |= {{
    name: np.zeros(robots, np.int32)
    for name in ("kind", "leg", "next_kind", "next_leg", "streak")
}}
actions, probabilities, memory = step.call(observations, memory)
```

Heads, and kinds: {", ".join(f"{i} {head}" for i, head in enumerate(metadata["heads"]))}.
Legs: {", ".join(f"{i} {leg}" for i, leg in enumerate(metadata["legs"]))}; in health the leg is 0.
A fault must be seen for {metadata["strike_steps"]} steps in a row with a probability above
{metadata["confidence"]} before its head takes over, health for {metadata["recovery_steps"]}.

The detector knows the gaits of this controller alone, and takes another controller's gait for a
fault. Do not use its verdicts on a robot that anything else drives.
{safety}
| observation | |
|---|---|
{rows}

| action | |
|---|---|
{actions}
"""
