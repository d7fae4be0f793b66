"""A finished run, written and brought back without the data that it was trained on."""

import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.msa import MsaConfig
from corrkd_jax.data import msa as files
from corrkd_jax.errors import InputError
from train import corrkd
from train.inputs import Inputs
from train.protocol import Task
from train.workdir import CONFIG, Workdir, load_model, read_config

FACTS = "model.json"


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


def save(workdir: Workdir, inputs: Inputs, best: dict[str, Any]) -> None:
    """Write the selected parameters, the scaler and what the model expects."""
    scaler = inputs.sets["train"].scaler
    workdir.save_model({**best, "scaler": _arrays(scaler)})
    facts = {
        "task": asdict(inputs.task),
        "shapes": {m: list(x.shape[1:]) for m, x in inputs.dataset.train.features.items()},
        "clip": None if scaler is None else scaler.clip,
    }
    workdir.write(FACTS, json.dumps(facts, indent=2) + "\n")


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    preset, config = restore_config(folder)
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        task = Task(**{**facts["task"], "names": tuple(facts["task"]["names"])})
        shapes = {m: tuple(shape) for m, shape in facts["shapes"].items()}
        clip = facts["clip"]
    except FileNotFoundError:
        raise InputError(f"{folder}: not finished yet; continue it with --resume") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged: {error!r}") from error
    arms = [arm.name for arm in corrkd.arms(config)]
    sizes = {m: np.zeros(size, np.float32) for m, (_, size) in shapes.items()}
    scaler = None if clip is None else files.Scaler(sizes, sizes, clip)
    like = {**_model_shapes(config, task, shapes, len(arms)), "scaler": _arrays(scaler)}
    models = load_model(folder, like)
    found = models.pop("scaler")
    scaler = None if clip is None else files.Scaler(found["mean"], found["std"], clip)
    return Trained(preset, config, task, shapes, scaler, models, arms)


def restore_config(folder: Path) -> tuple[str, MsaConfig]:
    """Preset and configuration of a finished run.

    Raises:
        InputError: the folder is not a run of this program, or of another version of it.
    """
    saved = read_config(folder)
    if not isinstance(saved, dict) or saved.pop("program", None) != "msa":
        raise InputError(
            f"{folder / CONFIG}: not a run of train.msa that distils; one with --model or "
            "--debias holds its results in report.md and results.json"
        )
    if not isinstance(preset := saved.pop("preset", None), str):
        raise InputError(f"{folder / CONFIG}: names no preset; it was not written by train.msa")
    return preset, _dataclass_from(MsaConfig, saved, str(folder / CONFIG))


def _dataclass_from(kind: Any, values: dict[str, Any], where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}, not a group of fields")
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: {unknown[0]} is no field of this version")
    filled = {}
    for name, value in values.items():
        inner = known[name].type
        if is_dataclass(inner):
            value = _dataclass_from(inner, value, f"{where}: {name}")
        elif isinstance(value, list):
            value = tuple(value)
        filled[name] = value
    return kind(**filled)


def check_features(trained: Trained, dataset: files.Dataset) -> None:
    """Refuse a file that the run's networks cannot take.

    Raises:
        InputError: names the file, the modality and both sizes.
    """
    for name, (_, size) in trained.shapes.items():
        found = dataset.train.features[name].shape[2]
        if found != size:
            raise InputError(
                f"{dataset.source}: {name} has {found} features, the run was trained with {size}"
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

    def zeros(*lanes: int) -> Any:
        return jax.tree.map(lambda x: np.zeros((*lanes, *x.shape), x.dtype), params)

    return {"teacher": zeros(config.seeds), "student": zeros(config.seeds, arms)}
