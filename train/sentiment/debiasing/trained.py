"""A finished de-biasing run, written and brought back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.debias import RENAMED, DebiasConfig
from corrkd_jax.data.msa import Scaler
from train.engine.finished import Finished, by_arm, zeros
from train.engine.workdir import Workdir, restore_config
from train.sentiment import trained
from train.sentiment.debiasing.arms import Hyper, arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.forward import Selected
from train.sentiment.debiasing.models import build_model
from train.sentiment.inputs import Inputs
from train.sentiment.task import Task


@dataclass(frozen=True)
class Trained(Finished[DebiasConfig]):
    """A finished de-biasing run; `models` are the selected states by arm.

    Attributes:
        task: what the labels mean.
        shapes: modality -> (time, features) of its training data.
        scaler: fitted on the train split, or None.
        selected: selected states of all arms, leading axes seeds and arms.
        absent: of `counterfactual.stand_ins`; None without counterfactuals.
        coefficients: row -> `[seeds, 2]`; empty without counterfactuals.
    """

    task: Task
    shapes: dict[str, tuple[int, int]]
    scaler: Scaler | None
    selected: Selected
    absent: Any
    coefficients: Mapping[str, np.ndarray]

    @property
    def rows(self) -> list[str]:
        """Names of the models that the run's table shows."""
        return list(self.coefficients or self.arms)


def save(
    workdir: Workdir,
    inputs: Inputs,
    selected: Selected,
    strata: int,
    absent: Any,
    coefficients: Mapping[str, np.ndarray],
) -> None:
    """Write the selected states and what inference takes from the training split."""
    # names of rows are no names of files
    values = [np.asarray(x) for x in coefficients.values()]
    tree = {"chosen": selected, "absent": absent, "coefficients": values}
    trained.save(workdir, inputs, tree, strata=strata, rows=list(coefficients))


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    called = "train.msa with --model or --debias"
    preset, config = restore_config(folder, "debias", DebiasConfig, called, RENAMED)
    metadata = trained.read_metadata(folder)
    strata, rows = int(metadata.more.get("strata", 0)), list(metadata.more.get("rows", []))
    hypers = arms(config, strata)
    absent = None
    if config.debias == "mcis":
        absent = (
            {m: np.zeros(shape, np.float32) for m, shape in metadata.shapes.items()},
            {m: np.zeros(shape[0], bool) for m, shape in metadata.shapes.items()},
        )
    like = {
        "chosen": _shapes(preset, config, metadata, strata, hypers),
        "absent": absent,
        "coefficients": [np.zeros((config.seeds, 2)) for _ in rows],
    }
    arrays, scaler = trained.load_arrays(folder, like, metadata)
    return Trained(
        preset,
        config,
        by_arm(arrays["chosen"], list(hypers)),
        metadata.task,
        metadata.shapes,
        scaler,
        arrays["chosen"],
        arrays["absent"],
        dict(zip(rows, arrays["coefficients"], strict=True)),
    )


def _shapes(
    preset: str,
    config: DebiasConfig,
    metadata: trained.Metadata,
    strata: int,
    hypers: Mapping[str, Hyper],
) -> Selected:
    """Zeros with the shapes of the selected states."""
    model = build_model(config, metadata.task)
    stage = BaseStage(config, preset, metadata.task, model, strata, 1, None)
    batch = {
        "inputs": {m: jnp.zeros((1, *shape)) for m, shape in metadata.shapes.items()},
        "valid": {m: jnp.ones((1, time), bool) for m, (time, _) in metadata.shapes.items()},
    }
    hyper = jax.tree.map(jnp.float32, next(iter(hypers.values())))
    one = jax.eval_shape(lambda: stage.select(stage.init(jax.random.key(0), batch, hyper, {})))
    return zeros(one, config.seeds, len(hypers))
