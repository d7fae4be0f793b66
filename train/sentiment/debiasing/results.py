"""What the models of a de-biasing run say of splits, and the table made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.debias import DebiasConfig
from train.sentiment.debiasing import counterfactual
from train.sentiment.debiasing.forward import Selected
from train.sentiment.debiasing.report import Table
from train.sentiment.inputs import Inputs
from train.sentiment.results import truth_of


def outputs(
    config: DebiasConfig,
    model: Any,
    selected: Selected,
    loaded: Inputs,
    splits: Sequence[str],
    absent: Any,
    lanes: Any,
) -> dict[str, counterfactual.Outputs]:
    """What every model says of some splits, seeds and arms side by side as models.

    Args:
        config: of the run.
        model: of `build_model`.
        selected: leading axes seeds and arms.
        loaded: the sets.
        splits: names.
        absent: of `counterfactual.stand_ins`, or None.
        lanes: how the models share the device.
    """
    selected = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:])), selected)
    answers = {}
    for name in splits:
        taken = jax.tree.map(jnp.asarray, loaded.sets[name].take())
        answers[name] = counterfactual.run(
            model, selected, taken, lanes, absent, config.mcis.nonverbal
        )
    return answers


def table_of(
    answers: dict[str, counterfactual.Outputs],
    loaded: Inputs,
    splits: Sequence[str],
    rows: Sequence[str],
    seeds: int,
    coefficients: Mapping[str, np.ndarray],
) -> Table:
    """The table of some splits: a row an arm, or a row a pair of coefficients.

    Args:
        answers: of `outputs`.
        loaded: the sets.
        splits: names.
        rows: the arms.
        seeds: of the run.
        coefficients: row -> `[seeds, 2]`; empty without counterfactuals.
    """
    source = loaded.dataset.source
    truths = {name: truth_of(loaded.sets[name].split, loaded.task, source) for name in splits}
    if coefficients:
        shown = {
            row: {name: counterfactual.purified(answers[name], own) for name in splits}
            for row, own in coefficients.items()
        }
    else:
        by_arm = {
            name: answers[name].factual.reshape(seeds, len(rows), *answers[name].factual.shape[1:])
            for name in splits
        }
        shown = {
            row: {name: by_arm[name][:, number] for name in splits}
            for number, row in enumerate(rows)
        }
    return Table(shown, truths, coefficients)
