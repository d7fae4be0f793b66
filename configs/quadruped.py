"""Runs of `python -m train.quadruped`: several policies for a robot whose joints may fail."""

from dataclasses import dataclass, field, replace
from typing import Literal

from envs.switching import Rule


@dataclass(frozen=True)
class RobotConfig:
    """The real robot; the surrogate has nothing to choose."""

    model: Literal["v7", "odri"] = "v7"
    """v7: the authors' robot; odri: the open hardware."""
    obs_mode: Literal["quat", "gravity"] = "quat"
    """Orientation as the paper's quaternion (30 features) or as gravity (29), without heading."""
    symmetric: bool = False
    """Leave out what breaks the mirror group by hundredths of a millimetre."""
    backward: bool = False
    """Commands go backwards as well: to a head that serves a hind leg by mirroring, forwards is
    backwards. The released code's go forwards only."""
    noise: float = 1.0
    """Factor on the observation noise."""
    randomize: bool = True
    """Draw the friction of its feet and the mass of its torso for every robot in training."""
    hardware_spread: bool = False
    """Draw gains, strength, joint offsets and delay of every episode, and the torso's centre of
    mass of every robot in training."""
    action_limit: float = 10.0
    """Actions are clipped to this, a quarter radian each; the paper's code has 100, with which a
    few robots that lie on their knees spoil the learning of all (docs/quadruped.md)."""
    lock_play: tuple[float, float] = (0.0, 0.0)
    """rad that a locked joint may move below and above its angle."""
    solver_iterations: int = 5
    """Of the constraint solver, in each physics step."""


@dataclass(frozen=True)
class FaultConfig:
    """Which joints fail in training. Each group of robots has its own kind of fault."""

    legs: tuple[str, ...] = ("FL",)
    """Legs that may fail, equally often; one serves all four by mirroring."""
    both: float = 1.0
    """Probability that hip and knee fail together; otherwise one does, either equally. 1: as in
    the released code, and faults of a single joint are never met in training."""
    onset: tuple[int, int] = (0, 0)
    """First and last control step of an episode at which a fault strikes in training."""
    takeover: tuple[int, int] = (0, 0)
    """Fewest and most control steps that the healthy head drives on after the onset in training, as
    it does until a detector has seen the fault; 0 0: a fault's head drives all of its episodes."""
    takeover_ramp: int = 0
    """Iterations over which these delays grow from nothing to what is drawn; 0: none. No epoch of
    the ramp is kept as the best."""


@dataclass(frozen=True)
class NetworkConfig:
    """Actor and critic, each of these sizes."""

    front: int = 128
    """Width of the layer that all tasks share."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of a task's own layers."""


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation; the defaults are the paper's released code."""

    iterations: int = 1000
    """Rollouts, each followed by an update."""
    unroll: int = 24
    """Control steps of a rollout."""
    epochs: int = 5
    """Passes over a rollout."""
    minibatches: int = 4
    """Parts of a rollout, each with the same share of every group."""
    discount: float = 0.99
    """Of the future, a control step."""
    decay: float = 0.95
    """Of longer advantage estimates."""
    clip: float = 0.2
    """How far ratios and values may move in an update."""
    value_weight: float = 1.0
    """Weight of the critic's loss."""
    entropy_weight: float = 0.01
    """Weight of the entropy."""
    rate: float = 1e-3
    """Learning rate at the start."""
    kl: float = 0.01
    """Divergence of an update that the learning rate is steered to."""
    max_norm: float = 1.0
    """Gradients longer than this are scaled down to it."""
    std: float = 1.0
    """Deviation of the actions at the start."""
    penalty_ramp: int = 0
    """Iterations over which the negative terms of the reward grow from nothing to their weights; 0:
    none. Of the real robot; no epoch of the ramp is kept as the best."""
    normalize: Literal["pooled", "group"] = "pooled"
    """Advantages are normalised over all groups together, or each group by itself."""
    report_every: int = 10
    """Iterations from one row of metrics to the next."""


@dataclass(frozen=True)
class DetectorConfig:
    """The fault detector, trained on rollouts of the frozen policies."""

    hidden: int = 64
    """Width of its layers."""
    robots: int = 0
    """Simulated at once, 0 for as many as --num-envs: a third driven by an oracle's heads, a third
    by the healthy head whatever happens, a third by what the detector says."""
    unroll: int = 1
    """Control steps of them to a step of AdamW; all their windows are its batch."""
    updates: int = 5000
    """Steps of AdamW."""
    rate: float = 1e-3
    """Learning rate."""
    weight_decay: float = 1e-4
    """Apart from the gradient."""
    balance: float = 1.0
    """Exponent of the weights of rare conditions, by joint: 1 makes all weigh the same, 0 leaves
    their frequencies, with which probabilities are those of the rollouts."""
    report_every: int = 50
    """Updates from one row of metrics to the next."""
    tune_iterations: int = 0
    """Then PPO of the fault heads with the detector switching, as they are deployed; 0: none. A
    hundred did not pay for SOLO8 (docs/quadruped.md)."""


@dataclass(frozen=True)
class QuadrupedConfig:
    """Train policies and a detector for a robot whose joints may fail."""

    robot: Literal["surrogate", "solo8"] = "solo8"
    """Which robot; the surrogate is a toy that needs no rigid-body physics."""
    num_envs: int = 4096
    """Simulated robots, over all devices: two quarters healthy, one without power, one locked."""
    body: RobotConfig = field(default_factory=RobotConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    switch: Rule = field(default_factory=Rule)
    arms: tuple[str, ...] = ("ours",)
    """Of ours, no-reflection, mix, normal; each a training of its own in the same program."""
    reflection: float = 1.0
    """Probability that a faulty robot starts from its healthy partner's state."""
    judged: int = 1024
    """Robots a row of the surrogate's table; 0: no table. SOLO8 is judged by train.evaluate."""
    seeds: int = 1
    """Number of seeds, trained in one program."""
    first_seed: int = 1
    """Seeds are this, this + 1, ..."""


# it bears no late switch, and running no wrong one: one verdict, but a sure one
_SOLO8 = QuadrupedConfig(switch=Rule(confidence=0.95, strike=1), judged=0)

PRESETS: dict[str, QuadrupedConfig] = {
    "surrogate": QuadrupedConfig(
        robot="surrogate",
        num_envs=256,
        network=NetworkConfig(front=32, hidden=(32, 16)),
        ppo=PpoConfig(iterations=120, entropy_weight=0.002, std=0.5),
        detector=DetectorConfig(unroll=4, updates=500),
        arms=("ours", "no-reflection", "mix", "normal"),
        seeds=3,
    ),
    "solo8": _SOLO8,
    # what a few hundred robots need to learn to walk (docs/quadruped.md)
    "solo8_cpu": replace(
        _SOLO8,
        num_envs=512,
        faults=FaultConfig(takeover=(0, 10), takeover_ramp=600),
        ppo=PpoConfig(penalty_ramp=400, normalize="group", report_every=20),
    ),
}
"""Named runs; what they leave out is the paper's."""
