"""One network of a finished distillation as a function of raw features."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from corrkd_jax.data.msa import MODALITIES, Scaler
from train.engine import cli
from train.engine import export as stablehlo
from train.engine.export import Argument, Exportable, ExportOptions
from train.engine.finished import seed_number
from train.sentiment import corrkd
from train.sentiment.trained import Trained, load_run


@dataclass(frozen=True)
class DistillationExportOptions(ExportOptions):
    """The network of the run that is exported."""

    arm: str = ""
    """Name of an arm as the run's table shows it, or teacher; empty: CorrKD."""


def export(folder: Path, out: Path, argv: Sequence[str]) -> None:
    """Write the export of one network of a finished run; arguments as of `train.programs`."""
    options = cli.parse_options(
        DistillationExportOptions, argv, "python -m train.export RUN OUT", __doc__ or ""
    )
    run = load_run(folder)
    stablehlo.write(exportable(run, options.arm, options.seed), folder.name, out)


def exportable(run: Trained, arm: str = "", seed: int = 0) -> Exportable:
    """One seed of one arm of a distillation.

    Args:
        run: as brought back.
        arm: name of an arm, or teacher; empty: the method's own.
        seed: 0: the first of the run.

    Raises:
        InputError: the run has no such arm or seed.
    """
    arm = arm or corrkd.METHOD
    params = jax.tree.map(jnp.asarray, run.one(arm, seed))
    number = seed_number(seed, run.config.first_seed, run.config.seeds)
    task = run.task
    network = corrkd.build_network(run.config.network, task)

    def predict(
        features: dict[str, Array], present: dict[str, Array], kept: dict[str, Array]
    ) -> Array:
        inputs = standardize(run.scaler, features, present, kept)
        logits = network.apply({"params": params}, inputs, present, train=False).logits
        return jax.nn.softmax(logits, axis=-1)

    return Exportable(
        predict,
        {
            "features": features_argument(run.shapes),
            "present": present_argument(run.shapes),
            "kept": kept_argument(run.shapes),
        },
        [len(task.names), task.classes],
        "probabilities",
        {
            "method": arm,
            "preset": run.preset,
            "seed": run.config.first_seed + number,
            "tasks": list(task.names),
            "labels": task.mode,
            "network": asdict(run.config.network),
        },
    )


def standardize(
    scaler: Scaler | None,
    features: dict[str, Array],
    present: dict[str, Array],
    kept: dict[str, Array],
) -> dict[str, Array]:
    """Raw features as networks take them: cleaned, scaled, zero where nothing is to be seen.

    Args:
        scaler: of the run, or None.
        features: modality -> `[batch, time, features]`, as they stand in a file.
        present: modality -> `[batch, time]` bool, False on padding.
        kept: modality -> `[batch, time]` bool, False on frames that are missing.
    """
    inputs = {}
    for name in MODALITIES:
        x = jnp.where(jnp.isfinite(features[name]), features[name], 0.0)
        if scaler is not None:
            x = jnp.clip((x - scaler.mean[name]) / scaler.std[name], -scaler.clip, scaler.clip)
        inputs[name] = jnp.where((present[name] & kept[name])[..., None], x, 0.0)
    return inputs


def features_argument(shapes: dict[str, tuple[int, int]]) -> Argument:
    """Raw features; `shapes` is modality -> (time, features)."""
    return Argument(
        dict(shapes),
        "float32",
        "",
        "* `features`: as they stand in the data file. Values that are not finite count as zero;\n"
        "  scaling by the training statistics and clipping happen inside.",
    )


def present_argument(shapes: dict[str, tuple[int, int]]) -> Argument:
    """Which frames are real."""
    return Argument(
        _frames(shapes),
        "bool",
        "  # False: padding",
        "* `present`: False on padding, which is neither attended to nor averaged.",
    )


def kept_argument(shapes: dict[str, tuple[int, int]]) -> Argument:
    """Which frames are not missing."""
    return Argument(
        _frames(shapes),
        "bool",
        "  # False: missing",
        "* `kept`: False on frames that are missing. A whole missing modality is False in all its\n"
        "  frames; leave its `present` as the length it would have had.",
    )


def content_argument(shapes: dict[str, tuple[int, int]]) -> Argument:
    """Which words of the text carry content."""
    return Argument(
        shapes["text"][:1],
        "bool",
        "  # True: a word that carries content",
        "* `content`: True on the words of the text that carry content, as the run's word list or\n"
        "  rule has them (`corrkd_jax.data.words`); the context term hides them.",
    )


def _frames(shapes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    return {name: shape[:1] for name, shape in shapes.items()}
