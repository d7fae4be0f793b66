"""`python -m benchmarks.msa`: CorrKD's training step, this project against plain torch.

The network of the preset `paper` (batch 64, T 50, dims 300/74/35, d 40, 4 layers): teacher forward,
masked student, SCD + CPD + CE, clip and Adam. Each variant lives in a process of its own; all are
timed in turn, round after round, so that a ratio compares neighbours in time. Ours runs through the
engine that trains (`train.engine.Pipeline`), torch through `benchmarks.torch_twin`.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import tyro

SIZES = {"text": 300, "audio": 74, "vision": 35}
FRAMES, CLASSES = 50, 2


@dataclass(frozen=True)
class Options:
    """What to measure."""

    steps: int = 16
    """Steps timed at a go."""
    rounds: int = 3
    """Times that every variant has its turn; the median is shown."""
    batch: int = 64
    """Rows a step."""
    torch: bool = True
    """Measure the torch twin as well (`pip install torch==2.13.0`)."""
    variants: tuple[str, ...] = ("1x1", "5x1", "5x6")
    """Seeds x arms."""
    lanes: str = "auto"
    """vmap, map or auto, as in training."""
    dtype: str = "auto"
    """Compute type of ours."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print a table."""
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = tyro.cli(Options, args=argv, description=__doc__)
    names = [*(["torch"] if options.torch else []), *options.variants]
    workers = {name: _start(name, options) for name in names}
    facts = {}
    for name, process in workers.items():
        facts[name] = json.loads(_ask(process, ""))  # compiled and warm
        print(f"{name}: ready after {facts[name]['compile_s']:.1f} s", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name, process in workers.items():
            times[name].append(float(_ask(process, "go\n")))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for name, process in workers.items():
        facts[name]["peak_mb"] = float(_ask(process, "memory\n"))
        process.stdin.close()
        process.wait()
    print(_table(names, times, facts, options))


def _table(
    names: list[str], times: dict[str, list[float]], facts: dict[str, dict], options: Options
) -> str:
    lines = [
        f"{facts[names[-1]]['device']}; batch {options.batch}, T {FRAMES}, dims "
        f"{'/'.join(map(str, SIZES.values()))}; median of {options.rounds} x {options.steps} steps",
        "",
        "| seeds x arms | ms/step | ms/step a model | samples/s | against torch | peak MB "
        "| compile s |",
        "|---" * 7 + "|",
    ]
    for name in names:
        models = 1 if name == "torch" else _lanes(name)[0] * _lanes(name)[1]
        each = [t / models for t in times[name]]
        ratio = "1"
        if name != "torch":
            ratio = "-"
            if options.torch:
                pairs = [a / b for a, b in zip(times["torch"], each, strict=True)]
                ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
        median = statistics.median(times[name])
        lines.append(
            f"| {name} | {1e3 * median:.1f} | {1e3 * median / models:.1f} "
            f"| {options.batch * models / median:.0f} | {ratio} | {facts[name]['peak_mb']:.0f} "
            f"| {facts[name]['compile_s']:.1f} |"
        )
    return "\n".join(lines)


def _lanes(name: str) -> tuple[int, int]:
    seeds, arms = name.split("x")
    return int(seeds), int(arms)


def _start(name: str, options: Options) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.msa", "--worker", name]
    return subprocess.Popen(
        [*command, json.dumps(options.__dict__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(process: subprocess.Popen, line: str) -> str:
    process.stdin.write(line)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a worker stopped; see its message above")
    return answer


def worker(name: str, options: Options) -> None:
    """One variant: says when it is warm, then times steps each time it is told to."""
    run, facts = _torch(options) if name == "torch" else _ours(name, options)
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(_peak_mb(name) if line == "memory\n" else run(options.steps), flush=True)


def _peak_mb(name: str) -> float:
    if name == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
    else:
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return stats["peak_bytes_in_use"] / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _torch(options: Options):
    import torch

    from benchmarks.torch_twin import steps_timer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    rows = options.batch * options.steps
    run = steps_timer(rows, FRAMES, tuple(SIZES.values()), options.batch, CLASSES, device)
    run(3)
    kind = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return run, {"compile_s": time.perf_counter() - start, "device": kind}


def _ours(name: str, options: Options):
    import jax
    import numpy as np

    from configs.msa import PRESETS
    from corrkd_jax.data import msa as data_msa
    from train import corrkd, parallel
    from train.engine import Pipeline
    from train.inputs import lanes_for
    from train.protocol import Task

    seeds, arms = _lanes(name)
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
            batch=options.batch,
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
    dtype = corrkd.compute_dtype(config.network.dtype)
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

    def run(count: int) -> float:
        start, epoch = time.perf_counter(), state["epoch"]
        state["tracks"] = pipeline.advance(state["tracks"], own, data, epoch, epoch + 1)
        jax.block_until_ready(state["tracks"])
        state["epoch"] = epoch + 1
        return (time.perf_counter() - start) / count

    return run, facts


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
