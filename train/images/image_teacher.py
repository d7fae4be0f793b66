"""Training of a teacher on labelled images, as a stage: for data that bring no teacher."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from configs.dfkd import TeacherConfig
from corrkd_jax.losses import cross_entropy
from train.engine import optimizer
from train.engine.stage import Context, Stage, Tree


class Training(NamedTuple):
    """State of a teacher under training."""

    variables: Tree
    optimizer: Tree
    step: Array


@dataclass(frozen=True)
class TeacherStage:
    """The functions of the stage and what they share.

    Attributes:
        config: of the training.
        network: an image classifier.
        read: pixels uint8 -> images as the network sees them.
        steps: in the whole training.
        axis_name: mapped axis over which batches are sharded, or None.
    """

    config: TeacherConfig
    network: nn.Module
    read: Any
    steps: int
    axis_name: str | None

    def stage(self) -> Stage:
        """The stage that the engine trains; its last epoch is taken."""
        return Stage(
            name="teacher",
            epochs=self.config.epochs,
            data="train",
            batch=self.config.batch_size,
            init=self.init,
            step=self.step,
            evaluate=self.evaluate,
            summarize=lambda sums: {"score": sums["right"] / jnp.maximum(sums["rows"], 1)},
            select=lambda state: state.variables,
            validate_every=self.config.epochs,
        )

    def init(self, key: Array, batch: Tree, hyper: None, context: Context) -> Training:
        """Fresh parameters."""
        variables = self.network.init(key, self.read(batch["images"]))
        state = optax.scale_by_adam().init(variables["params"])
        return Training(variables, state, jnp.int32(0))

    def step(self, state: Training, batch: Tree, key: Array) -> tuple[Training, dict[str, Array]]:
        """One step of AdamW on images with noise, which the network learns to see through."""
        images = self.read(batch["images"])
        noise = self.config.noise * jax.random.normal(key, images.shape)
        images = jnp.clip(images + noise, 0.0, 1.0) if self.config.noise else images
        statistics = {k: v for k, v in state.variables.items() if k != "params"}

        def objective(params: Tree) -> tuple[Array, Tree]:
            (logits, _), updates = self.network.apply(
                {"params": params, **statistics}, images, train=True, mutable=list(statistics)
            )
            return cross_entropy(
                logits, batch["labels"], batch["row"], axis_name=self.axis_name
            ), updates

        rate = self.config.learning_rate * optimizer.schedule("cosine", state.step, self.steps)
        step = optimizer.gradient_step(
            objective,
            state.variables["params"],
            optax.scale_by_adam(),
            state.optimizer,
            rate,
            weight_decay=self.config.weight_decay,
            axis_name=self.axis_name,
        )
        variables = {"params": step.params, **step.extra}
        return Training(variables, step.state, state.step + 1), {"total": step.value}

    def evaluate(self, state: Training, batch: Tree) -> dict[str, Array]:
        """Right answers and rows."""
        logits, _ = self.network.apply(state.variables, self.read(batch["images"]))
        right = (jnp.argmax(logits, axis=-1) == batch["labels"]).astype(jnp.float32)
        return {"right": jnp.sum(batch["row"] * right), "rows": jnp.sum(batch["row"])}
