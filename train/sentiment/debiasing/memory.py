"""What two base models remember while they train: Self-MM every sample, MMIM the last batch."""

import jax.numpy as jnp
from jax import Array

from corrkd_jax import losses
from corrkd_jax.losses.unimodal import FUSION
from corrkd_jax.models.fusion import Fused
from corrkd_jax.models.mmim import SENSES
from train.engine.stage import Tree
from train.sentiment.task import Task

Memory = losses.UnimodalTables | losses.ClassMemory


def remembers(model: str, task: Task) -> bool:
    """Whether a base model remembers anything; Self-MM makes labels where they are scores."""
    return model == "mmim" or (model == "self_mm" and task.mode == "score")


def begin(model: str, fused: Fused, labels: Array, batch: int) -> Memory:
    """The memory before the first step.

    Args:
        model: its name.
        fused: of any rows; arrays or their shapes.
        labels: `[n]`, of the training split.
        batch: rows a step.
    """
    if model == "self_mm":
        widths = {name: x.shape[-1] for name, x in _branches(fused).items()}
        return losses.init_tables(labels, widths)
    widths = {name: x.shape[-1] for name, x in _projected(fused).items()}
    return losses.empty_memory(widths, batch)


def renewed(
    memory: Memory | None,
    fused: Fused,
    batch: Tree,
    epoch: Array,
    task: Task,
    axis_name: str | None,
) -> Memory | None:
    """The memory after a step; None stays None.

    Args:
        memory: of `begin`.
        fused: of the step's rows.
        batch: the step's.
        epoch: counted from 1.
        task: what the labels mean.
        axis_name: mapped axis over which the batch is sharded, or None.
    """
    if isinstance(memory, losses.UnimodalTables):
        return losses.update_tables(
            memory,
            batch["index"],
            _branches(fused),
            epoch,
            limit=3.0,
            weights=batch["row"],
            axis_name=axis_name,
        )
    if isinstance(memory, losses.ClassMemory):
        return losses.remember(_projected(fused), sign(batch, task), axis_name=axis_name)
    return memory


def sign(batch: Tree, task: Task) -> Array:
    """1 for rows of positive labels, -1 of negative ones, 0 between and for rows of none."""
    labels = batch["labels"][:, 0]
    if task.mode != "score":
        labels = 2 * labels - (task.classes - 1)
    counts = batch["label_weight"][:, 0] * batch["row"] > 0
    return jnp.where(counts, jnp.sign(labels), 0)


def _branches(fused: Fused) -> dict[str, Array]:
    """Features that Self-MM's tables remember."""
    names = ("text", "audio", "vision")
    return {FUSION: fused.features, **{name: fused.parts[name] for name in names}}


def _projected(fused: Fused) -> dict[str, Array]:
    """What MMIM remembers of a batch."""
    return {name: fused.parts[f"projected_{name}"] for name in SENSES}
