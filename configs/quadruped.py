"""Runs of `python -m train.quadruped`: several policies for a robot whose joints may fail."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from corrkd_jax.ranges import NotNegative, Positive, Share
from envs.switching import Rule


@dataclass(frozen=True)
class RobotConfig:
    """The real robot; the surrogate has nothing to choose."""

    model: Literal["v7", "odri"] = "v7"
    """Model of the robot. v7: the authors' robot; odri: the open hardware."""
    obs_mode: Literal["quat", "gravity"] = "quat"
    """Orientation as the paper's quaternion (30 features) or as gravity (29), without heading."""
    symmetric: bool = False
    """Mirror symmetry of the model, exact; off: what breaks it by hundredths of a millimetre
    stays."""
    backward: bool = False
    """Commands to go backwards as well: to a head that serves a hind leg by mirroring, forwards is
    backwards. The released code's commands go forwards only."""
    noise: Annotated[float, NotNegative] = 1.0
    """Factor on the observation noise."""
    randomize: bool = True
    """Random friction of the feet and mass of the torso for every robot in training."""
    hardware_spread: bool = False
    """Random gains, strength, joint offsets and delay of every episode, and a random centre of mass
    of the torso of every robot in training."""
    action_limit: Annotated[float, Positive] = 10.0
    """Largest magnitude of an action, a quarter radian a unit; larger ones are clipped to it. The
    paper's code has 100, with which a few robots that lie on their knees spoil the learning of all
    (docs/results/quadruped.md)."""
    lock_play: Annotated[tuple[float, float], NotNegative] = (0.0, 0.0)
    """Play of a locked joint below and above its angle, in rad."""
    solver_iterations: Annotated[int, Positive] = 5
    """Iterations of the constraint solver in each physics step."""


@dataclass(frozen=True)
class FaultConfig:
    """The joints that fail in training; each group of robots has its own kind of fault."""

    legs: tuple[str, ...] = ("FL",)
    """Legs that may fail, equally often; one serves all four by mirroring."""
    both: Annotated[float, Share] = 1.0
    """Probability that hip and knee fail together; otherwise one of them fails, either equally
    often. At 1, as in the released code, faults of a single joint are never met in training."""
    onset: Annotated[tuple[int, int], NotNegative] = (0, 0)
    """First and last control step of an episode at which a fault strikes in training."""
    takeover: Annotated[tuple[int, int], NotNegative] = (0, 0)
    """Fewest and most control steps that the healthy head drives on after the onset in training, as
    it does until a detector has seen the fault; 0 0: the head of a fault drives all of its
    episodes."""
    takeover_ramp: Annotated[int, NotNegative] = 0
    """Iterations over which these delays grow from nothing to what is drawn; 0: no ramp. No epoch
    of the ramp is kept as the best."""


@dataclass(frozen=True)
class NetworkConfig:
    """Actor and critic, each of these sizes."""

    front: Annotated[int, Positive] = 128
    """Width of the layer that all tasks share."""
    hidden: Annotated[tuple[int, ...], Positive] = (64, 32)
    """Widths of a task's own layers."""


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation; the defaults are the paper's released code."""

    iterations: Annotated[int, Positive] = 1000
    """Number of rollouts, each followed by an update."""
    rollout_length: Annotated[int, Positive] = 24
    """Control steps of a rollout."""
    epochs: Annotated[int, Positive] = 5
    """Passes over a rollout."""
    minibatches: Annotated[int, Positive] = 4
    """Number of parts of a rollout, each with the same share of every group."""
    discount: Annotated[float, Share] = 0.99
    """Discount factor gamma of a control step."""
    gae_lambda: Annotated[float, Share] = 0.95
    """Factor lambda of generalised advantage estimation."""
    clip_ratio: Annotated[float, Positive] = 0.2
    """Distance that probability ratios and values may move in an update."""
    value_weight: Annotated[float, NotNegative] = 1.0
    """Weight of the critic's loss."""
    entropy_weight: Annotated[float, NotNegative] = 0.01
    """Weight of the entropy."""
    learning_rate: Annotated[float, Positive] = 1e-3
    """Learning rate at the start."""
    target_kl: Annotated[float, Positive] = 0.01
    """Divergence of an update that the learning rate is steered to."""
    clip_norm: Annotated[float, Positive] = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""
    initial_std: Annotated[float, Positive] = 1.0
    """Standard deviation of the actions at the start."""
    penalty_ramp: Annotated[int, NotNegative] = 0
    """Iterations over which the negative terms of the real robot's reward grow from nothing to
    their weights; 0: no ramp. No epoch of the ramp is kept as the best."""
    normalize: Literal["pooled", "group"] = "pooled"
    """Groups over which advantages are normalised: all together, or each by itself."""
    report_every: Annotated[int, Positive] = 10
    """Iterations from one row of metrics to the next."""


@dataclass(frozen=True)
class DetectorConfig:
    """The fault detector, trained on rollouts of the frozen policies."""

    hidden: Annotated[int, Positive] = 64
    """Width of the detector's layers."""
    robots: Annotated[int, NotNegative] = 0
    """Robots simulated at once, 0 for as many as --num-envs: a third driven by an oracle's heads, a
    third by the healthy head whatever happens, a third by what the detector says."""
    rollout_length: Annotated[int, Positive] = 1
    """Control steps of these robots to a step of AdamW; all their windows are its batch."""
    updates: Annotated[int, NotNegative] = 5000
    """Number of steps of AdamW; 0: no detector."""
    learning_rate: Annotated[float, Positive] = 1e-3
    """Learning rate."""
    weight_decay: Annotated[float, NotNegative] = 1e-4
    """Weight decay, apart from the gradient."""
    balance: Annotated[float, NotNegative] = 1.0
    """Exponent of the weights of rare conditions, by joint: 1 makes all weigh the same, 0 leaves
    their frequencies, with which probabilities are those of the rollouts."""
    report_every: Annotated[int, Positive] = 50
    """Updates from one row of metrics to the next."""
    tune_iterations: Annotated[int, NotNegative] = 0
    """Iterations of PPO that follow, of the fault heads with the detector switching, as they are
    deployed; 0: none. A hundred did not pay for SOLO8 (docs/results/quadruped.md)."""


@dataclass(frozen=True)
class QuadrupedConfig:
    """Policies and a detector for a robot whose joints may fail."""

    robot: Literal["surrogate", "solo8"] = "solo8"
    """The robot; the surrogate is a toy that needs no rigid-body physics."""
    num_envs: Annotated[int, Positive] = 4096
    """Number of simulated robots, over all devices: two quarters healthy, one without power, one
    locked."""
    body: RobotConfig = field(default_factory=RobotConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    switch: Rule = field(default_factory=Rule)
    arms: tuple[str, ...] = ("ours",)
    """Arms, of ours, no-reflection, mix and normal; each is a training of its own in the same
    program."""
    reflection: Annotated[float, Share] = 1.0
    """Probability that a faulty robot starts from its healthy partner's state."""
    evaluation_robots: Annotated[int, NotNegative] = 1024
    """Robots a row of the surrogate's table; 0: no table. SOLO8 is evaluated by train.evaluate."""
    seeds: Annotated[int, Positive] = 1
    """Number of seeds, trained in one program."""
    first_seed: Annotated[int, NotNegative] = 1
    """First seed; the others follow it."""


RENAMED = {
    "ppo.unroll": "ppo.rollout_length",
    "ppo.decay": "ppo.gae_lambda",
    "ppo.clip": "ppo.clip_ratio",
    "ppo.rate": "ppo.learning_rate",
    "ppo.kl": "ppo.target_kl",
    "ppo.max_norm": "ppo.clip_norm",
    "ppo.std": "ppo.initial_std",
    "detector.unroll": "detector.rollout_length",
    "detector.rate": "detector.learning_rate",
    "judged": "evaluation_robots",
}
"""Fields by their names in version 0.1, and today's."""

# SOLO8 falls if the switch is late, and if it runs by a wrong head: one verdict, but a sure one
_SOLO8 = QuadrupedConfig(switch=Rule(confidence=0.95, strike=1), evaluation_robots=0)

PRESETS: dict[str, QuadrupedConfig] = {
    "surrogate": QuadrupedConfig(
        robot="surrogate",
        num_envs=256,
        network=NetworkConfig(front=32, hidden=(32, 16)),
        ppo=PpoConfig(iterations=120, entropy_weight=0.002, initial_std=0.5),
        detector=DetectorConfig(rollout_length=4, updates=500),
        arms=("ours", "no-reflection", "mix", "normal"),
        seeds=3,
    ),
    "solo8": _SOLO8,
    # what a few hundred robots need to learn to walk (docs/results/quadruped.md)
    "solo8_cpu": replace(
        _SOLO8,
        num_envs=512,
        faults=FaultConfig(takeover=(0, 10), takeover_ramp=600),
        ppo=PpoConfig(penalty_ramp=400, normalize="group", report_every=20),
    ),
}
"""Named runs; what they leave out is the paper's."""
