"""MCIS on a trained base model: its counterfactual outputs, the search, the rows of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from configs.debias import McisConfig
from corrkd_jax import causal
from corrkd_jax.metrics import accuracy, accuracy_at, confusion, macro_f1, mae, weighted_f1
from train.engine.predict import by_block
from train.engine.stage import Lanes, Tree
from train.sentiment.debiasing.forward import Selected, forward
from train.sentiment.results import Truth
from train.sentiment.task import Task, predicted_classes, scores


@dataclass(frozen=True)
class Outputs:
    """What every model says about a split.

    Attributes:
        factual: `[models, n, outputs]`.
        label_bias: `[models, outputs]`, on input without content.
        context_bias: `[models, n, outputs]`, on context words alone; None without words.
    """

    factual: np.ndarray
    label_bias: np.ndarray | None = None
    context_bias: np.ndarray | None = None


def stand_ins(rows: Tree, kind: str) -> tuple[Tree, Tree]:
    """Content-free input of every modality, and which of its frames are real.

    Args:
        rows: the training split.
        kind: `"mean"` over the samples at each position, or `"zero"`.

    Returns:
        Modality -> `[time, features]`, and modality -> `[time]` bool: positions that are real in
        some sample.
    """
    inputs = {}
    for name, x in rows["inputs"].items():
        mean = causal.stand_in(x, rows["valid"][name])
        inputs[name] = mean if kind == "mean" else jnp.zeros_like(mean)
    return inputs, {name: jnp.any(v, axis=0) for name, v in rows["valid"].items()}


def run(
    model: nn.Module,
    selected: Selected,
    rows: Tree,
    lanes: Lanes,
    absent: tuple[Tree, Tree] | None = None,
    nonverbal: str = "mean",
    block: int = 128,
) -> Outputs:
    """Outputs of all models on a split, one compiled call; arguments as of `outputs_of`."""
    call = jax.jit(partial(outputs_of, model, lanes=lanes, nonverbal=nonverbal, block=block))
    answers = call(selected, _seen(rows, absent), absent=absent)
    return Outputs(*(None if x is None else np.asarray(x) for x in answers))


def outputs_of(
    model: nn.Module,
    selected: Selected,
    rows: Tree,
    *,
    lanes: Lanes,
    absent: tuple[Tree, Tree] | None = None,
    nonverbal: str = "mean",
    block: int | None = 128,
) -> tuple[Array, Array | None, Array | None]:
    """Outputs of all models on a split, factual and counterfactual, to be compiled.

    Args:
        model: without a text encoder of its own: embedded input is the input.
        selected: selected states, with one leading axis of models.
        rows: a split; holds `content` `[n, time]` where it has words.
        lanes: how the models share the device.
        absent: of `stand_ins`; None leaves the counterfactuals out.
        nonverbal: audio and vision of the context counterfactual: `mean`, `keep` or `zero`.
        block: rows at a time; None: all, whose number then need not be known.

    Returns:
        As in `Outputs`.
    """
    rows = _seen(rows, absent)

    def of_model(selected: Selected, rows: Tree, absent: Any) -> dict[str, Array]:
        call = partial(forward, model, selected, embedded=True)

        def of_batch(batch: Tree) -> dict[str, Array]:
            outputs = {"factual": call(batch["inputs"], batch["valid"])}
            if "content" in batch:
                outputs["context"] = call(*_context(batch, absent, nonverbal))
            return outputs

        outputs = of_batch(rows) if block is None else by_block(of_batch, rows, block)
        if absent is not None:
            outputs["label"] = call(*jax.tree.map(lambda x: x[None], absent))[0]
        return outputs

    answers = lanes(of_model, (0, None, None))(selected, rows, absent)
    return answers["factual"], answers.get("label"), answers.get("context")


def _seen(rows: Tree, absent: Any) -> Tree:
    """The columns that models read."""
    names = ["inputs", "valid", *(["content"] if absent is not None and "content" in rows else [])]
    return {name: rows[name] for name in names}


def _context(batch: Tree, absent: tuple[Tree, Tree], nonverbal: str) -> tuple[Tree, Tree]:
    """Context words alone: content words give way to the stand-in, and the other modalities too."""
    inputs, valid = dict(batch["inputs"]), dict(batch["valid"])
    inputs["text"] = causal.replace_tokens(inputs["text"], batch["content"], absent[0]["text"])
    for name in ("audio", "vision"):
        if nonverbal == "mean":
            like = inputs[name].shape
            inputs[name] = jnp.broadcast_to(absent[0][name], like).astype(inputs[name].dtype)
            valid[name] = jnp.broadcast_to(absent[1][name], like[:2])
        elif nonverbal == "zero":
            inputs[name] = jnp.zeros_like(inputs[name])
    return inputs, valid


def objective(
    name: str, truth: Truth, task: Task, balanced: bool = False
) -> Callable[[Array], Array]:
    """Score of outputs `[n, outputs]` that a search maximises, as a traceable function.

    Scores of regression are judged by their sign, as Acc-2 with zero as non-negative is, except
    for `acc7` and `neg_mae`. Balanced: rows count so that every class has the same share.
    """
    weights = truth.weights[:, 0].astype(np.float64)
    true = truth.classes[:, 0]
    if task.mode == "score":
        # zeros count as non-negative, so that no row is left out
        true, weights = (truth.scores >= 0).astype(np.int32), np.ones(len(true))
    if balanced:
        share = np.bincount(true, weights, minlength=task.metric_classes)
        weights = weights / np.maximum(share, 1)[true]
    weights = jnp.asarray(weights * (len(true) / weights.sum()), jnp.float32)
    finish = {"macro_f1": macro_f1, "weighted_f1": weighted_f1, "accuracy": accuracy}

    def score(outputs: Array) -> Array:
        if name == "acc7":
            return accuracy_at(truth.scores, scores(outputs, task.mode), 3, weights)
        if name == "neg_mae":
            return -mae(truth.scores, scores(outputs, task.mode), weights)
        if task.mode == "score":
            predicted = (outputs[:, 0] >= 0).astype(jnp.int32)
        else:
            predicted = predicted_classes(outputs, task.mode)
        return finish[name](confusion(true, predicted, task.metric_classes, weights))

    return score


VANILLA, LABEL, CONTEXT, BOTH = "vanilla", "label term", "context term", "MCIS"
BIASED, BALANCED = "MCIS, searched on biased validation", "MCIS, classes of validation alike"

FIXED = {"fixed (1, 0)": (1.0, 0.0), "fixed (0, 1)": (0.0, 1.0), "fixed (0.5, 0.5)": (0.5, 0.5)}


def search(
    config: McisConfig, valid: Mapping[str, tuple[Outputs, Truth]], task: Task
) -> dict[str, np.ndarray]:
    """Coefficients of every row of the table, each `[models, 2]`.

    Only validation splits come in here.

    Args:
        config: objective, reach and step.
        valid: `valid`, and `valid_biased` where there is one.
        task: what the labels mean.
    """

    def table(name: str, balanced: bool = False) -> np.ndarray:
        outputs, truth = valid[name]
        score = objective(config.objective, truth, task, balanced)
        context = outputs.context_bias
        context = np.zeros_like(outputs.factual) if context is None else context

        def of_model(*answers: Array) -> Array:
            return causal.grid_scores(*answers, score, config.reach, config.step)

        # one model after the other, each over the whole grid
        all_models = jax.jit(lambda *arrays: lax.map(lambda model: of_model(*model), arrays))
        return np.asarray(all_models(outputs.factual, outputs.label_bias, context))

    def best(tables: np.ndarray, **terms: bool) -> np.ndarray:
        points = [causal.best_point(scores, config.step, **terms) for scores in tables]
        return np.asarray([point.coefficients for point in points])

    words = valid["valid"][0].context_bias is not None
    tables = table("valid")
    count = len(tables)
    rows = {VANILLA: np.zeros((count, 2)), LABEL: best(tables, context=False)}
    if words:
        rows |= {CONTEXT: best(tables, label=False), BOTH: best(tables)}
        rows |= {name: np.tile(pair, (count, 1)) for name, pair in FIXED.items()}
    name, other = (
        (BIASED, table("valid_biased"))
        if "valid_biased" in valid
        else (BALANCED, table("valid", balanced=True))
    )
    return {**rows, name: best(other, context=words)}


def purified(outputs: Outputs, coefficients: np.ndarray) -> np.ndarray:
    """De-biased outputs `[models, n, outputs]`."""
    context = outputs.context_bias
    context = np.zeros_like(outputs.factual) if context is None else context
    return np.stack(
        [
            np.asarray(causal.purify(*model))
            for model in zip(
                outputs.factual, outputs.label_bias, context, coefficients, strict=True
            )
        ]
    )
