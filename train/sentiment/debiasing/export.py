"""One model of a finished de-biasing run as a function of raw features.

With counterfactuals it also takes `content`: True on the text's words that carry content.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from corrkd_jax import causal
from corrkd_jax.errors import InputError
from train.engine import cli
from train.engine import export as stablehlo
from train.engine.export import Argument, Exportable, ExportOptions
from train.engine.finished import seed_number
from train.engine.stage import vectorized
from train.sentiment.debiasing import counterfactual
from train.sentiment.debiasing.arms import OWN
from train.sentiment.debiasing.counterfactual import BOTH, CONTEXT, LABEL
from train.sentiment.debiasing.models import build_model
from train.sentiment.debiasing.trained import Trained, load_run
from train.sentiment.export import (
    content_argument,
    features_argument,
    present_argument,
    standardize,
)


def export(folder: Path, out: Path, argv: Sequence[str]) -> None:
    """Write the export of one model of a finished run; arguments as of `train.programs`."""
    options = cli.parse_options(
        ExportOptions, argv, "python -m train.export RUN OUT", __doc__ or ""
    )
    run = load_run(folder)
    stablehlo.write(exportable(run, options.arm, options.seed), folder.name, out)


def exportable(run: Trained, row: str = "", seed: int = 0) -> Exportable:
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
    arm = run.arms[0] if run.coefficients else row
    selected = jax.tree.map(lambda x: jnp.asarray(x)[None], run.one(arm, seed))
    model, config = build_model(run.config, run.task), run.config
    coefficients = run.coefficients[row][number] if run.coefficients else None
    with_words = coefficients is not None and CONTEXT in run.coefficients

    def predict(
        features: dict[str, Array], present: dict[str, Array], content: Array | None = None
    ) -> Array:
        rows = {
            "inputs": standardize(run.scaler, features, present, present),
            "valid": present,
        }
        if with_words:
            rows["content"] = content
        factual, label, context = counterfactual.outputs_of(
            model,
            selected,
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
    arguments: dict[str, Argument] = {
        "features": features_argument(shapes),
        "present": present_argument(shapes),
    }
    if with_words:
        arguments["content"] = content_argument(shapes)
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
