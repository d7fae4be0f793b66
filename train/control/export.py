"""`python -m train.quadruped export RUN OUT`: policy, detector and switch for a robot.

Writes `OUT/policy.npz` and `OUT/policy.py`, which need nothing but NumPy; `OUT/policy.stablehlo`,
the same control step for many robots (for `jax.export.deserialize`; CPU, CUDA and TPU); and
`OUT/README.md`, which says what an observation is and how to call either.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array, export

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from envs import solo8_constants as c
from envs import surrogate, switching
from train.control import canonical, detection, finished, judging, ppo
from train.control import policy as robot_policy
from train.control.finished import Loaded, OwnRule
from train.control.robots import CONDITIONS
from train.engine import cli
from train.engine.finished import seed_number
from train.engine.progress import say
from train.engine.workdir import make_folder, write_text


@dataclass(frozen=True)
class ExportOptions:
    """The network of the run that is exported."""

    arm: str = ""
    """Arm of the run; empty: the tuned one, or else the first."""
    seed: Annotated[int, NotNegative] = 0
    """Seed; 0: the first of the run."""
    switch: OwnRule = field(default_factory=OwnRule)


def main(argv: Sequence[str]) -> None:
    """Export a finished run."""
    usage = "python -m train.quadruped export RUN OUT"
    names, rest = cli.leading(argv, 2, f"which run, and where to? {usage}", __doc__ or "")
    options = cli.parse_options(ExportOptions, rest, usage, __doc__ or "")
    run(Path(names[0]), Path(names[1]), options)


def run(folder: Path, out: Path, options: ExportOptions) -> None:
    """Write the controller of a finished run."""
    loaded = finished.load(folder, own=options.switch)
    chosen = pick(loaded, options.arm, options.seed)
    make_folder(out)
    description = facts(loaded) | {"run": folder.name}
    content = io.BytesIO()
    np.savez(content, facts=json.dumps(description), **arrays(chosen))
    write_atomically(out / "policy.npz", lambda file: file.write(content.getvalue()))
    write_text(out / "policy.py", Path(robot_policy.__file__).read_text())
    blob = build(loaded, chosen).serialize()
    write_atomically(out / "policy.stablehlo", lambda file: file.write(blob))
    text = readme(folder.name, description)
    write_text(out / "README.md", text)
    say(text)


class Chosen(NamedTuple):
    """What drives a robot: parameters of policy and detector, and how one leg serves all."""

    policy: Any
    detector: Any
    tables: canonical.Mirrors


def pick(loaded: Loaded, arm: str, seed: int) -> Chosen:
    """One seed of an arm.

    An arm of one network drives by it whatever the detector believes, and is not mirrored.

    Raises:
        InputError: the run has no such arm or seed, or no detector.
    """
    arm = arm or (ppo.TUNED if ppo.TUNED in loaded.policies else loaded.config.arms[0])
    if arm not in loaded.policies:
        raise InputError(f"--arm {arm}: the run has {', '.join(loaded.policies)}")
    number = seed_number(seed, loaded.config.first_seed, loaded.config.seeds)
    if loaded.detector_params is None:
        raise InputError("the run trained no detector (--detector.updates 0): nothing to switch by")
    policy = judging.pick(loaded.policies[arm], number)
    tables = canonical.mirrors(loaded.config, loaded.robot)
    if arm in ppo.ONE_NETWORK:
        policy = jax.tree.map_with_path(_healthy_head, policy)
        tables = canonical.unmirrored(loaded.robot)
    return Chosen(policy, judging.pick(loaded.detector_params, number), tables)


def _healthy_head(path: tuple, x: Array) -> Array:
    """All heads of a stacked parameter as the first; others as they are."""
    return jnp.broadcast_to(x[:1], x.shape) if ppo.of_heads(path) else x


def facts(loaded: Loaded) -> dict[str, Any]:
    """What a caller must know, as JSON."""
    robot, config = loaded.robot, loaded.config
    found = {
        "robot": config.robot,
        "heads": list(CONDITIONS),
        "joints": robot.joints,
        "observed": robot.observed,
        "layers": len(config.network.hidden) + 1,
        "kernel": loaded.detector.kernel,
        "window": switching.WINDOW,
        "confidence": config.switch.confidence,
        "strike_steps": config.switch.strike,
        "recovery_steps": config.switch.recovery,
        "dt": robot.env.dt,
        "observation": observation_order(loaded),
    }
    if config.robot == "surrogate":
        return found | {"action": [f"thrust of leg {leg}, clipped to 1" for leg in range(4)]}
    return found | {
        "model": config.body.model,
        "action": [f"{name}: (target - default) / {c.ACTION_SCALE}, rad" for name in c.JOINTS],
        "joint_order": list(c.JOINTS),
        "default_pose": c.DEFAULT_POSE.tolist(),
        "action_scale": c.ACTION_SCALE,
        "action_limit": loaded.config.body.action_limit,
        "kp": c.KP,
        "kd": c.KD,
        "torque_limit": c.TORQUE_LIMIT,
    }


def observation_order(loaded: Loaded) -> list[str]:
    """What each number of an observation is."""
    if loaded.config.robot == "surrogate":
        legs = range(surrogate.LEGS)
        actions = [f"last action of leg {leg}" for leg in legs]
        return ["speed", "tilt", "command", *actions, *(f"thrust of leg {leg}" for leg in legs)]
    orientation = {
        "quat": [f"orientation {axis}" for axis in "wxyz"],
        "gravity": [f"gravity {axis}, base frame, unit vector" for axis in "xyz"],
    }[loaded.config.body.obs_mode]
    speed, yaw = c.COMMAND_SCALE
    commands = [f"forward speed command x {speed}, m/s", f"yaw rate command x {yaw}, rad/s"]
    blocks = ("angle minus default, rad", f"velocity x {c.VELOCITY_SCALE}, rad/s", "last action")
    return [*orientation, *commands, *(f"{j} {what}" for what in blocks for j in c.JOINTS)]


def arrays(chosen: Chosen) -> dict[str, np.ndarray]:
    """All weights and tables by name, float32 and int."""
    tree = {
        "actor": chosen.policy["actor"],
        "detector": chosen.detector,
        "mirror": {
            name: {"index": table.index, "sign": table.sign.astype(np.float32)}
            for name, table in chosen.tables._asdict().items()
        },
    }
    return {name: np.asarray(x) for name, x in flatten_dict(tree, sep="/").items()}


def build(loaded: Loaded, chosen: Chosen) -> export.Exported:
    """The control step of many robots, as an exported function."""
    robot = loaded.robot

    def step(observations: Array, memory: dict[str, Array]) -> tuple[Array, Array, dict]:
        latest = observations[:, -robot.observed :]
        memory = jax.vmap(switching.remember)(switching.Memory(**memory), latest)
        logits = loaded.detector.apply({"params": chosen.detector}, memory.window)
        probabilities = jax.nn.softmax(logits)
        memory = detection.decide(memory, probabilities, loaded.config.switch)
        actions = canonical.drive(
            loaded.policy, chosen.policy, chosen.tables, observations, memory.kind, memory.leg
        )
        return actions, probabilities, memory._asdict()

    (batch,) = export.symbolic_shape("batch")
    one = detection.blank(robot, 1)._asdict()
    memory = {n: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for n, x in one.items()}
    observations = jax.ShapeDtypeStruct((batch, robot.env.observation_size), np.float32)
    exporter = export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))
    return exporter(observations, memory)


def readme(name: str, facts: dict[str, Any]) -> str:
    """How to call what was written."""
    rows = "\n".join(f"| {i} | {what} |" for i, what in enumerate(facts["observation"]))
    actions = "\n".join(f"| {i} | {what} |" for i, what in enumerate(facts["action"]))
    safety = ""
    if facts["robot"] == "solo8":
        safety = (
            f"\nClip the action to {facts['action_limit']} either way, which is also the last "
            "action that is observed next. Send `target = default_pose + action_scale * action` "
            f"to position feedback of the gains {facts['kp']} N m/rad and {facts['kd']} N m s/rad, "
            "torque limited to "
            f"{facts['torque_limit']} N m. Nothing here bounds targets or stops a robot that "
            "tips over: that is the caller's.\n"
        )
    return f"""# Controller of {name}

Call it every {facts["dt"]} s. With NumPy alone:

```python
from policy import Controller

controller = Controller("policy.npz")
action = controller(observation)  # [{len(facts["observation"])}] -> [{len(facts["action"])}]
controller.kind, controller.leg, controller.probabilities  # what it believes of the robot
```

For many robots at once, on CPU, CUDA or TPU:

```python
import jax.export
import numpy as np

step = jax.export.deserialize(bytearray(open("policy.stablehlo", "rb").read()))
robots = 4
memory = {{"window": np.zeros((robots, {facts["window"]}, {facts["observed"]}), np.float32)}}
memory |= {{
    name: np.zeros(robots, np.int32)
    for name in ("kind", "leg", "next_kind", "next_leg", "streak")
}}
actions, probabilities, memory = step.call(observations, memory)
```

Heads, and kinds: {", ".join(f"{i} {head}" for i, head in enumerate(facts["heads"]))}.
A fault must be seen for {facts["strike_steps"]} steps in a row with a probability above
{facts["confidence"]} before its head takes over, health for {facts["recovery_steps"]}.
{safety}
| observation | |
|---|---|
{rows}

| action | |
|---|---|
{actions}
"""
