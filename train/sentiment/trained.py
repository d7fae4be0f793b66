"""A finished run, written and brought back without the data that it was trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.msa import RENAMED, MsaConfig
from corrkd_jax.data import msa as files
from corrkd_jax.errors import InputError
from train.engine.finished import METADATA, Finished, by_arm, metadata_as, zeros
from train.engine.workdir import Workdir, load_model, restore_config
from train.sentiment import corrkd
from train.sentiment.inputs import Inputs
from train.sentiment.task import Task

TEACHER = "teacher"
"""Name by which a run's teacher is asked for, beside its arms."""


@dataclass(frozen=True)
class Trained(Finished[MsaConfig]):
    """A finished distillation; `models` holds the teacher beside the arms.

    Attributes:
        task: what the labels mean.
        shapes: modality -> (time, features) of its training data.
        scaler: fitted on the train split, or None.
        stages: selected parameters by stage, leading axes seeds (and arms).
    """

    task: Task
    shapes: dict[str, tuple[int, int]]
    scaler: files.Scaler | None
    stages: dict[str, Any]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms; the teacher is none."""
        return tuple(name for name in self.models if name != TEACHER)


@dataclass(frozen=True)
class Metadata:
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
    metadata = {
        "task": asdict(inputs.task),
        "shapes": {m: list(x.shape[1:]) for m, x in inputs.dataset.train.features.items()},
        "clip": None if scaler is None else scaler.clip,
        **more,
    }
    workdir.write(METADATA, json.dumps(metadata, indent=2) + "\n")


def read_metadata(folder: Path) -> Metadata:
    """What `save` wrote beside the arrays; raises as `metadata_as` does."""

    def make(saved: dict[str, Any]) -> Metadata:
        task = saved.pop("task")
        return Metadata(
            Task(**{**task, "names": tuple(task["names"])}),
            {m: tuple(shape) for m, shape in saved.pop("shapes").items()},
            saved.pop("clip"),
            saved,
        )

    return metadata_as(make, folder)


def load_arrays(folder: Path, like: Any, metadata: Metadata) -> tuple[Any, files.Scaler | None]:
    """Arrays and scaler that `save` wrote.

    Args:
        folder: of the run.
        like: tree of arrays with the shapes to expect, the scaler left out.
        metadata: of the run.

    Raises:
        InputError: there are none, or they belong to another configuration.
    """
    sizes = {m: np.zeros(size, np.float32) for m, (_, size) in metadata.shapes.items()}
    scaler = None if metadata.clip is None else files.Scaler(sizes, sizes, metadata.clip)
    arrays = load_model(folder, {**like, "scaler": _arrays(scaler)})
    saved = arrays.pop("scaler")
    if metadata.clip is None:
        return arrays, None
    return arrays, files.Scaler(saved["mean"], saved["std"], metadata.clip)


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    preset, config = restore_config(folder, "msa", MsaConfig, "train.msa that distils", RENAMED)
    metadata = read_metadata(folder)
    arms = list(corrkd.arms(config))
    like = _model_shapes(config, metadata.task, metadata.shapes, len(arms))
    stages, scaler = load_arrays(folder, like, metadata)
    models = {TEACHER: stages["teacher"], **by_arm(stages["student"], arms)}
    return Trained(preset, config, models, metadata.task, metadata.shapes, scaler, stages)


def check_features(shapes: dict[str, tuple[int, int]], dataset: files.Dataset) -> None:
    """Refuse a file that a run's networks cannot take.

    Args:
        shapes: modality -> (time, features) that the run was trained with.
        dataset: as read.

    Raises:
        InputError: names the file, the modality and both sizes.
    """
    for name, (_, size) in shapes.items():
        here = dataset.train.features[name].shape[2]
        if here != size:
            raise InputError(
                f"{dataset.source}: {name} has {here} features, the run was trained with {size}"
            )


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

    return {"teacher": zeros(params, config.seeds), "student": zeros(params, config.seeds, arms)}
