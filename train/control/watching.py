"""How well a detector watched: confusion, delay of the switch, false alarms."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from corrkd_jax.models.detector import CLASSES
from envs.faults import HEALTHY
from train.control.episodes import Episodes

SETTLED = 0.5
"""Seconds after which a fault should be known."""


class Watched(NamedTuple):
    """A detector in the loop of whole episodes, while robots stood.

    Attributes:
        joints: `[seeds, joints, 3, 3]` steps, true condition of the joint by verdict.
        settled: the same without the first half second of every fault.
        heads: `[seeds, 3, 3]` steps, true condition of the robot by the head that drives it.
        delays: condition -> seconds from onset to the switch to its head, of all seeds' robots;
            inf where it never came.
        alarms: `[seeds]`, switches away from the healthy head a minute of health.
    """

    joints: np.ndarray
    settled: np.ndarray
    heads: np.ndarray
    delays: dict[int, np.ndarray]
    alarms: np.ndarray

    @property
    def by_joint(self) -> np.ndarray:
        """`[joints, 3, 3]`, of all seeds together."""
        return self.joints.sum(axis=0)

    @property
    def failing(self) -> np.ndarray:
        """`[joints]` bool, whether any fault struck the joint; all where none struck any."""
        struck = self.by_joint[:, HEALTHY + 1 :].any(axis=(1, 2))
        return struck if struck.any() else np.ones_like(struck)

    @property
    def confusion(self) -> np.ndarray:
        """`[seeds, 3, 3]`, of all joints that may fail together.

        A joint that never fails is easily told healthy: with it the detector would seem better.
        """
        return self.joints[:, self.failing].sum(axis=1)

    @property
    def settled_confusion(self) -> np.ndarray:
        """The same without the first half second of every fault."""
        return self.settled[:, self.failing].sum(axis=1)

    @property
    def never_failing(self) -> np.ndarray:
        """`[seeds, 3, 3]`, of all joints together that no fault struck."""
        return self.joints[:, ~self.failing].sum(axis=1)


def measure(seen: Sequence[Sequence[Episodes]], dt: float) -> Watched:
    """Quality of a detector from its episodes.

    Args:
        seen: `[seeds][conditions]`, with the trail of `train.control.detection.learned`.
        dt: seconds a control step.
    """
    wait = round(SETTLED / dt)
    every = np.stack([sum(_confusion(e.trail, 0) for e in of_seed) for of_seed in seen])
    settled = np.stack([sum(_confusion(e.trail, wait) for e in of_seed) for of_seed in seen])
    heads = np.stack([sum(_driven(e.trail) for e in of_seed) for of_seed in seen])
    delays = {
        kind: np.concatenate([_delays(of_seed[kind].trail, kind, wait) * dt for of_seed in seen])
        for kind in range(HEALTHY + 1, CLASSES)
    }
    alarms = []
    for of_seed in seen:
        trail = of_seed[HEALTHY].trail
        left = (trail["head"][1:] != HEALTHY) & (trail["head"][:-1] == HEALTHY) & trail["alive"][1:]
        alarms.append(60 * left.sum() / (trail["alive"].sum() * dt))
    return Watched(every, settled, heads, delays, np.array(alarms))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes, `[...]` from `[..., classes, classes]` counts."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(-1) + confusion.sum(-2)
    return (2 * right / np.maximum(total, 1)).mean(-1)


def _confusion(trail: dict[str, np.ndarray], wait: int) -> np.ndarray:
    """Counts `[joints, true, verdict]` of steps, without `wait` steps from each onset on."""
    since = trail["step"] - trail["onset"]
    counted = trail["alive"] & ~((since > 0) & (since <= wait))
    joints = range(trail["true"].shape[-1])
    pairs = ((trail["true"][..., j][counted], trail["verdict"][..., j][counted]) for j in joints)
    return np.stack([_counts(*pair) for pair in pairs])


def _driven(trail: dict[str, np.ndarray]) -> np.ndarray:
    """Counts `[true, head]` of steps, the true one that of the robot's worst joint."""
    return _counts(trail["true"].max(axis=-1)[trail["alive"]], trail["head"][trail["alive"]])


def _counts(true: np.ndarray, said: np.ndarray) -> np.ndarray:
    pairs = CLASSES * true.astype(int) + said
    return np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def _delays(trail: dict[str, np.ndarray], kind: int, wait: int) -> np.ndarray:
    """Steps from onset to the switch, of robots that a fault struck with `wait` steps to go."""
    steps, onset = len(trail["step"]), trail["onset"][0]
    struck = trail["alive"][onset, np.arange(len(onset))] & (onset < steps - wait)
    right = (trail["head"] == kind) & trail["alive"] & (trail["step"] >= onset)
    first = np.where(right.any(axis=0), right.argmax(axis=0) - onset, np.inf)
    return first[struck]
