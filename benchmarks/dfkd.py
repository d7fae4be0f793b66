"""`python -m benchmarks.dfkd`: an epoch of Fast-5, this project against plain torch.

At CIFAR's size, WRN-40-2 teaching WRN-16-1: a call for a batch of images (five descents, FOMAML),
then steps of distillation on kept ones; `--no-synthesis` leaves the call away. Weights are random,
which costs what trained ones cost. Ours runs through the engine that trains, with and without
KDCI, torch through `benchmarks.torch_dfkd`; see `benchmarks.rounds`. Planned memory is the
compiler's, for the device; peak memory is the process's, with the compiler in it.
"""

import json
import sys
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from typing import Annotated

from benchmarks import rounds
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Positive
from train.engine import cli, tables

CLASSES, SIDE, KEPT = 10, 32, 2560


@dataclass(frozen=True)
class Options:
    """Settings of the measurement."""

    steps: Annotated[int, Positive] = 4
    """Number of steps of distillation in an epoch; 400 in the publication."""
    rounds: Annotated[int, Positive] = 3
    """Number of rounds, in each of which every variant is timed; the median is shown."""
    batch: Annotated[int, Positive] = 256
    """Number of images a step, and of a call."""
    synthesis: bool = True
    """A call at the beginning of each epoch."""
    torch: bool = True
    """The torch twin as well (`pip install torch==2.13.0`)."""
    dtype: str = "auto"
    """Compute type of the JAX variants."""
    prototypes: Annotated[int, Positive] = 64
    """Size of KDCI's dictionary; at most --batch, the images that it is built from."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print a table.

    Args:
        argv: command line without the program's name.

    Raises:
        InputError: an option is out of its range.
    """
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = cli.parse_options(Options, argv, "python -m benchmarks.dfkd", __doc__ or "")
    if options.prototypes > min(options.batch, KEPT):
        raise InputError(
            f"--prototypes {options.prototypes}: the dictionary is built from one call's "
            f"{min(options.batch, KEPT)} images; take fewer, or more images with --batch"
        )
    names = [*(["torch"] if options.torch else []), "host", "host + KDCI"]
    measured = rounds.measure("benchmarks.dfkd", names, asdict(options), options.rounds)
    print(_table(measured, options))


def _table(measured: dict[str, rounds.Measured], options: Options) -> str:
    call = "a call and " if options.synthesis else ""
    heading = (
        f"{measured['host'].device}; an epoch of {call}{options.steps} steps, batch "
        f"{options.batch}; median of {options.rounds} rounds"
    )
    lines = []
    for name, variant in measured.items():
        against = [
            rounds.ratio(measured[other], variant) if other in measured and other != name else "-"
            for other in ("torch", "host")
        ]
        planned = f"{variant.planned_mb:.1f}" if variant.planned_mb else "-"
        memory = planned, f"{variant.peak_mb:.0f}"
        lines.append([name, f"{variant.median:.3f}", *against, *memory, f"{variant.compile_s:.1f}"])
    head = ["variant", "s an epoch", "against torch", "against host", "planned MB", "peak MB"]
    return heading + "\n\n" + tables.table([*head, "compile s"], lines)


def worker(name: str, options: Options) -> None:
    """Serve one variant to the parent process.

    Args:
        name: `torch`, `host` or `host + KDCI`.
        options: settings of the measurement.
    """
    if name == "torch":
        from benchmarks.torch_dfkd import epoch_timer

        device, title = rounds.torch_device()
        start = time.perf_counter()
        run = epoch_timer(options.batch, options.steps, options.synthesis, device)
        facts = {"compile_s": time.perf_counter() - start, "device": title}
        rounds.serve(rounds.Variant(run, facts), rounds.torch_peak_mb)
    else:
        rounds.serve(ours(name == "host + KDCI", options), rounds.jax_peak_mb)


def ours(kdci: bool, options: Options) -> rounds.Variant:
    """An epoch in the engine that trains, of the host alone or with KDCI."""
    with redirect_stdout(sys.stderr):  # hints on settings are for people
        return _ours(kdci, options)


def _ours(kdci: bool, options: Options) -> rounds.Variant:
    import jax
    import numpy as np

    from train.datafree import program as dfkd
    from train.engine import parallel
    from train.engine.pipeline import Pipeline
    from train.engine.stage import looped

    config, loaded = _run(options)
    layout = parallel.Layout("batch", 1)
    (owner,) = dfkd.build("cifar10", config, loaded, layout)
    if not kdci:
        owner = replace(owner, networks=replace(owner.networks, student=_plain(owner)))
    stage = replace(owner.stage(), validate_every=2 * config.optimizer.epochs)
    pipeline = Pipeline([stage], layout, looped)
    data = dfkd.sets(config, loaded)
    tracks = parallel.spread(pipeline.empty(data, [0]), layout)
    seeds = parallel.spread(np.zeros(1, np.int32), layout)
    data = parallel.replicate(data, layout)
    start = time.perf_counter()
    # the process's peak has the compiler's own memory in it, which differs from run to run
    planned = pipeline.planned_bytes(tracks, seeds, data) / 1e6
    tracks = jax.block_until_ready(pipeline.advance(tracks, seeds, data, 0, 0))
    facts = {
        "planned_mb": planned,
        "compile_s": time.perf_counter() - start,
        "device": jax.devices()[0].device_kind,
    }
    state = {
        "tracks": jax.block_until_ready(pipeline.advance(tracks, seeds, data, 0, 1)),
        "epoch": 1,
    }

    def run() -> float:
        start, epoch = time.perf_counter(), state["epoch"]
        state["tracks"] = pipeline.advance(state["tracks"], seeds, data, epoch, epoch + 1)
        jax.block_until_ready(state["tracks"])
        state["epoch"] = epoch + 1
        return time.perf_counter() - start

    return rounds.Variant(run, facts)


def _run(options: Options):
    """A configuration, and a teacher and test images of noise."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from configs.dfkd import presets
    from corrkd_jax.data.image_set import ImageSet
    from corrkd_jax.models.backbones import named
    from train.datafree.arms import KDCI
    from train.datafree.inputs import Loaded
    from train.images.pretrained import Pretrained

    config = presets("fast")["cifar10"]
    config = replace(
        config,
        dtype=options.dtype,
        student="wrn16_1",
        synthesis=replace(
            config.synthesis, keep=KEPT, warmup=0, reset=0, calls=0 if options.synthesis else 1
        ),
        compensation=replace(
            config.compensation, first=0, every=0, ramp=0, prototypes=options.prototypes
        ),
        optimizer=replace(
            config.optimizer, batch_size=options.batch, epochs=10_000, steps=options.steps
        ),
        arms=(KDCI,),
    )
    shape = (1, SIDE, SIDE, 3)
    network = named.build("wrn40_2", CLASSES).network
    variables = rounds.random_variables(network.init, jax.random.key(0), jnp.zeros(shape))
    teacher = Pretrained("wrn40_2", CLASSES, SIDE, 3, variables)
    names = tuple(map(str, range(CLASSES)))
    test = ImageSet(np.zeros(shape, np.uint8), np.zeros(1, np.int32), names, "noise")
    return config, Loaded(None, test, None, teacher)


def _plain(owner):
    """The student as it is without KDCI; in training, arms without it compute it times zero."""
    import flax.linen as nn

    from corrkd_jax.models.compensated import Answer

    class Plain(nn.Module):
        backbone: nn.Module

        def __call__(self, images, confounders, prior, strength=1.0, train=False):
            logits, features = self.backbone(images, train)
            return Answer(logits, logits, features)

    return Plain(owner.networks.student.backbone)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
