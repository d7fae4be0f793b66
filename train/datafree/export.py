"""One student of a finished data-free distillation as a function of raw images, and its weights."""

from collections.abc import Sequence
from pathlib import Path

from train.datafree.trained import exportable, load_run
from train.engine import cli
from train.engine import export as stablehlo
from train.engine.export import ExportOptions
from train.engine.progress import say
from train.images import pretrained


def export(folder: Path, out: Path, argv: Sequence[str]) -> None:
    """Write the export of one student of a finished run; arguments as of `train.programs`."""
    options = cli.parse_options(
        ExportOptions, argv, "python -m train.export RUN OUT", __doc__ or ""
    )
    student, weights = exportable(load_run(folder), options.arm, options.seed)
    stablehlo.write(student, folder.name, out)
    if weights is not None:
        pretrained.save(out / "student.safetensors", weights)
        say(f"{out / 'student.safetensors'}: {weights.network}, for --teacher and train.convert")
