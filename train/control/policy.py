"""What walks the robot, in NumPy alone: policy, fault detector and the switch between heads.

    controller = Controller("policy.npz")
    while True:  # every `controller.metadata["dt"]` seconds
        action = controller(observation)
        controller.kind, controller.leg, controller.probabilities  # what it believes

`controller.metadata` says what an observation and an action are.
"""

import json

import numpy as np


class Controller:
    """One robot's controller, with its memory.

    Attributes:
        metadata: header of the file: names, order, units, settings.
        kind: of the fault it believes in, which is the head that drives: 0 health, 1 power loss,
            2 locked.
        leg: that failed, 0 in health.
        probabilities: `[joints, 3]`, what the detector says now.
    """

    def __init__(self, path):
        """Read `policy.npz`."""
        with np.load(path) as file:
            self._w = {name: file[name] for name in file.files if name != "metadata"}
            self.metadata = json.loads(str(file["metadata"]))
        self.reset()

    def reset(self):
        """Forget everything: the robot has done nothing yet and counts as healthy."""
        metadata = self.metadata
        self._window = np.zeros((metadata["window"], metadata["observed"]), np.float32)
        self.kind, self.leg, self._streak, self._next = 0, 0, 0, (0, 0)
        self.probabilities = np.tile(np.float32([1, 0, 0]), (metadata["joints"], 1))

    def __call__(self, observation):
        """Mean action `[actions]` of this control step, from an observation `[features]`."""
        observation = np.asarray(observation, np.float32)
        latest = observation[-self.metadata["observed"] :]
        self._window = np.concatenate([self._window[1:], latest[None]])
        self.probabilities = self._detect()
        self._decide()
        # the mirror's element of the first leg, and so of health, changes nothing
        mirrored = observation[self._w["mirror/observation/index"][self.leg]]
        action = self._act(mirrored * self._w["mirror/observation/sign"][self.leg])
        action = action[self._w["mirror/action/index"][self.leg]]
        return action * self._w["mirror/action/sign"][self.leg]

    def _act(self, x):
        w = self._w
        x = _elu(x @ w["actor/front/kernel"] + w["actor/front/bias"])
        for number in range(self.metadata["layers"]):
            name = f"actor/head_{number}"
            x = x @ w[f"{name}/kernel"][self.kind] + w[f"{name}/bias"][self.kind]
            if number < self.metadata["layers"] - 1:
                x = _elu(x)
        return x

    def _detect(self):
        w, joints, kernel = self._w, self.metadata["joints"], self.metadata["kernel"]
        missing = -len(self._window) % kernel
        window = np.pad(self._window, ((missing, 0), (0, 0))).reshape(
            -1, kernel, self._window.shape[1]
        )
        signals = window.shape[-1] // joints
        joint = window[..., window.shape[-1] - signals * joints :]
        joint = np.moveaxis(joint.reshape(*joint.shape[:2], signals, joints), -1, 0)
        joint = joint.reshape(joints, len(window), -1) @ w["detector/own/kernel"]
        robot = window.reshape(len(window), -1) @ w["detector/robot/kernel"]
        x = _elu(joint + w["detector/own/bias"] + robot + w["detector/joint"])
        x = x.reshape(joints, -1) @ w["detector/steps/kernel"] + w["detector/steps/bias"]
        x = _elu(x + w["detector/joint_steps"])
        logits = x @ w["detector/condition/kernel"] + w["detector/condition/bias"]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def _decide(self):
        """Another kind or leg must be seen with confidence for some steps in a row."""
        p, metadata = self.probabilities, self.metadata
        likelihood = np.array([p[:, 0].min(), *p[:, 1:].max(axis=0)])
        kind = int(likelihood.argmax())
        leg = int(p[:, kind].argmax()) // (metadata["joints"] // 4) if kind else 0
        streak = (self._streak if (kind, leg) == self._next else 0) + 1
        self._next, self._streak = (kind, leg), streak
        if not likelihood[kind] > metadata["confidence"]:
            self._streak = 0
        if self._streak >= metadata["strike_steps" if kind else "recovery_steps"]:
            self.kind, self.leg = kind, leg


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
