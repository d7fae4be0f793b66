"""`python -m train.export RUN OUT`: one trained network as serialized StableHLO.

Writes `OUT/model.stablehlo` (for `jax.export.deserialize`; CPU, CUDA and TPU; any batch size),
`OUT/metadata.json` and `OUT/README.md`, which says how to call it. The function takes features or
images as they stand in the file: cleaning, scaling and padding are inside.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array, export

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from train.datafree import trained as datafree_trained
from train.engine import cli
from train.engine.finished import Exportable, program_of, seed_number
from train.engine.progress import say
from train.engine.workdir import make_folder, write_text
from train.images import pretrained
from train.sentiment import corrkd
from train.sentiment.debiasing import trained as debias_trained
from train.sentiment.trained import Trained, load_run, standardize


@dataclass(frozen=True)
class ExportOptions:
    """Which of the run's networks."""

    arm: str = ""
    """Name of a row as the run's table shows it, or teacher; empty: the method's own."""
    seed: Annotated[int, NotNegative] = 0
    """Seed; 0: the first of the run."""


def main(argv: Sequence[str]) -> None:
    """Export a finished run."""
    names, rest = cli.two_names(argv, "which run, and where to? python -m train.export RUN OUT")
    options = tyro.cli(
        ExportOptions,
        args=rest,
        prog="python -m train.export RUN OUT",
        description=__doc__,
    )
    run(Path(names[0]), Path(names[1]), options)


def run(folder: Path, out: Path, options: ExportOptions) -> None:
    """Write the export of one network of a finished run."""
    program, weights = program_of(folder), None
    if program == "debias":
        own = debias_trained.load_run(folder)
        chosen = debias_trained.exportable(own, options.arm, options.seed)
    elif program == "dfkd":
        distilled = datafree_trained.load_run(folder)
        chosen, weights = datafree_trained.exportable(distilled, options.arm, options.seed)
    else:
        chosen = pick(load_run(folder), options)
    exported = build(chosen)
    make_folder(out)
    blob = exported.serialize()
    write_atomically(out / "model.stablehlo", lambda file: file.write(blob))
    metadata = {
        **chosen.facts,
        "run": folder.name,
        "inputs": {name: _with_batch(shapes) for name, shapes in chosen.arguments.items()},
        "dtypes": {name: _ARGUMENTS[name].dtype for name in chosen.arguments},
        "output": {"shape": ["batch", *chosen.output], "is": chosen.meaning},
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
    }
    write_text(out / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    text = readme(f"{chosen.facts['method']}, run {folder.name}", chosen)
    write_text(out / "README.md", text)
    say(text)
    if weights is not None:
        pretrained.save(out / "student.safetensors", weights)
        say(f"{out / 'student.safetensors'}: {weights.network}, for --teacher and train.convert")
    say(f"{out / 'model.stablehlo'}: {len(blob) / 1e6:.1f} MB")


def pick(trained: Trained, options: ExportOptions) -> Exportable:
    """One seed of one arm of a distillation.

    Raises:
        InputError: the run has no such arm or seed.
    """
    number = seed_number(options.seed, trained.config.first_seed, trained.config.seeds)
    name = options.arm or corrkd.METHOD
    if name == "teacher":
        params = jax.tree.map(lambda x: jnp.asarray(x[number]), trained.models["teacher"])
    elif name in trained.arms:
        arm = trained.arms.index(name)
        params = jax.tree.map(lambda x: jnp.asarray(x[number, arm]), trained.models["student"])
    else:
        known = "; ".join(["teacher", *trained.arms])
        raise InputError(f"--arm {name}: the run has {known}")
    task = trained.task
    network = corrkd.build_network(trained.config.network, task)

    def predict(
        features: dict[str, Array], present: dict[str, Array], kept: dict[str, Array]
    ) -> Array:
        inputs = standardize(trained.scaler, features, present, kept)
        logits = network.apply({"params": params}, inputs, present, train=False).logits
        return jax.nn.softmax(logits, axis=-1)

    frames = {m: shape[:1] for m, shape in trained.shapes.items()}
    return Exportable(
        predict,
        {"features": trained.shapes, "present": frames, "kept": frames},
        [len(task.names), task.classes],
        "probabilities",
        {
            "method": name,
            "preset": trained.preset,
            "seed": trained.config.first_seed + number,
            "tasks": list(task.names),
            "labels": task.mode,
            "network": asdict(trained.config.network),
        },
    )


def build(chosen: Exportable) -> export.Exported:
    """The exported function, for any batch size."""
    (batch,) = export.symbolic_shape("batch")

    def specify(shapes: Any, dtype: Any) -> Any:
        if isinstance(shapes, dict):
            return {name: specify(shape, dtype) for name, shape in shapes.items()}
        return jax.ShapeDtypeStruct((batch, *shapes), dtype)

    arguments = [
        specify(shapes, np.dtype(_ARGUMENTS[name].dtype))
        for name, shapes in chosen.arguments.items()
    ]
    return export.export(jax.jit(chosen.function), platforms=("cpu", "cuda", "tpu"))(*arguments)


def _with_batch(shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {name: _with_batch(shape) for name, shape in shapes.items()}
    return ["batch", *shapes]


def _arrays(name: str, shapes: Any, dtype: str, comment: str = "") -> str:
    """Code that makes an argument: zeros, or a mask that hides nothing."""
    make, kind = ("ones", "bool") if dtype == "bool" else ("zeros", f"np.{dtype}")

    def array(shape: Any) -> str:
        return f"np.{make}(({', '.join(map(str, ['batch', *shape]))}), {kind})"

    if not isinstance(shapes, dict):
        return f"{name} = {array(shapes)}{comment}"
    inner = "".join(f'    "{m}": {array(shape)},\n' for m, shape in shapes.items())
    return f"{name} = {{{comment}\n{inner}}}"


class Argument(NamedTuple):
    """What an exported function takes, for whoever calls it."""

    dtype: str
    comment: str
    note: str


_ARGUMENTS = {
    "features": Argument(
        "float32",
        "",
        "* `features`: as they stand in the data file. Values that are not finite count as zero;\n"
        "  scaling by the training statistics and clipping happen inside.",
    ),
    "present": Argument(
        "bool",
        "  # False: padding",
        "* `present`: False on padding, which is neither attended to nor averaged.",
    ),
    "kept": Argument(
        "bool",
        "  # False: missing",
        "* `kept`: False on frames that are missing. A whole missing modality is False in all its\n"
        "  frames; leave its `present` as the length it would have had.",
    ),
    "content": Argument(
        "bool",
        "  # True: a word that carries content",
        "* `content`: True on the words of the text that carry content, as the run's word list or\n"
        "  rule has them (`corrkd_jax.data.words`); the context term hides them.",
    ),
    "images": Argument(
        "uint8",
        "",
        "* `images`: pixels as they stand in the file; normalisation happens inside.",
    ),
}
"""By name; every argument of every program's exported function."""


def readme(name: str, chosen: Exportable) -> str:
    """How to call an exported function."""
    known = {name: _ARGUMENTS[name] for name in chosen.arguments}
    code = "\n".join(
        _arrays(name, shapes, known[name].dtype, known[name].comment)
        for name, shapes in chosen.arguments.items()
    )
    notes = "\n".join(argument.note for argument in known.values())
    shape = ", ".join(map(str, ["batch", *chosen.output]))
    return f"""# {name}

`model.stablehlo` is one function of raw input, for CPU, CUDA and TPU, at any batch size.

```python
import jax.export
import numpy as np

model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
batch = 4
{code}
{chosen.meaning} = model.call({", ".join(chosen.arguments)})  # [{shape}]
```

{notes}
* `metadata.json` holds shapes, types, the meaning of the output and the network's settings.
"""


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
