"""A finished data-free distillation, brought back for `train.evaluate` and `train.export`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.dfkd import RENAMED, DfkdConfig
from corrkd_jax.data.image_set import ImageSet, Normalization
from corrkd_jax.errors import InputError
from corrkd_jax.models.compensated import Compensated
from train.datafree.arms import ALONE, KDCI
from train.datafree.distilling import Distilling, DistillStage, Selected
from train.datafree.hosts.networks import Dictionary, build_student, read_pixels
from train.datafree.inputs import Loaded
from train.engine.export import Argument, Exportable
from train.engine.finished import METADATA, Finished, by_arm, metadata_as, seed_number, zeros
from train.engine.parallel import compute_dtype
from train.engine.workdir import Workdir, load_model, restore_config
from train.images.pretrained import Pretrained

KEPT = ", kept"
"""Ends the name of an export whose compensation stays."""


@dataclass(frozen=True)
class Trained(Finished[DfkdConfig]):
    """Students of a finished run at its last epoch; `models` are `Selected` by arm.

    Attributes:
        classes: names of the classes.
        side: of images.
        channels: of images.
        white: value of a pixel that means 1.0.
        normalization: what teacher and student were shown.
        selected: all that inference needs; leading axes seeds, arms.
    """

    classes: tuple[str, ...]
    side: int
    channels: int
    white: int
    normalization: Normalization
    selected: Selected

    @property
    def network(self) -> Compensated:
        """The student."""
        dtype = compute_dtype(self.config.dtype)
        return build_student(self.config, len(self.classes), self.side, None, dtype)

    def read(self, images: Array) -> Array:
        """Pixels `uint8` as the student sees them."""
        return read_pixels(images, self.normalization, self.white)

    def check(self, images: ImageSet) -> None:
        """Refuse images that the students were not made for.

        Raises:
            InputError: names the source and what differs.
        """
        shape = (self.side, self.side, self.channels)
        if images.images.shape[1:] != shape:
            raise InputError(
                f"{images.source}: images are {images.images.shape[1:]}, the run's are {shape}"
            )
        if images.classes != self.classes:
            known = set(self.classes)
            unknown = [name for name in images.classes if name not in known]
            example = f", such as {unknown[0]}" if unknown else ""
            raise InputError(
                f"{images.source}: its {len(images.classes)} classes are not the run's "
                f"{len(self.classes)}{example}"
            )


def save(
    workdir: Workdir, loaded: Loaded, student: DistillStage, arms: Sequence[str], state: Distilling
) -> None:
    """Write the students of the last epoch and what they expect; leading axes seeds, arms."""
    workdir.save_model(student.select(state))
    networks = student.networks
    metadata = {
        "arms": list(arms),
        "classes": list(loaded.test.classes),
        "side": networks.side,
        "channels": networks.channels,
        "white": loaded.test.white,
        "normalization": networks.normalization._asdict(),
        "dictionary": list(state.dictionary.confounders.shape[-2:]),
    }
    workdir.write(METADATA, json.dumps(metadata, indent=2) + "\n")


def load_run(folder: Path) -> Trained:
    """Bring back a finished run.

    Raises:
        InputError: no such run, an unfinished one, or one of another version.
    """
    preset, config = restore_config(folder, "dfkd", DfkdConfig, "train.dfkd", RENAMED)

    def make(metadata: dict[str, Any]) -> tuple[Trained, list[str]]:
        size = metadata["dictionary"]
        dictionary = Dictionary(jnp.zeros(size), jnp.zeros(size[0]), jnp.int32(0))
        run = Trained(
            preset,
            config,
            models={},
            classes=tuple(metadata["classes"]),
            side=int(metadata["side"]),
            channels=int(metadata["channels"]),
            white=int(metadata["white"]),
            normalization=Normalization(
                **{k: tuple(x) for k, x in metadata["normalization"].items()}
            ),
            selected=Selected({}, dictionary, 0.0),
        )
        return run, list(metadata["arms"])

    run, arms = metadata_as(make, folder)
    selected = load_model(folder, _like(run, len(arms)))
    return replace(run, models=by_arm(selected, arms), selected=selected)


def _like(run: Trained, arms: int) -> Selected:
    """Zeros with the shapes of what the run saved."""
    image = jnp.zeros((2, run.side, run.side, run.channels))
    dictionary = run.selected.dictionary
    variables = jax.eval_shape(
        run.network.init, jax.random.key(0), image, dictionary.confounders, dictionary.prior
    )
    one = Selected(variables, dictionary, jnp.zeros(()))
    return zeros(one, run.config.seeds, arms)


def rows_of(run: Trained) -> list[str]:
    """What can be exported: every arm's student alone, and those with their compensation."""
    alone = [] if run.config.compensation.site == "penultimate" else list(run.arms)
    return alone + [name + KEPT for name in run.arms]


def exportable(run: Trained, row: str, seed: int) -> tuple[Exportable, Pretrained | None]:
    """One student of a run as a function of raw images, and its weights.

    Args:
        run: as brought back.
        row: of `rows_of`; empty: KDCI's, or the only one's, as it is deployed: without the
            compensation unless it acts on features.
        seed: 0: the first of the run.

    Returns:
        The function, and the student as a classifier of its own; None where the compensation
        stays.

    Raises:
        InputError: the run has no such row or seed.
    """
    number = seed_number(seed, run.config.first_seed, run.config.seeds)
    if not row:
        row = next((name for name in (KDCI, ALONE) if name in run.arms), run.arms[0])
        row += "" if row in rows_of(run) else KEPT
    if row not in rows_of(run):
        raise InputError(f"--arm {row}: the run has {'; '.join(rows_of(run))}")
    name = row.removesuffix(KEPT)
    compensated = row != name
    student = jax.tree.map(jnp.asarray, run.one(name, seed))
    variables, (confounders, prior, _), strength = student

    def predict(images: Array) -> Array:
        answer = run.network.apply(variables, run.read(images), confounders, prior, strength)
        return jax.nn.softmax(answer.logits if compensated else answer.plain, axis=-1)

    weights = None
    if not compensated:
        backbone = {
            part: tree["backbone"] for part, tree in variables.items() if "backbone" in tree
        }
        weights = Pretrained(
            run.config.student,
            len(run.classes),
            run.side,
            run.channels,
            jax.tree.map(np.asarray, backbone),
            run.normalization,
        )
    function = Exportable(
        predict,
        {
            "images": Argument(
                (run.side, run.side, run.channels),
                "uint8",
                "",
                "* `images`: pixels as they stand in the file; normalisation happens inside.",
            )
        },
        [len(run.classes)],
        "probabilities",
        {
            "method": f"{run.config.host}: {row}",
            "preset": run.preset,
            "seed": run.config.first_seed + number,
            "classes": list(run.classes),
            "student": run.config.student,
            "white": run.white,
            "normalization": run.normalization._asdict(),
            "compensation": asdict(run.config.compensation),
        },
    )
    return function, weights
