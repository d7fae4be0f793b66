"""`python -m benchmarks.msa`: CorrKD's training step, this project against plain torch.

The network of the preset `paper` (batch 64, T 50, dims 300/74/35, d 40, 4 layers): teacher forward,
masked student, SCD + CPD + CE, clip and Adam. Ours runs through the engine that trains
(`train.engine.pipeline.Pipeline`), torch through `benchmarks.torch_twin`; see `benchmarks.rounds`.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Annotated

from benchmarks import rounds
from corrkd_jax.ranges import Positive
from train.engine import cli

SIZES = {"text": 300, "audio": 74, "vision": 35}
FRAMES, CLASSES = 50, 2


@dataclass(frozen=True)
class Options:
    """Settings of the measurement."""

    steps: Annotated[int, Positive] = 16
    """Number of steps timed at once."""
    rounds: Annotated[int, Positive] = 3
    """Number of rounds, in each of which every variant is timed; the median is shown."""
    batch: Annotated[int, Positive] = 64
    """Number of rows a step."""
    torch: bool = True
    """Measure the torch twin as well (`pip install torch==2.13.0`)."""
    variants: tuple[str, ...] = ("1x1", "5x1", "5x6")
    """Variants, seeds x arms."""
    lanes: str = "auto"
    """Way to run seeds and arms: vmap, map or auto, as in training."""
    dtype: str = "auto"
    """Compute type of the JAX variants."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print a table.

    Args:
        argv: command line without the program's name.
    """
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = cli.parse_options(Options, argv, "python -m benchmarks.msa", __doc__ or "")
    names = [*(["torch"] if options.torch else []), *options.variants]
    found = rounds.measure("benchmarks.msa", names, asdict(options), options.rounds)
    print(_table(found, options))


def _table(found: dict[str, rounds.Measured], options: Options) -> str:
    device = list(found.values())[-1].device
    lines = [
        f"{device}; batch {options.batch}, T {FRAMES}, dims "
        f"{'/'.join(map(str, SIZES.values()))}; median of {options.rounds} x {options.steps} steps",
        "",
        "| seeds x arms | ms/step | ms/step a model | samples/s | against torch | peak MB "
        "| compile s |",
        "|---" * 7 + "|",
    ]
    for name, own in found.items():
        models = 1 if name == "torch" else lanes(name)[0] * lanes(name)[1]
        ratio = "1" if name == "torch" else "-"
        if name != "torch" and options.torch:
            ratio = rounds.ratio(found["torch"], own, models)
        lines.append(
            f"| {name} | {1e3 * own.median:.1f} | {1e3 * own.median / models:.1f} "
            f"| {options.batch * models / own.median:.0f} | {ratio} | {own.peak_mb:.0f} "
            f"| {own.compile_s:.1f} |"
        )
    return "\n".join(lines)


def lanes(name: str) -> tuple[int, int]:
    """Seeds and arms of a variant's name, such as `5 x 6`."""
    seeds, arms = name.split("x")
    return int(seeds), int(arms)


def worker(name: str, options: Options) -> None:
    """Serve one variant to the parent process.

    Args:
        name: `torch`, or seeds x arms such as `5x6`.
        options: settings of the measurement.
    """
    if name == "torch":
        rounds.serve(theirs(options), rounds.torch_peak_mb)
    else:
        rounds.serve(ours(name, options), rounds.jax_peak_mb)


def theirs(options: Options, mode: str = "eager") -> rounds.Variant:
    """The torch twin.

    Args:
        options: what to measure.
        mode: see `benchmarks.torch_twin.steps_timer`.
    """
    from benchmarks.torch_twin import steps_timer

    device, title = rounds.torch_device()
    start = time.perf_counter()
    rows, sizes = options.batch * options.steps, tuple(SIZES.values())
    run = steps_timer(rows, FRAMES, sizes, options.batch, CLASSES, device, mode)
    run(3)
    facts = {"compile_s": time.perf_counter() - start, "device": title}
    return rounds.Variant(lambda: run(options.steps), facts)


def ours(name: str, options: Options) -> rounds.Variant:
    """So many seeds x arms, as `1x1`, in the engine that trains."""
    import jax
    import numpy as np

    from configs.msa import PRESETS
    from corrkd_jax.data import msa as data_msa
    from train.engine import parallel
    from train.engine.pipeline import Pipeline
    from train.engine.stage import lanes_for
    from train.sentiment import corrkd
    from train.sentiment.task import Task

    seeds, arms = lanes(name)
    config = PRESETS["mosi"]
    # the margins differ, so no two arms are the same computation
    sweep = tuple(f"{1.0 + 0.1 * arm:.1f}" for arm in range(arms))
    config = replace(
        config,
        seeds=seeds,
        arms=tuple(f"{corrkd.METHOD}, margin={float(m):g}" for m in sweep),
        sweep=("margin=" + ",".join(sweep),),
        losses=replace(config.losses, rcd=0.0),
        network=replace(config.network, dtype=options.dtype),
        optimizer=replace(
            config.optimizer,
            batch_size=options.batch,
            epochs=10_000,
            teacher_epochs=1,
            validate_every=20_000,
        ),
    )
    task = Task("binary", CLASSES, ("sentiment",))
    layout = parallel.Layout("batch", 1)
    steps = {"train": options.steps}
    stages = corrkd.build_stages(config, task, steps, layout.axis_name)
    pipeline = Pipeline(stages, layout, lanes_for(options.lanes))
    dtype = parallel.compute_dtype(config.network.dtype)
    train = _rows(options.batch * options.steps, dtype, data_msa.id_hashes)
    data = {"train": train, "valid": jax.tree.map(lambda x: x[:8], train)}
    numbers = range(1, seeds + 1)
    tracks = parallel.spread(pipeline.empty(data, numbers), layout)
    own = parallel.spread(np.asarray(numbers, np.int32), layout)
    data = parallel.replicate(data, layout)
    start = time.perf_counter()
    tracks = jax.block_until_ready(pipeline.advance(tracks, own, data, 0, 0))
    facts = {"compile_s": time.perf_counter() - start, "device": jax.devices()[0].device_kind}
    state = {"tracks": pipeline.advance(tracks, own, data, 0, 2), "epoch": 2}
    jax.block_until_ready(state["tracks"])

    def run() -> float:
        start, epoch = time.perf_counter(), state["epoch"]
        state["tracks"] = pipeline.advance(state["tracks"], own, data, epoch, epoch + 1)
        jax.block_until_ready(state["tracks"])
        state["epoch"] = epoch + 1
        return (time.perf_counter() - start) / options.steps

    return rounds.Variant(
        run, facts, lambda: pipeline.compiled(state["tracks"], own, data).as_text()
    )


def _rows(count: int, dtype, id_hashes) -> dict:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=(count, 1)).astype(np.int32)
    ones = np.ones((count, 1), np.float32)
    return {
        "inputs": {
            name: rng.standard_normal((count, FRAMES, size), np.float32).astype(dtype)
            for name, size in SIZES.items()
        },
        "valid": {name: np.ones((count, FRAMES), bool) for name in SIZES},
        "ids": id_hashes([str(i) for i in range(count)]),
        "labels": labels,
        "label_weight": ones,
        "target": labels,
        "target_weight": ones,
        "row": ones[:, 0],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
