"""A finished de-biasing run, brought back; what it says of a file; one of its models exported."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.debias import RENAMED, DebiasConfig
from corrkd_jax import causal
from corrkd_jax.data.msa import Scaler
from corrkd_jax.errors import InputError
from train.engine.finished import Exportable, seed_number
from train.engine.stage import vectorized
from train.engine.workdir import Workdir, restore_config
from train.sentiment import trained
from train.sentiment.debiasing import counterfactual
from train.sentiment.debiasing.arms import OWN, Hyper, arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.counterfactual import BOTH, CONTEXT, LABEL
from train.sentiment.debiasing.forward import Selected
from train.sentiment.debiasing.models import build_model
from train.sentiment.inputs import Inputs
from train.sentiment.task import Task


@dataclass(frozen=True)
class Trained:
    """What evaluation and export need of a run.

    Attributes:
        preset: it was made from.
        config: of the run, as given.
        task: what the labels mean.
        shapes: modality -> (time, features) of its training data.
        scaler: fitted on the train split, or None.
        chosen: selected states, leading axes seeds and arms.
        arms: names of the rows that were trained.
        absent: of `counterfactual.stand_ins`; None without counterfactuals.
        coefficients: row -> `[seeds, 2]`; empty without counterfactuals.
    """

    preset: str
    config: DebiasConfig
    task: Task
    shapes: dict[str, tuple[int, int]]
    scaler: Scaler | None
    chosen: Selected
    arms: list[str]
    absent: Any
    coefficients: Mapping[str, np.ndarray]

    @property
    def rows(self) -> list[str]:
        """Names of the models that the run's table shows."""
        return list(self.coefficients) or self.arms


def save(
    workdir: Workdir,
    inputs: Inputs,
    chosen: Selected,
    strata: int,
    absent: Any,
    coefficients: Mapping[str, np.ndarray],
) -> None:
    """Write the selected states and what inference takes from the training split."""
    # names of rows are no names of files
    values = [np.asarray(x) for x in coefficients.values()]
    tree = {"chosen": chosen, "absent": absent, "coefficients": values}
    trained.save(workdir, inputs, tree, strata=strata, rows=list(coefficients))


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    called = "train.msa with --model or --debias"
    preset, config = restore_config(folder, "debias", DebiasConfig, called, RENAMED)
    facts = trained.read_facts(folder)
    strata, rows = int(facts.more.get("strata", 0)), list(facts.more.get("rows", []))
    own = arms(config, strata)
    absent = None
    if config.debias == "mcis":
        absent = (
            {m: np.zeros(shape, np.float32) for m, shape in facts.shapes.items()},
            {m: np.zeros(shape[0], bool) for m, shape in facts.shapes.items()},
        )
    like = {
        "chosen": _shapes(preset, config, facts, strata, own),
        "absent": absent,
        "coefficients": [np.zeros((config.seeds, 2)) for _ in rows],
    }
    found, scaler = trained.load_arrays(folder, like, facts)
    coefficients = dict(zip(rows, found["coefficients"], strict=True))
    return Trained(
        preset,
        config,
        facts.task,
        facts.shapes,
        scaler,
        found["chosen"],
        list(own),
        found["absent"],
        coefficients,
    )


def _shapes(
    preset: str, config: DebiasConfig, facts: trained.Facts, strata: int, own: Mapping[str, Hyper]
) -> Selected:
    """Zeros with the shapes of the selected states."""
    model = build_model(config, facts.task)
    stage = BaseStage(config, preset, facts.task, model, strata, 1, None)
    batch = {
        "inputs": {m: jnp.zeros((1, *shape)) for m, shape in facts.shapes.items()},
        "valid": {m: jnp.ones((1, time), bool) for m, (time, _) in facts.shapes.items()},
    }
    hyper = jax.tree.map(jnp.float32, next(iter(own.values())))
    one = jax.eval_shape(lambda: stage.select(stage.init(jax.random.key(0), batch, hyper, {})))
    return jax.tree.map(lambda x: np.zeros((config.seeds, len(own), *x.shape), x.dtype), one)


def exportable(run: Trained, row: str, seed: int) -> Exportable:
    """One model of a run as a function of raw features.

    With counterfactuals it also takes `content`, `[batch, time]`: True on the text's words that
    carry content (`corrkd_jax.data.words`).

    Args:
        run: as brought back.
        row: of its table; empty: the last one that was not made for comparison.
        seed: 0: the first of the run.

    Raises:
        InputError: the run has no such row or seed.
    """
    number = seed_number(seed, run.config.first_seed, run.config.seeds)
    row = row or _headline(run)
    if row not in run.rows:
        raise InputError(f"--arm {row}: the run has {'; '.join(run.rows)}")
    arm = 0 if run.coefficients else run.rows.index(row)
    chosen = jax.tree.map(lambda x: jnp.asarray(x[number, arm])[None], run.chosen)
    model, config = build_model(run.config, run.task), run.config
    coefficients = run.coefficients[row][number] if run.coefficients else None
    with_words = coefficients is not None and CONTEXT in run.coefficients

    def predict(
        features: dict[str, Array], present: dict[str, Array], content: Array | None = None
    ) -> Array:
        rows = {
            "inputs": trained.standardize(run.scaler, features, present, present),
            "valid": present,
        }
        if with_words:
            rows["content"] = content
        factual, label, context = counterfactual.outputs_of(
            model,
            chosen,
            rows,
            lanes=vectorized,
            absent=run.absent,
            nonverbal=config.mcis.nonverbal,
            block=None,
        )
        result = factual[0]
        if coefficients is not None:
            other = jnp.zeros_like(result) if context is None else context[0]
            result = causal.purify(result, label[0], other, coefficients)
        return result if run.task.mode == "score" else jax.nn.softmax(result, axis=-1)

    shapes = run.shapes
    arguments: dict[str, Any] = {
        "features": shapes,
        "present": {m: shape[:1] for m, shape in shapes.items()},
    }
    if with_words:
        arguments["content"] = shapes["text"][:1]
    is_score = run.task.mode == "score"
    return Exportable(
        predict,
        arguments,
        [run.task.classes],
        "score" if is_score else "probabilities",
        {
            "method": row,
            "preset": run.preset,
            "seed": config.first_seed + number,
            "labels": run.task.mode,
            "model": config.model,
            "debias": config.debias,
            "coefficients": None if coefficients is None else list(map(float, coefficients)),
        },
    )


def _headline(run: Trained) -> str:
    for name in (BOTH, LABEL, OWN):
        if name in run.rows:
            return name
    return run.rows[0]
