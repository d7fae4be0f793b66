"""The fault detector as a stage: supervised, on rollouts of frozen policies that it may switch.

The paper (arXiv:2402.08996) names a second training stage and publishes none. Windows of steady
gaits are told apart by the gait alone, since each head has its own; what counts is a fault that
has struck while the healthy head still drives. So a third of the robots is driven by an oracle, a
third by the healthy head whatever happens, a third by the detector under training, as deployed.
What the latter two show is rare, a few control steps from the onset to the fall, so they are struck
early and do not live on for long; the oracle's robots are watched for whole episodes. Where one
trained leg serves all four by mirroring, any of them fails here: the healthy gait has no symmetry.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from brax.envs.base import State
from jax import Array, lax

from configs.quadruped import QuadrupedConfig
from corrkd_jax import losses
from corrkd_jax.models.detector import CLASSES, FaultDetector
from corrkd_jax.models.policies import MultiTaskPolicy
from envs import faults, switching
from envs.faults import Fault
from envs.switching import Rule
from train.control import canonical, episodes, worlds
from train.control.robot import CONDITIONS, Robot, features
from train.control.worlds import Worlds
from train.engine import optimizer, parallel
from train.engine.stage import Context, Stage, Tree

ONSETS = (25, 125)
"""First and last control step at which robots are struck that the healthy head drives: most of what
they show is then the first second of a fault, and not what came long before or after."""
WATCHED = 50
"""Control steps from such an onset to the end of the episode."""
MEMORY = 0.95
"""Decay of the running means by which epochs are compared, an update."""
CLIP = 1.0
"""Largest norm of the gradient."""
ORACLE, BLIND, DETECTOR = range(3)
"""Who drives a robot: see `_drivers`."""


class Detecting(NamedTuple):
    """State of the stage.

    Attributes:
        params: of the detector.
        optimizer: Adam's state.
        robots: worlds and memories of this shard.
        running: mean recall of each class, `[3]`.
    """

    params: Tree
    optimizer: Tree
    robots: parallel.Own
    running: Array


def watched_robots(config: QuadrupedConfig) -> int:
    """Robots that the detector is trained on at once."""
    return config.detector.robots or config.num_envs


def build_detector(config: QuadrupedConfig, robot: Robot) -> FaultDetector:
    """The network of a configuration."""
    return FaultDetector(robot.joints, config.detector.hidden)


def remember(robot: Robot, memory: switching.Memory, states: State) -> switching.Memory:
    """Take in what `[robots]` have just sensed."""
    return jax.vmap(switching.remember)(memory, features(robot, states.obs))


def blank(robot: Robot, count: int) -> switching.Memory:
    """Memories of `[count]` robots that have done nothing yet."""
    one = switching.start(robot.observed)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), one)


def decide(memory: switching.Memory, probabilities: Array, rule: Rule) -> switching.Memory:
    """What `[robots]` believe after a detector's probabilities `[robots, joints, 3]`."""
    return jax.vmap(partial(switching.decide, rule=rule))(memory, probabilities)


def learned(robot: Robot, detector: FaultDetector, params: Tree, rule: Rule) -> episodes.Switch:
    """The switch as it is deployed; also shows the condition that each joint seems to be in."""

    def choose(memory: switching.Memory, states: State) -> tuple[switching.Memory, Array, dict]:
        memory = remember(robot, memory, states)
        logits = detector.apply({"params": params}, memory.window)
        memory = decide(memory, jax.nn.softmax(logits), rule)
        verdict = jnp.argmax(logits, axis=-1).astype(jnp.int8)
        true = episodes.shown(states).astype(jnp.int8)
        return memory, memory.kind, {"verdict": verdict, "true": true}

    return episodes.Switch(lambda states: blank(robot, states.obs.shape[0]), choose)


@dataclass(frozen=True)
class DetectorStage:
    """The functions of the stage and what they share.

    Attributes:
        config: of the run.
        robot: that is watched.
        policy: whose heads drive it; the first arm's.
        axis_name: mapped axis over which the robots are sharded, or None.
    """

    config: QuadrupedConfig
    robot: Robot
    policy: MultiTaskPolicy
    axis_name: str | None

    def stage(self) -> Stage:
        """The stage that the engine trains; an epoch is `report_every` updates."""
        settings = self.config.detector
        return Stage(
            name="detector",
            epochs=max(1, settings.updates // settings.report_every),
            data="watched",
            batch=watched_robots(self.config),
            init=self.init,
            step=self.step,
            evaluate=self.evaluate,
            summarize=self.summarize,
            select=lambda state: state.params,
            prepare=self.prepare,
            limits={"lost_worlds": worlds.LOST},
        )

    @property
    def detector(self) -> FaultDetector:
        """The network that is trained."""
        return build_detector(self.config, self.robot)

    def prepare(self, batch: Tree, key: Array, context: Context) -> Tree:
        """Adds the frozen policy of the first arm."""
        return {**batch, "policy": jax.tree.map(lambda x: x[0], context["policies"])}

    def init(self, key: Array, batch: Tree, hyper: None, context: Context) -> Detecting:
        """A fresh detector, robots at their spawn."""
        params_key, worlds_key = jax.random.split(key)
        count = batch["row"].shape[0]
        memory = blank(self.robot, count)
        params = self.detector.init(params_key, memory.window[:1])["params"]
        worlds_key = jax.random.fold_in(worlds_key, parallel.shard_index(self.axis_name))
        robots = worlds.start(self.robot, self._draw(count), worlds_key, count)
        descent = optimizer.adam(CLIP, ("detector",)).init({"detector": params})
        return Detecting(params, descent, parallel.Own((robots, memory)), jnp.zeros(CLASSES))

    def step(self, state: Detecting, batch: Tree, key: Array) -> tuple[Detecting, dict[str, Array]]:
        """Some control steps of all robots, and one of AdamW on the windows they ended with."""
        robots, (windows, labels, lost) = self._rollout(state, batch["policy"], key)
        settings = self.config.detector
        flat = labels.reshape(-1, self.robot.joints)
        targets = jax.nn.one_hot(flat, CLASSES)
        shares = parallel.mean(jnp.mean(targets, axis=0), self.axis_name)  # [joints, 3]
        weights = jnp.maximum(shares, 1e-3) ** -settings.balance
        weights = jnp.sum(targets * weights, axis=-1)

        def objective(tree: Tree) -> tuple[Array, Array]:
            logits = self.detector.apply({"params": tree["detector"]}, windows)
            logits = logits.reshape(-1, self.robot.joints, CLASSES)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, flat)
            return losses.reduce(each, weights, axis_name=self.axis_name), logits

        descent = optimizer.gradient_step(
            objective,
            {"detector": state.params},
            optimizer.adam(CLIP, ("detector",)),
            state.optimizer,
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            axis_name=self.axis_name,
        )
        right = targets * (jnp.argmax(descent.extra, axis=-1) == flat)[..., None]
        right = parallel.mean(jnp.mean(right, axis=(0, 1)), self.axis_name)
        shares = jnp.mean(shares, axis=0)
        # a class that no robot shows just now is not missed either
        recall = jnp.where(shares > 0, right / jnp.maximum(shares, 1e-6), state.running)
        running = MEMORY * state.running + (1 - MEMORY) * recall
        metrics = {
            "total": descent.value,
            "gradient_norm": optax.tree.norm(descent.gradients),
            "recall": jnp.mean(recall),
            "lost_worlds": parallel.mean(lost, self.axis_name),
        }
        params = descent.params["detector"]
        return Detecting(params, descent.state, parallel.Own(robots), running), metrics

    def evaluate(self, state: Detecting, batch: Tree) -> dict[str, Array]:
        """Running means of the training itself; no robot is simulated for it."""
        rows = jnp.sum(batch["row"])
        return {"recall": rows * state.running, "rows": rows}

    def summarize(self, sums: dict[str, Array]) -> dict[str, Array]:
        """Recall of each class, and their mean, by which the epoch is chosen."""
        recall = sums["recall"] / sums["rows"]
        named = {
            f"recall_{n.replace(' ', '_')}": r for n, r in zip(CONDITIONS, recall, strict=True)
        }
        return {"score": jnp.mean(recall), **named}

    def _draw(self, count: int) -> worlds.DrawFaults:
        """Each condition equally often: anywhere in the oracle's episodes, early in the others."""
        robot, rare = canonical.any_leg(self.config, self.robot), _drivers(count) != ORACLE
        first = jnp.where(rare, ONSETS[0], 0)
        last = jnp.where(rare, ONSETS[1], self.robot.steps - 2)

        def draw(key: Array) -> Fault:
            keys = jax.random.split(key, 3)
            conditions = jax.random.randint(keys[0], (count,), 0, len(CONDITIONS))
            onset = jax.random.randint(keys[1], (count,), first, last + 1)
            fault_keys = jax.random.split(keys[2], count)
            return jax.vmap(robot.fault)(fault_keys, conditions, onset)

        return draw

    def _hurried(self, states: State) -> State:
        """The clocks of robots that have been watched for long enough put forward to the end."""
        step, onset = states.info["step"], states.info["fault"].onset
        rare = _drivers(step.shape[0]) != ORACLE
        over = rare & (step >= onset + WATCHED)
        return states.replace(
            info=states.info | {"step": jnp.where(over, self.robot.steps - 1, step)}
        )

    def _rollout(self, state: Detecting, policy: Tree, key: Array) -> tuple[tuple, tuple]:
        """Robots and memories after some control steps; windows and the labels of their ends."""
        robots, memory = state.robots.tree
        count = memory.kind.shape[0]
        draw, driver = self._draw(count), _drivers(count)
        switch = learned(self.robot, self.detector, state.params, self.config.switch)
        tables = canonical.mirrors(self.config, self.robot)

        def move(carry: tuple[Worlds, switching.Memory], key: Array) -> tuple[tuple, tuple]:
            robots, memory = carry
            states = robots.states
            memory, believed, seen = switch.choose(memory, states)
            heads = jnp.where(
                driver == ORACLE, episodes.condition(states), believed * (driver == DETECTOR)
            )
            legs = jnp.where(driver == ORACLE, faults.leg(states.info["fault"]), memory.leg)
            actions = canonical.drive(self.policy, policy, tables, states.obs, heads, legs)
            robots = robots._replace(states=self._hurried(states))
            robots, outcome = worlds.advance(self.robot, robots, actions, draw, key)
            over = outcome.fell | outcome.timeout
            remembered = worlds.choose(over, blank(self.robot, count), memory)
            return (robots, remembered), (memory.window, seen["true"], outcome.lost)

        keys = jax.random.split(key, self.config.detector.rollout_length)
        carry, (windows, labels, lost) = lax.scan(move, (robots, memory), keys)
        shares = jnp.mean(jnp.any(lost, axis=0).astype(jnp.float32))
        return carry, (windows, labels.astype(jnp.int32), shares)


def _drivers(count: int) -> Array:
    """Who drives each robot `[count]`: the oracle, the healthy head, the detector in turn."""
    return jnp.arange(count) % 3
