"""A finished run, written and brought back without the data that it was trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.msa import RENAMED, MsaConfig
from corrkd_jax.data import msa as files
from corrkd_jax.data.msa import MODALITIES
from corrkd_jax.errors import InputError
from train.engine.finished import FACTS, facts_as
from train.engine.workdir import Workdir, load_model, restore_config
from train.sentiment import corrkd
from train.sentiment.inputs import Inputs
from train.sentiment.task import Task


@dataclass(frozen=True)
class Trained:
    """What `train.evaluate` and `train.export` need of a run.

    Attributes:
        preset: it was made from.
        config: of the run, as given.
        task: what the labels mean.
        shapes: modality -> (time, features) of its training data.
        scaler: fitted on the train split, or None.
        models: selected parameters by stage, leading axes seeds (and arms).
        arms: names of the arms.
    """

    preset: str
    config: MsaConfig
    task: Task
    shapes: dict[str, tuple[int, int]]
    scaler: files.Scaler | None
    models: dict[str, Any]
    arms: list[str]


@dataclass(frozen=True)
class Facts:
    """What a run's `model.json` says of its models.

    Attributes:
        task: what the labels mean.
        shapes: modality -> (time, features) of the training data.
        clip: of the scaler, or None without one.
        more: what only some programs write.
    """

    task: Task
    shapes: dict[str, tuple[int, int]]
    clip: float | None
    more: dict[str, Any]


def save(workdir: Workdir, inputs: Inputs, best: dict[str, Any], **more: Any) -> None:
    """Write the selected parameters, the scaler and what the model expects."""
    scaler = inputs.sets["train"].scaler
    workdir.save_model({**best, "scaler": _arrays(scaler)})
    facts = {
        "task": asdict(inputs.task),
        "shapes": {m: list(x.shape[1:]) for m, x in inputs.dataset.train.features.items()},
        "clip": None if scaler is None else scaler.clip,
        **more,
    }
    workdir.write(FACTS, json.dumps(facts, indent=2) + "\n")


def read_facts(folder: Path) -> Facts:
    """What `save` wrote beside the arrays; raises as `facts_as` does."""

    def made(facts: dict[str, Any]) -> Facts:
        task = facts.pop("task")
        return Facts(
            Task(**{**task, "names": tuple(task["names"])}),
            {m: tuple(shape) for m, shape in facts.pop("shapes").items()},
            facts.pop("clip"),
            facts,
        )

    return facts_as(made, folder)


def load_arrays(folder: Path, like: Any, facts: Facts) -> tuple[Any, files.Scaler | None]:
    """Arrays and scaler that `save` wrote.

    Args:
        folder: of the run.
        like: tree of arrays with the shapes to expect, the scaler left out.
        facts: of the run.

    Raises:
        InputError: there are none, or they belong to another configuration.
    """
    sizes = {m: np.zeros(size, np.float32) for m, (_, size) in facts.shapes.items()}
    scaler = None if facts.clip is None else files.Scaler(sizes, sizes, facts.clip)
    found = load_model(folder, {**like, "scaler": _arrays(scaler)})
    kept = found.pop("scaler")
    if facts.clip is None:
        return found, None
    return found, files.Scaler(kept["mean"], kept["std"], facts.clip)


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    preset, config = restore_config(folder, "msa", MsaConfig, "train.msa that distils", RENAMED)
    facts = read_facts(folder)
    arms = list(corrkd.arms(config))
    like = _model_shapes(config, facts.task, facts.shapes, len(arms))
    models, scaler = load_arrays(folder, like, facts)
    return Trained(preset, config, facts.task, facts.shapes, scaler, models, arms)


def check_features(shapes: dict[str, tuple[int, int]], dataset: files.Dataset) -> None:
    """Refuse a file that a run's networks cannot take.

    Args:
        shapes: modality -> (time, features) that the run was trained with.
        dataset: as read.

    Raises:
        InputError: names the file, the modality and both sizes.
    """
    for name, (_, size) in shapes.items():
        found = dataset.train.features[name].shape[2]
        if found != size:
            raise InputError(
                f"{dataset.source}: {name} has {found} features, the run was trained with {size}"
            )


def standardize(
    scaler: files.Scaler | None,
    features: dict[str, Array],
    present: dict[str, Array],
    kept: dict[str, Array],
) -> dict[str, Array]:
    """Raw features as networks take them: cleaned, scaled, zero where nothing is to be seen."""
    inputs = {}
    for name in MODALITIES:
        x = jnp.where(jnp.isfinite(features[name]), features[name], 0.0)
        if scaler is not None:
            x = jnp.clip((x - scaler.mean[name]) / scaler.std[name], -scaler.clip, scaler.clip)
        inputs[name] = jnp.where((present[name] & kept[name])[..., None], x, 0.0)
    return inputs


def _arrays(scaler: files.Scaler | None) -> dict[str, dict[str, np.ndarray]]:
    return {} if scaler is None else {"mean": dict(scaler.mean), "std": dict(scaler.std)}


def _model_shapes(
    config: MsaConfig, task: Task, shapes: dict[str, tuple[int, int]], arms: int
) -> dict[str, Any]:
    """Zeros with the shapes of the selected parameters."""
    network = corrkd.build_network(config.network, task)
    inputs = {m: jnp.zeros((1, *shape)) for m, shape in shapes.items()}
    valid = {m: jnp.ones((1, time), bool) for m, (time, _) in shapes.items()}
    params = jax.eval_shape(network.init, jax.random.key(0), inputs, valid)["params"]

    def zeros(*lanes: int) -> Any:
        return jax.tree.map(lambda x: np.zeros((*lanes, *x.shape), x.dtype), params)

    return {"teacher": zeros(config.seeds), "student": zeros(config.seeds, arms)}
