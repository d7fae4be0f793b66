"""A trained model as serialized StableHLO, with metadata and a page that says how to call it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax import Array, export
from rich.filesize import decimal

from corrkd_jax.atomic import write_atomically
from corrkd_jax.ranges import NotNegative
from train.engine.progress import say
from train.engine.workdir import make_folder, write_text


@dataclass(frozen=True)
class ExportOptions:
    """The network of the run that is exported."""

    arm: str = ""
    """Name of a row as the run's table shows it; empty: the method's own."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of the network; 0: the first of the run."""


class Argument(NamedTuple):
    """An argument of an exported function, for whoever calls it.

    Attributes:
        shape: without the batch; or name -> shape, for an argument of several arrays.
        dtype: NumPy's name.
        comment: behind the code that makes it.
        note: an item of the page's list that says what it is, with the `* ` before it.
    """

    shape: Any
    dtype: str
    comment: str
    note: str


@dataclass(frozen=True)
class Exportable:
    """One trained model, ready to be written as a function of raw input.

    Attributes:
        function: of the arguments in their order.
        arguments: by name.
        output: shape of the result, without the batch.
        meaning: of the result.
        metadata: for `metadata.json`; `method` and `seed` name the model.
    """

    function: Callable[..., Array]
    arguments: dict[str, Argument]
    output: list[int]
    meaning: str
    metadata: dict[str, Any]


def write(exportable: Exportable, run: str, out: Path) -> None:
    """Write `model.stablehlo`, `metadata.json` and `README.md`.

    Args:
        exportable: the model.
        run: name of the run that it comes from.
        out: folder, made if it does not exist.

    Raises:
        InputError: the disk refuses.
    """
    exported = build(exportable)
    make_folder(out)
    blob = exported.serialize()
    write_atomically(out / "model.stablehlo", lambda file: file.write(blob))
    arguments = exportable.arguments
    metadata = {
        **exportable.metadata,
        "run": run,
        "inputs": {name: _with_batch(argument.shape) for name, argument in arguments.items()},
        "dtypes": {name: argument.dtype for name, argument in arguments.items()},
        "output": {"shape": ["batch", *exportable.output], "is": exportable.meaning},
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
    }
    write_text(out / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    text = readme("{method}, seed {seed}, run {run}".format(**metadata), exportable)
    write_text(out / "README.md", text)
    say(text)
    say(f"{out / 'model.stablehlo'}: {decimal(len(blob))}")


def build(exportable: Exportable) -> export.Exported:
    """The exported function, for any batch size and for CPU, CUDA and TPU."""
    (batch,) = export.symbolic_shape("batch")

    def specify(shape: Any, dtype: str) -> Any:
        if isinstance(shape, dict):
            return {name: specify(inner, dtype) for name, inner in shape.items()}
        return jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype))

    arguments = [specify(each.shape, each.dtype) for each in exportable.arguments.values()]
    function = jax.jit(exportable.function)
    return export.export(function, platforms=("cpu", "cuda", "tpu"))(*arguments)


def _with_batch(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _with_batch(inner) for name, inner in shape.items()}
    return ["batch", *shape]


def _code(name: str, argument: Argument) -> str:
    """Code that makes an argument: zeros, or a mask that hides nothing."""
    make = "ones" if argument.dtype == "bool" else "zeros"
    kind = "bool" if argument.dtype == "bool" else f"np.{argument.dtype}"

    def array(shape: Any) -> str:
        return f"np.{make}(({', '.join(map(str, ['batch', *shape]))}), {kind})"

    if not isinstance(argument.shape, dict):
        return f"{name} = {array(argument.shape)}{argument.comment}"
    inner = "".join(f'    "{m}": {array(shape)},\n' for m, shape in argument.shape.items())
    return f"{name} = {{{argument.comment}\n{inner}}}"


def readme(name: str, exportable: Exportable) -> str:
    """How to call an exported function.

    Args:
        name: of the model.
        exportable: the model.
    """
    arguments = exportable.arguments
    code = "\n".join(_code(name, argument) for name, argument in arguments.items())
    notes = "\n".join(argument.note for argument in arguments.values())
    shape = ", ".join(map(str, ["batch", *exportable.output]))
    return f"""# {name}

`model.stablehlo` is one function of raw input, for CPU, CUDA and TPU, at any batch size.

```python
import jax.export
import numpy as np

model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
batch = 4
{code}
{exportable.meaning} = model.call({", ".join(arguments)})  # [{shape}]
```

{notes}
* `metadata.json` holds shapes, types, the meaning of the output and the network's settings.
"""
