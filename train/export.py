"""`python -m train.export RUN OUT`: one trained network as serialized StableHLO.

Writes `OUT/model.stablehlo` (for `jax.export.deserialize`; CPU, CUDA and TPU; any batch size),
`OUT/metadata.json` and `OUT/README.md`, which says how to call it. The function takes features as
they stand in the file: cleaning, scaling and padding are inside.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array, export

from corrkd_jax.data.atomic import write_atomically
from corrkd_jax.data.msa import MODALITIES
from corrkd_jax.errors import InputError
from train import cli, corrkd
from train.progress import say
from train.trained import Trained, load_run
from train.workdir import write_text


@dataclass(frozen=True)
class ExportOptions:
    """Which of the run's networks."""

    arm: str = corrkd.METHOD
    """Name of an arm as the run's table shows it, or teacher."""
    seed: int = 0
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
    trained = load_run(folder)
    params = pick(trained, options)
    exported, shapes = build(trained, params)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from error
    blob = exported.serialize()
    write_atomically(out / "model.stablehlo", lambda file: file.write(blob))
    task = trained.task
    metadata = {
        "method": options.arm,
        "run": folder.name,
        "preset": trained.preset,
        "seed": options.seed or trained.config.first_seed,
        "inputs": {
            "features": {m: ["batch", *shape] for m, shape in shapes.items()},
            "present": {m: ["batch", shape[0]] for m, shape in shapes.items()},
            "kept": {m: ["batch", shape[0]] for m, shape in shapes.items()},
        },
        "dtypes": {"features": "float32", "present": "bool", "kept": "bool"},
        "output": {"shape": ["batch", len(task.names), task.classes], "is": "probabilities"},
        "tasks": list(task.names),
        "labels": task.mode,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
        "network": asdict(trained.config.network),
    }
    write_text(out / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    text = readme(f"{options.arm}, run {folder.name}", shapes)
    write_text(out / "README.md", text)
    say(text)
    say(f"{out / 'model.stablehlo'}: {len(blob) / 1e6:.1f} MB")


def pick(trained: Trained, options: ExportOptions) -> Any:
    """Parameters of one seed of one arm.

    Raises:
        InputError: the run has no such arm or seed.
    """
    number = options.seed - trained.config.first_seed if options.seed else 0
    if not 0 <= number < trained.config.seeds:
        first, last = (
            trained.config.first_seed,
            trained.config.first_seed + trained.config.seeds - 1,
        )
        raise InputError(f"--seed {options.seed}: the run has seeds {first} to {last}")
    if options.arm == "teacher":
        return jax.tree.map(lambda x: x[number], trained.models["teacher"])
    if options.arm not in trained.arms:
        known = "; ".join(["teacher", *trained.arms])
        raise InputError(f"--arm {options.arm}: the run has {known}")
    arm = trained.arms.index(options.arm)
    return jax.tree.map(lambda x: x[number, arm], trained.models["student"])


def build(trained: Trained, params: Any) -> tuple[export.Exported, dict[str, tuple[int, int]]]:
    """The exported function and the shapes `(time, features)` of its inputs."""
    network = corrkd.build_network(trained.config.network, trained.task)
    scaler = trained.scaler
    params = jax.tree.map(jnp.asarray, params)

    def predict(
        features: dict[str, Array], present: dict[str, Array], kept: dict[str, Array]
    ) -> Array:
        inputs = {}
        for name in MODALITIES:
            x = jnp.where(jnp.isfinite(features[name]), features[name], 0.0)
            if scaler is not None:
                x = jnp.clip((x - scaler.mean[name]) / scaler.std[name], -scaler.clip, scaler.clip)
            inputs[name] = jnp.where((present[name] & kept[name])[..., None], x, 0.0)
        logits = network.apply({"params": params}, inputs, present, train=False).logits
        return jax.nn.softmax(logits, axis=-1)

    (batch,) = export.symbolic_shape("batch")
    shapes = trained.shapes
    features = {m: jax.ShapeDtypeStruct((batch, *s), np.float32) for m, s in shapes.items()}
    masks = {m: jax.ShapeDtypeStruct((batch, s[0]), np.bool_) for m, s in shapes.items()}
    exporter = export.export(jax.jit(predict), platforms=("cpu", "cuda", "tpu"))
    return exporter(features, masks, masks), shapes


def readme(name: str, shapes: dict[str, tuple[int, int]]) -> str:
    """How to call an exported function."""
    arrays = "\n".join(
        f'    "{m}": np.zeros((batch, {time}, {size}), np.float32),'
        for m, (time, size) in shapes.items()
    )
    return f"""# {name}

`model.stablehlo` is one function of raw features, for CPU, CUDA and TPU, at any batch size.

```python
import jax.export
import numpy as np

model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
batch = 4
features = {{
{arrays}
}}
present = {{m: np.ones(x.shape[:2], bool) for m, x in features.items()}}  # False: padding
kept = {{m: np.ones(x.shape[:2], bool) for m, x in features.items()}}  # False: missing
probabilities = model.call(features, present, kept)  # [batch, tasks, classes]
```

* `features`: as they stand in the data file. Values that are not finite count as zero; scaling by
  the training statistics and clipping happen inside.
* `present`: False on padding, which is neither attended to nor averaged.
* `kept`: False on frames that are missing. A whole missing modality is False in all its frames;
  leave its `present` as the length it would have had.
* `metadata.json` holds shapes, types, the meaning of the output and the network's settings.
"""


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
