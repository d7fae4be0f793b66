"""Base models from options, under a new head for an intervention."""

import ast
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import flax.linen as nn

from configs.debias import SMALL, SMALL_SUBJECTS, DebiasConfig
from corrkd_jax.errors import InputError
from corrkd_jax.models.corrkd import CorrKDNetwork
from corrkd_jax.models.deconfounded import Deconfounded, Mixture
from corrkd_jax.models.lmf import LMF
from corrkd_jax.models.mag import MAG
from corrkd_jax.models.misa import MISA
from corrkd_jax.models.mmim import MMIM
from corrkd_jax.models.mult import MulT
from corrkd_jax.models.pooled import Pooled
from corrkd_jax.models.self_mm import SelfMM
from corrkd_jax.models.tfn import TFN
from train.sentiment.debiasing.arms import arms
from train.sentiment.task import Task

MODELS: dict[str, type[nn.Module]] = {
    "pooled": Pooled,
    "tfn": TFN,
    "lmf": LMF,
    "mult": MulT,
    "misa": MISA,
    "self_mm": SelfMM,
    "mag": MAG,
    "mmim": MMIM,
    "corrkd": CorrKDNetwork,
}


def build_model(config: DebiasConfig, task: Task, axis_name: str | None = None) -> nn.Module:
    """The base model of a configuration, under a new head for an intervention.

    Raises:
        InputError: the task is not for base models, or an attribute is unknown or does not read.
    """
    if len(task.names) > 1:
        raise InputError(
            f"--model {config.model}: the file has {len(task.names)} tasks a sample "
            f"({', '.join(task.names)}); base models have one"
        )
    kind = MODELS[config.model]
    sizes = SMALL_SUBJECTS if config.debias == "suci" else SMALL
    attributes = dict(sizes[config.model]) if config.small else {}
    attributes |= network_options(config.network, kind, config.model)
    known = {f.name for f in fields(kind)}
    attributes["classes" if "classes" in known else "outputs"] = task.classes
    if "axis_name" in known:
        attributes["axis_name"] = axis_name
    model = kind(**attributes)
    if config.debias != "suci":
        return model
    return Deconfounded(
        model,
        _used_weightings(config),
        config.suci.width,
        config.suci.key_width,
        config.suci.scale,
        config.suci.renormalize,
    )


def _used_weightings(config: DebiasConfig) -> tuple[str, ...]:
    mixtures = [hyper.mixture for hyper in arms(config, 2).values()]
    return tuple(n for n in Mixture._fields if any(getattr(m, n) for m in mixtures))


def network_options(options: Sequence[str], kind: type, model: str) -> dict[str, Any]:
    """`NAME=VALUE` options as attributes of a base model.

    Raises:
        InputError: no such attribute, or a value of another type.
    """
    defaults = {
        f.name: f.default
        for f in fields(kind)
        if isinstance(f.default, int | float | str | tuple) and f.name not in ("name", "parent")
    }
    for reserved in ("outputs", "classes", "tasks"):
        defaults.pop(reserved, None)
    attributes = {}
    for option in options:
        name, _, text = option.partition("=")
        if name not in defaults:
            raise InputError(
                f"--network {option}: {model} has no {name!r}; it has {', '.join(defaults)}"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        default = defaults[name]
        if isinstance(default, tuple) and isinstance(value, int):
            value = (value,)
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(default):
            raise InputError(
                f"--network {option}: {name} is a {type(default).__name__} such as {default!r}"
            )
        attributes[name] = value
    return attributes
