"""Detector of failed joints: which have failed, and how, from recent measurements and actions."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

CLASSES = 3
"""Number of conditions of a joint: healthy, without power, locked."""


class FaultDetector(nn.Module):
    """Causal convolution over a window of control steps, with a prediction for each joint.

    The paper (arXiv:2402.08996) names such a module and publishes none; this architecture is chosen
    here. Predictions are factored, one distribution a joint: leg and kind of a fault follow from
    them (`envs.switching.verdict`), and joints may fail in any combination. One network classifies
    all joints, each by its own signals and by those of the whole robot, and tells them apart by a
    bias. It learns about any joint from all of them.

    The kernel moves by its own width and the last kernel ends with the last step, so that every
    layer is a plain matrix product.

    Attributes:
        joints: number of joints.
        hidden: width of both layers.
        kernel: number of control steps that the first layer sees at once.
    """

    joints: int
    hidden: int = 64
    kernel: int = 5

    @nn.compact
    def __call__(self, window: Array) -> Array:
        """Logits of the joints' conditions.

        Args:
            window: `[..., time, features]`, oldest step first; steps before the first are zeros.
                The last features of a step are signals of the joints, as many of each as fit: such
                as all angles, then all velocities, then all actions. The features before them
                belong to the robot.

        Returns:
            `[..., joints, 3]`: healthy, without power, locked, after the last step.
        """
        *batch, time, features = window.shape
        missing = -time % self.kernel
        window = jnp.pad(window, [(0, 0)] * len(batch) + [(missing, 0), (0, 0)])
        window = window.reshape(*batch, -1, self.kernel, features)
        signals = features // self.joints
        own = window[..., features - signals * self.joints :]
        own = own.reshape(*window.shape[:-1], signals, self.joints)
        # [..., joints, blocks, kernel * signals]
        own = jnp.moveaxis(own, -1, len(batch)).reshape(*batch, self.joints, own.shape[-4], -1)
        robot = window.reshape(*batch, 1, own.shape[-2], -1)
        x = nn.Dense(self.hidden, name="own")(own) + nn.Dense(
            self.hidden, use_bias=False, name="robot"
        )(robot)
        x = nn.elu(x + self._bias("joint", 1))
        x = nn.Dense(self.hidden, name="steps")(x.reshape(*batch, self.joints, -1))
        x = nn.elu(x + self._bias("joint_steps"))
        return nn.Dense(CLASSES, name="condition")(x)

    def _bias(self, name: str, *between: int) -> Array:
        """Bias that distinguishes the joints, `[joints, ..., hidden]`."""
        return self.param(name, nn.initializers.normal(0.1), (self.joints, *between, self.hidden))
