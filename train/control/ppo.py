"""Several policies by PPO as one stage: its state holds the worlds, a step is rollout plus update.

arXiv:2402.08996 as its released code has it. Arms differ in traced numbers alone (which head each
group uses, what is broken, reflection), so an ablation is one program. A row of the stage's data
stands for one world's part in one iteration; what it holds is not read.

No detector sees a fault in the step in which it strikes. `--faults.takeover` lets the healthy head
drive on for a drawn number of steps, which count for nothing in the update, so that a fault head
learns to take over a robot that has begun to fall. `--faults.takeover-ramp` begins with none: heads
that are always late from the start meet falls alone and may never learn to stand.

With a detector the stage tunes the fault heads of the first arm as they are deployed: the detector
chooses the head of every robot at every step, late as it is, and front and healthy head stay. They
drive without exploring, as the detector knows them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from configs.quadruped import QuadrupedConfig
from corrkd_jax.losses import policy as losses
from corrkd_jax.losses import reduce
from corrkd_jax.models.detector import FaultDetector
from corrkd_jax.models.policies import MultiTaskPolicy
from envs.faults import HEALTHY, Fault
from train.control import detection, worlds
from train.control.robot import CONDITIONS, Robot
from train.control.worlds import GROUPS, Worlds
from train.engine import optimizer, parallel
from train.engine.finished import choose
from train.engine.stage import Context, Stage, Tree

OURS, NO_REFLECTION, MIX, NORMAL = "ours", "no-reflection", "mix", "normal"
POLICIES, TUNED = "policies", "tuned"
"""Names of the stage without and with a detector."""
ONE_NETWORK = (MIX, NORMAL)
"""Arms that have no heads to switch between."""
MEMORY = 0.9
"""Decay of the running means by which epochs are compared, an iteration."""
_TAKEOVER = 1000
"""Folded into a key that the worlds use as well; small numbers would give the keys that `split`
gives them."""


class Hyper(NamedTuple):
    """What may differ from arm to arm inside one program; traced.

    Attributes:
        heads: `[4]`, the head of each group of worlds.
        conditions: `[4]`, what is broken in each group, as `envs.faults` numbers it.
        reflection: probability that a faulty episode starts from its partner's state.
        learning_rate: at the start.
    """

    heads: Any
    conditions: Any
    reflection: Any
    learning_rate: Any


class Training(NamedTuple):
    """State of the stage.

    Attributes:
        params: of the policy.
        optimizer: Adam's state.
        rate: learning rate now.
        hyper: of the arm.
        worlds: the robots of this shard, and what decides who drives each: what its detector
            remembers, or how long the healthy head drives on `[worlds]`; else None.
        running: `[4]` means by group of what epochs are compared by.
        iteration: how many there were.
    """

    params: Tree
    optimizer: Tree
    rate: Array
    hyper: Hyper
    worlds: parallel.Own
    running: dict[str, Array]
    iteration: Array


class Samples(NamedTuple):
    """Control steps as an update sees them; leading axes `[groups, samples]` or more.

    Attributes:
        head: that drove; None where each group has its own throughout.
        counted: whether an update may learn from the step; None for all. With steps of a head that
            is not to move the divergence would seem a fraction of what it is.
    """

    observation: Array
    head: Array | None
    counted: Array | None
    action: Array
    mean: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array


def build_policy(config: QuadrupedConfig, robot: Robot) -> MultiTaskPolicy:
    """The network of a configuration."""
    return MultiTaskPolicy(
        robot.env.action_size,
        len(CONDITIONS),
        config.network.front,
        config.network.hidden,
        config.ppo.initial_std,
    )


def arms(config: QuadrupedConfig) -> dict[str, Hyper]:
    """Arms by name.

    Raises:
        InputError: an arm is unknown, or named twice.
    """
    each, one = np.array(GROUPS), np.zeros(4, int)
    known = {
        OURS: Hyper(each, each, config.reflection, config.ppo.learning_rate),
        NO_REFLECTION: Hyper(each, each, 0.0, config.ppo.learning_rate),
        # a single network: the other heads are never used
        MIX: Hyper(one, each, config.reflection, config.ppo.learning_rate),
        NORMAL: Hyper(one, np.full(4, HEALTHY), 0.0, config.ppo.learning_rate),
    }
    return choose(known, config.arms)


@dataclass(frozen=True)
class PpoStage:
    """The functions of the stage and what they share.

    Attributes:
        config: of the run.
        robot: that is trained.
        axis_name: mapped axis over which the worlds are sharded, or None.
        detector: that switches the heads while they are tuned, or None.
    """

    config: QuadrupedConfig
    robot: Robot
    axis_name: str | None
    detector: FaultDetector | None = None

    def stage(self) -> Stage:
        """The stage that the engine trains; an epoch is `report_every` iterations."""
        rows = arms(self.config).values()
        settings, tunes = self.config.ppo, self.detector is not None
        iterations = self.config.detector.tune_iterations if tunes else settings.iterations
        return Stage(
            name=TUNED if tunes else POLICIES,
            epochs=max(1, iterations // settings.report_every),
            data="worlds",
            batch=self.config.num_envs,
            init=self.init,
            step=self.step,
            evaluate=self.evaluate,
            summarize=self.summarize,
            select=lambda state: state.params,
            prepare=self.prepare,
            hyper=None
            if tunes
            else Hyper(
                *(
                    np.stack([np.asarray(getattr(row, name), kind) for row in rows])
                    for name, kind in zip(
                        Hyper._fields, (np.int32, np.int32, np.float32, np.float32), strict=True
                    )
                )
            ),
            limits={"lost_worlds": worlds.LOST},
        )

    @property
    def policy(self) -> MultiTaskPolicy:
        """The network that is trained."""
        return build_policy(self.config, self.robot)

    @property
    def _descent(self) -> optax.GradientTransformation:
        return optimizer.adam(self.config.ppo.clip_norm, ("policy",))

    def prepare(self, batch: Tree, key: Array, context: Context) -> Tree:
        """Adds the frozen detector."""
        return batch if self.detector is None else {**batch, "detector": context["detector"]}

    def init(self, key: Array, batch: Tree, hyper: Hyper | None, context: Context) -> Training:
        """Fresh robots, and fresh parameters unless those of the first arm are tuned."""
        params_key, worlds_key = jax.random.split(key)
        # each shard has robots of its own
        worlds_key = jax.random.fold_in(worlds_key, parallel.shard_index(self.axis_name))
        count = batch["row"].shape[0]
        if self.detector is None:
            blank = jnp.zeros((4, 1, self.robot.env.observation_size))
            params = self.policy.init(params_key, blank, hyper.heads)["params"]
        else:
            params = jax.tree.map(lambda x: x[0], context[POLICIES])
            # faults strike in the middle of an episode, which is what reflection stands for
            groups = jnp.array(GROUPS)
            hyper = Hyper(
                groups, groups, jnp.float32(0), jnp.float32(self.config.ppo.learning_rate)
            )
        draw, memory = self._draw(hyper, count), self._blank(worlds_key, count, 0)
        running = ("reward", "fell", "ended")
        return Training(
            params,
            self._descent.init({"policy": params}),
            jnp.asarray(hyper.learning_rate, jnp.float32),
            hyper,
            parallel.Own((worlds.start(self.robot, draw, worlds_key, count), memory)),
            {name: jnp.zeros(4) for name in running},
            jnp.int32(0),
        )

    def step(self, state: Training, batch: Tree, key: Array) -> tuple[Training, dict[str, Array]]:
        """One rollout of all robots and the updates that it is good for."""
        rollout_key, order_key = jax.random.split(key)
        robots, samples, seen = self._rollout(state, batch, rollout_key)
        order = self._stratified(order_key, samples.value.shape[1])
        # [minibatches, groups, samples]; one shuffle for all epochs
        minibatches = jax.tree.map(
            lambda x: jax.vmap(lambda group, at: group[at], in_axes=(0, 1), out_axes=1)(x, order),
            samples,
        )
        std = self._std(state.params)

        def epoch(carry: tuple, _: None) -> tuple[tuple, dict[str, Array]]:
            def update(carry: tuple, minibatch: Samples) -> tuple[tuple, dict[str, Array]]:
                return self._update(*carry, state.hyper, minibatch, std)

            return lax.scan(update, carry, minibatches)

        carry = (state.params, state.optimizer, state.rate)
        carry, terms = lax.scan(epoch, carry, length=self.config.ppo.epochs)
        running = {
            name: MEMORY * old + (1 - MEMORY) * seen[name] for name, old in state.running.items()
        }
        metrics = jax.tree.map(jnp.mean, terms)
        metrics |= {
            "rate": carry[2],
            "std": jnp.mean(self._std(carry[0])),
            "lost_worlds": seen["lost"],
            "reward": jnp.mean(seen["reward"]),
            "falls": jnp.mean(seen["fell"]),
            # root mean squares of what the first two groups, the healthy robots, miss, and of what
            # they would miss if they did not move
            "missed_speed": jnp.sqrt(jnp.mean(seen["missed"][:2])),
            "commanded_speed": jnp.sqrt(jnp.mean(seen["commanded"][:2])),
            **{f"reward_{name}": x for name, x in seen["terms"].items()},
        }
        robots = parallel.Own(robots)
        return Training(*carry, state.hyper, robots, running, state.iteration + 1), metrics

    def evaluate(self, state: Training, batch: Tree) -> dict[str, Array]:
        """Running means of the training itself; no robot is simulated for it."""
        rows = jnp.sum(batch["row"])
        ramps = self._ramp, self.config.faults.takeover_ramp if self._late else 0
        eased = rows * (state.iteration < max(ramps))
        return {**{n: rows * x for n, x in state.running.items()}, "eased": eased, "rows": rows}

    def summarize(self, sums: dict[str, Array]) -> dict[str, Array]:
        """Reward and survival by group; the score is their product, mean over groups.

        `ended` is the share of control steps that ended an episode: at 0 nobody's survival is
        known yet.
        """
        mean = {name: x / sums["rows"] for name, x in sums.items() if name != "rows"}
        survival = 1 - mean["fell"] / jnp.maximum(mean["ended"], 1e-6)
        tasks = {"healthy": slice(0, 2), "power_loss": slice(2, 3), "locked": slice(3, 4)}
        score = jnp.mean(survival * mean["reward"])
        return {
            # with penalties below their weights rewards are larger, with heads that take over
            # early survival is, and nothing is comparable
            "score": jnp.where(mean["eased"] > 0, -1.0, score),
            **{f"survival_{n}": jnp.mean(survival[at]) for n, at in tasks.items()},
            **{f"reward_{n}": jnp.mean(mean["reward"][at]) for n, at in tasks.items()},
            **{f"ended_{n}": jnp.mean(mean["ended"][at]) for n, at in tasks.items()},
        }

    @property
    def _ramp(self) -> int:
        """Iterations whose penalties are below their weights."""
        return 0 if self.detector is not None else self.config.ppo.penalty_ramp

    @property
    def _late(self) -> bool:
        """Whether the healthy head drives faulty robots until their own takes over."""
        return self.detector is None and self.config.faults.takeover[1] > 0

    def _blank(self, key: Array, count: int, iteration: Array | int) -> Any:
        """What decides who drives, at the start of an episode; see `Training.worlds`."""
        if self.detector is not None:
            return detection.blank(self.robot, count)
        if not self._late:
            return None
        faults = self.config.faults
        first, last = faults.takeover
        drawn = jax.random.randint(jax.random.fold_in(key, _TAKEOVER), (count,), first, last + 1)
        if not faults.takeover_ramp:
            return drawn
        part = jnp.minimum(iteration / faults.takeover_ramp, 1)
        return jnp.round(drawn * part).astype(drawn.dtype)

    def _look(
        self, hyper: Hyper, batch: Tree, robots: Worlds, memory: Any
    ) -> tuple[Any, Array, Array | None]:
        """What is remembered, the head of each group or robot, and which steps are to count."""
        if self.detector is not None:
            switch = detection.learned(
                self.robot, self.detector, batch["detector"], self.config.switch
            )
            memory, heads, _ = switch.choose(memory, robots.states)
            heads = grouped(heads)
            return memory, heads, heads != HEALTHY
        if not self._late:
            return memory, hyper.heads, None
        info, due = robots.states.info, hyper.heads[:, None]
        waits = grouped(info["step"] < info["fault"].onset + memory)
        heads = jnp.where(waits, hyper.heads[0], due)
        return memory, heads, heads == due

    def _draw(self, hyper: Hyper, count: int) -> worlds.DrawFaults:
        """Faults of new episodes, by group."""
        first, last = self.config.faults.onset
        if self.detector is not None:
            # early, so that many are struck; what a detector was trained on
            first, last = detection.ONSETS

        def draw(key: Array) -> Fault:
            fault_key, onset_key = jax.random.split(key)
            onset = jax.random.randint(onset_key, (count,), first, last + 1)
            conditions = jnp.repeat(hyper.conditions, count // 4, total_repeat_length=count)
            keys = jax.random.split(fault_key, count)
            return jax.vmap(self.robot.fault)(keys, conditions, onset)

        return draw

    def _rollout(
        self, state: Training, batch: Tree, key: Array
    ) -> tuple[tuple, Samples, dict[str, Array]]:
        """Some control steps of all robots, with advantages; what the groups went through."""
        settings, policy = self.config.ppo, self.policy
        variables = {"params": state.params}
        count = state.worlds.tree[0].states.obs.shape[0]
        draw = self._draw(state.hyper, count)

        def look(carry: tuple) -> tuple[Any, Array, Array | None]:
            return self._look(state.hyper, batch, *carry)

        def move(carry: tuple, key: Array) -> tuple[tuple, tuple]:
            robots, _ = carry
            action_key, world_key = jax.random.split(key)
            memory, heads, counted = look(carry)
            observation = grouped(robots.states.obs)
            mean, std, value = policy.apply(variables, observation, heads)
            noise = std * jax.random.normal(action_key, mean.shape)
            # a healthy head that does not learn has nothing to explore: it walks as deployed
            action = mean + (noise if self.detector is None else noise * counted[..., None])
            flat = action.reshape(count, -1)
            sensed = self.robot.kind.sensed(robots.states)
            missed, speed = sensed["missed_speed"], sensed["speed"]
            walk = {"missed": grouped(missed**2), "commanded": grouped((speed + missed) ** 2)}
            if self._ramp:
                robots = worlds.eased(robots, jnp.minimum(state.iteration / self._ramp, 1))
            robots, outcome = worlds.advance(
                self.robot, robots, flat, draw, world_key, state.hyper.reflection
            )
            if memory is not None:
                over = outcome.fell | outcome.timeout
                memory = worlds.choose(over, self._blank(world_key, count, state.iteration), memory)
            log_prob = losses.gaussian_log_prob(action, mean, std)
            outcome = jax.tree.map(grouped, outcome)
            heads = None if counted is None else heads
            decided = heads, counted, action, mean, log_prob, value
            return (robots, memory), (observation, *decided, outcome, walk)

        carry, trail = lax.scan(
            move, state.worlds.tree, jax.random.split(key, settings.rollout_length)
        )
        *_, value, outcome, walk = trail
        _, heads, _ = look(carry)
        last = grouped(carry[0].states.obs)
        last_value = policy.apply(variables, last, heads, method="value")
        ended = outcome.fell | outcome.timeout
        advantage, target = losses.advantages(
            outcome.reward,
            value,
            last_value,
            ended,
            outcome.timeout,
            settings.discount,
            settings.gae_lambda,
        )
        samples = Samples(*trail[:-2], advantage, target)
        samples = samples._replace(advantage=self._normalized(advantage, samples.counted))
        # [time, groups, worlds] -> [groups, samples]
        samples = jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(4, -1, *x.shape[3:]), samples
        )
        shares = {
            "reward": outcome.reward,
            "fell": outcome.fell.astype(jnp.float32),
            "ended": ended.astype(jnp.float32),
            **walk,
        }
        seen = {name: jnp.mean(x, axis=(0, 2)) for name, x in shares.items()}
        seen["lost"] = jnp.mean(jnp.any(outcome.lost, axis=0).astype(jnp.float32))
        seen["terms"] = jax.tree.map(jnp.mean, outcome.terms)
        return carry, samples, parallel.mean(seen, self.axis_name)

    def _normalized(self, advantage: Array, counted: Array | None) -> Array:
        """Advantages `[time, groups, worlds]`; mean 0, deviation 1 over those that count."""

        def whole(advantage: Array, counted: Array | None) -> Array:
            mean = reduce(advantage, counted, axis_name=self.axis_name)
            square = reduce((advantage - mean) ** 2, counted, axis_name=self.axis_name)
            return (advantage - mean) / (jnp.sqrt(square) + 1e-8)

        if self.config.ppo.normalize == "group":
            whole = jax.vmap(whole, in_axes=1, out_axes=1)
        return whole(advantage, counted)

    def _stratified(self, key: Array, count: int) -> Array:
        """Sample numbers `[minibatches, groups, count / minibatches]`, each once in its group."""
        parts = self.config.ppo.minibatches
        order = jax.vmap(lambda key: jax.random.permutation(key, count))(jax.random.split(key, 4))
        return jnp.moveaxis(order.reshape(4, parts, -1), 1, 0)

    def _update(
        self,
        params: Tree,
        descent: Tree,
        rate: Array,
        hyper: Hyper,
        minibatch: Samples,
        old_std: Array,
    ) -> tuple[tuple, dict[str, Array]]:
        """One step of Adam on one minibatch; the learning rate follows the divergence first."""
        settings = self.config.ppo
        heads = hyper.heads if minibatch.head is None else minibatch.head
        shared = {"weights": minibatch.counted, "axis_name": self.axis_name}

        def objective(tree: Tree) -> tuple[Array, tuple]:
            mean, std, value = self.policy.apply(
                {"params": tree["policy"]}, minibatch.observation, heads
            )
            log_prob = losses.gaussian_log_prob(minibatch.action, mean, std)
            entropy = losses.gaussian_entropy(std)
            surrogate = losses.clipped_surrogate(
                log_prob, minibatch.log_prob, minibatch.advantage, settings.clip_ratio, **shared
            )
            critic = losses.clipped_value_loss(
                value, minibatch.value, minibatch.target, settings.clip_ratio, **shared
            )
            kl = reduce(losses.gaussian_kl(minibatch.mean, old_std, mean, std), **shared)
            total = surrogate + settings.value_weight * critic - settings.entropy_weight * entropy
            terms = {"surrogate": surrogate, "critic": critic, "entropy": entropy, "total": total}
            return total, (terms, kl)

        # not `optimizer.gradient_step`: the rate follows the divergence of this very minibatch, and
        # a tuning leaves out a part of the gradient
        tree = {"policy": params}
        (_, (terms, kl)), gradients = jax.value_and_grad(objective, has_aux=True)(tree)
        gradients, kl = parallel.mean((gradients, kl), self.axis_name)
        if self.detector is not None:
            gradients = jax.tree.map_with_path(_of_fault_heads, gradients)
        rate = losses.adapt_rate(rate, kl, settings.target_kl)
        direction, descent = self._descent.update(gradients, descent, tree)
        params = optimizer.descend(params, direction["policy"], rate)
        terms |= {"kl": kl, "gradient_norm": optax.tree.norm(gradients)}
        return (params, descent, rate), terms

    def _std(self, params: Tree) -> Array:
        return jnp.maximum(params["std"], self.policy.least_std)


def grouped(x: Array) -> Array:
    """Worlds as groups, `[worlds, ...]` -> `[4, worlds / 4, ...]`."""
    return x.reshape(4, x.shape[0] // 4, *x.shape[1:])


def _of_fault_heads(path: tuple, gradient: Array) -> Array:
    """The gradient of a stacked head without its healthy part; nothing of the other parameters."""
    return gradient.at[HEALTHY].set(0) if of_heads(path) else jnp.zeros_like(gradient)


def of_heads(path: tuple) -> bool:
    """Whether a parameter of `MultiTaskPolicy` is stacked, a part for each head."""
    return any(getattr(part, "key", "").startswith("head_") for part in path)
