"""What base models minimise: the task's loss, and what MISA, Self-MM and MMIM add to it."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from configs.debias import MISA_WEIGHTS, MMIM_WEIGHTS
from corrkd_jax import losses
from corrkd_jax.losses.unimodal import FUSION
from corrkd_jax.models.fusion import Fused
from corrkd_jax.models.mmim import ORDER, SENSES
from train.engine.stage import Tree
from train.sentiment.debiasing.memory import Memory, sign
from train.sentiment.task import Task


@dataclass(frozen=True)
class Objective:
    """The loss of one base model.

    Attributes:
        model: its name.
        preset: for what only a preset knows, MISA's weights.
        task: what the labels mean.
        axis_name: mapped axis over which batches are sharded, or None.
    """

    model: str
    preset: str
    task: Task
    axis_name: str | None

    def terms(
        self, outputs: Array, fused: Fused, batch: Tree, memory: Memory | None, number: Array
    ) -> dict[str, Array]:
        """Terms of the loss, each over the whole batch, already weighted.

        Args:
            outputs: `[batch, outputs]`.
            fused: what they are made of.
            batch: holds `labels`, `label_weight` `[batch, 1]` and `row` `[batch]`.
            memory: of the model, None where it has none.
            number: of the batch in its epoch, from 0.
        """
        weights = batch["label_weight"][:, 0] * batch["row"]
        shared = {"weights": weights, "axis_name": self.axis_name}
        if isinstance(memory, losses.UnimodalTables):
            names = ("text", "audio", "vision")
            predictions = {name: fused.parts[f"predicted_{name}"] for name in names}
            labels = {name: t[batch["index"]] for name, t in memory.labels.items()}
            return {"task": losses.multitask_l1({FUSION: outputs, **predictions}, labels, **shared)}
        terms = {"task": losses.reduce(self.each(outputs, batch), **shared)}
        if self.model == "misa":
            parts = (fused.parts[n] for n in ("projected", "private", "shared", "reconstructed"))
            values = losses.subspace_terms(*parts, **shared)
            scale = MISA_WEIGHTS.get(self.preset, (0.1, 0.3, 1.0))
            names = ("difference", "similarity", "reconstruction")
            terms |= {n: s * x for n, s, x in zip(names, scale, values, strict=True)}
        if isinstance(memory, losses.ClassMemory):
            terms |= self._bounds(fused.parts, sign(batch, self.task), memory, number, shared)
        return terms

    def each(self, outputs: Array, batch: Tree) -> Array:
        """Loss of every row, `[batch]`: absolute error (MISA's: squared) or cross-entropy."""
        labels = batch["labels"][:, 0]
        if self.task.mode == "score":
            error = outputs[:, 0] - labels
            return error**2 if self.model == "misa" else jnp.abs(error)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def _bounds(
        self,
        parts: dict[str, Array],
        sign: Array,
        memory: losses.ClassMemory,
        number: Array,
        shared: dict[str, Any],
    ) -> dict[str, Array]:
        """MMIM's terms; MMSA counts the entropy from an epoch's third batch on."""
        alpha, beta = MMIM_WEIGHTS
        contrast = sum(
            losses.predictive_contrast(parts[name], parts[f"predicted_{name}"], **shared)
            for name in ORDER
        )
        likelihood, entropy = 0.0, 0.0
        for name in SENSES:
            given = (parts[f"mean_{name}"], parts[f"log_variance_{name}"], parts[name])
            likelihood += losses.gaussian_likelihood(*given, **shared)
            entropy += losses.class_entropy(
                parts[f"projected_{name}"],
                sign,
                memory.projected[name],
                memory.sign,
                axis_name=self.axis_name,
            )
        return {
            "contrast": alpha * contrast,
            "likelihood": -beta * likelihood,
            "entropy": -beta * jnp.where(number > 1, entropy, 0.0),
        }
