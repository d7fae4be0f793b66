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

import tyro

from benchmarks import rounds
from corrkd_jax.errors import InputError
from train.engine import cli

CLASSES, SIDE, KEPT = 10, 32, 2560


@dataclass(frozen=True)
class Options:
    """What to measure."""

    steps: int = 4
    """Steps of distillation in an epoch; 400 where it is published."""
    rounds: int = 3
    """Times that every variant has its turn; the median is shown."""
    batch: int = 256
    """Images a step, and of a call."""
    synthesis: bool = True
    """Begin each epoch with a call."""
    torch: bool = True
    """Measure the torch twin as well (`pip install torch==2.13.0`)."""
    dtype: str = "auto"
    """Compute type of ours."""
    prototypes: int = 64
    """Size of KDCI's dictionary; at most --batch, the images that it is built from."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print a table."""
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = tyro.cli(Options, args=argv, description=__doc__)
    cli.require_positive(
        {f"--{name}": getattr(options, name) for name in ("steps", "rounds", "batch", "prototypes")}
    )
    if options.prototypes > min(options.batch, KEPT):
        raise InputError(
            f"--prototypes {options.prototypes}: the dictionary is built from one call's "
            f"{min(options.batch, KEPT)} images; take fewer, or more images with --batch"
        )
    names = [*(["torch"] if options.torch else []), "host", "host + KDCI"]
    found = rounds.measure("benchmarks.dfkd", names, asdict(options), options.rounds)
    print(_table(found, options))


def _table(found: dict[str, rounds.Measured], options: Options) -> str:
    call = "a call and " if options.synthesis else ""
    lines = [
        f"{found['host'].device}; an epoch of {call}{options.steps} steps, batch {options.batch}; "
        f"median of {options.rounds} rounds",
        "",
        "| variant | s an epoch | against torch | against host | planned MB | peak MB "
        "| compile s |",
        "|---" * 7 + "|",
    ]
    for name, own in found.items():
        against = [
            rounds.ratio(found[other], own) if other in found and other != name else "-"
            for other in ("torch", "host")
        ]
        lines.append(
            f"| {name} | {own.median:.3f} | {' | '.join(against)} "
            f"| {f'{own.planned_mb:.1f}' if own.planned_mb else '-'} | {own.peak_mb:.0f} "
            f"| {own.compile_s:.1f} |"
        )
    return "\n".join(lines)


def worker(name: str, options: Options) -> None:
    """One variant."""
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
    own = parallel.spread(np.zeros(1, np.int32), layout)
    data = parallel.replicate(data, layout)
    start = time.perf_counter()
    # the process's peak has the compiler's own memory in it, which differs from run to run
    planned = pipeline.planned_bytes(tracks, own, data) / 1e6
    tracks = jax.block_until_ready(pipeline.advance(tracks, own, data, 0, 0))
    facts = {
        "planned_mb": planned,
        "compile_s": time.perf_counter() - start,
        "device": jax.devices()[0].device_kind,
    }
    state = {"tracks": jax.block_until_ready(pipeline.advance(tracks, own, data, 0, 1)), "epoch": 1}

    def run() -> float:
        start, epoch = time.perf_counter(), state["epoch"]
        state["tracks"] = pipeline.advance(state["tracks"], own, data, epoch, epoch + 1)
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
    from train.datafree.program import Loaded
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
            config.optimizer, batch=options.batch, epochs=10_000, steps=options.steps
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
