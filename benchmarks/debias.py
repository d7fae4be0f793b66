"""`python -m benchmarks.debias`: MulT's training step against MMSA's, and the cost of MCIS's grid.

The step is MMSA's setting for MOSI (batch 16, width 50, ten heads, four layers) on features of its
aligned sizes: forward, backward, clip, Adam. Theirs is the class of the package `MMSA`
(`pip install --no-deps MMSA==2.2.1`) in eager torch; ours runs through the engine that trains. The
grid, 1,681 pairs of coefficients on 5,000 samples, is timed against one evaluation pass of the
same model over the same samples, factual and both counterfactuals.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any

from benchmarks import rounds
from corrkd_jax.ranges import NotNegative, Positive
from train.engine import cli

SIZES = {"text": 300, "audio": 5, "vision": 20}
FRAMES = 50
OURS = {"none": "MulT", "suci": "MulT + SuCI"}


@dataclass(frozen=True)
class Options:
    """Settings of the measurement."""

    steps: Annotated[int, Positive] = 8
    """Number of steps timed at once."""
    rounds: Annotated[int, Positive] = 3
    """Number of rounds, in each of which every variant is timed; the median is shown."""
    batch: Annotated[int, Positive] = 16
    """Number of rows a step."""
    torch: bool = True
    """Measure MMSA's step as well."""
    variants: tuple[str, ...] = ("none",)
    """none: MulT alone; suci: MulT under the intervention's head, all arms of its table."""
    samples: Annotated[int, NotNegative] = 5000
    """Number of samples of the grid; 0 leaves the grid out."""


def main(argv: list[str]) -> None:
    """Time all variants in turn and print two tables.

    Args:
        argv: command line without the program's name.
    """
    if argv[:1] == ["--worker"]:
        worker(argv[1], Options(**json.loads(argv[2])))
        return
    options = cli.parse_options(Options, argv, "python -m benchmarks.debias", __doc__ or "")
    names = [*(["MMSA"] if options.torch else []), *options.variants]
    found = rounds.measure("benchmarks.debias", names, asdict(options), options.rounds)
    print(_step_table(found, options))
    if options.samples:
        print("\n" + grid_table(options))


def _step_table(found: dict[str, rounds.Measured], options: Options) -> str:
    lines = [
        f"{list(found.values())[-1].device}; batch {options.batch}, T {FRAMES}, dims "
        f"{'/'.join(map(str, SIZES.values()))}; median of {options.rounds} x {options.steps} steps",
        "",
        "| step | ms | ms a model | against MMSA | peak MB | compile s |",
        "|---" * 6 + "|",
    ]
    for name, own in found.items():
        models = 1 if name != "suci" else 4
        ratio = "1" if name == "MMSA" else "-"
        if name != "MMSA" and options.torch:
            ratio = rounds.ratio(found["MMSA"], own, models)
        lines.append(
            f"| {OURS.get(name, name)} | {1e3 * own.median:.1f} | {1e3 * own.median / models:.1f} "
            f"| {ratio} | {own.peak_mb:.0f} | {own.compile_s:.1f} |"
        )
    return "\n".join(lines)


def worker(name: str, options: Options) -> None:
    """Serve one variant to the parent process.

    Args:
        name: `MMSA`, or a variant of ours.
        options: settings of the measurement.
    """
    if name == "MMSA":
        rounds.serve(_theirs(options), rounds.torch_peak_mb)
    else:
        rounds.serve(_ours(name, options), rounds.jax_peak_mb)


def _theirs(options: Options) -> rounds.Variant:
    import torch

    from tests.models import mmsa

    device, title = rounds.torch_device()
    torch.manual_seed(0)
    args = SimpleNamespace(
        use_bert=False,
        feature_dims=list(SIZES.values()),
        dst_feature_dim_nheads=[50, 10],
        nlevels=4,
        attn_dropout=0.3,
        attn_dropout_a=0.2,
        attn_dropout_v=0.0,
        relu_dropout=0.0,
        embed_dropout=0.2,
        res_dropout=0.0,
        output_dropout=0.5,
        text_dropout=0.5,
        attn_mask=True,
        conv1d_kernel_size_l=5,
        conv1d_kernel_size_a=5,
        conv1d_kernel_size_v=5,
        num_classes=1,
        train_mode="regression",
    )
    start = time.perf_counter()
    model = mmsa.load("models.singleTask.MULT").MULT(args).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    count = options.batch * options.steps
    data = [torch.randn(count, FRAMES, size, device=device) for size in SIZES.values()]
    labels = torch.randn(count, 1, device=device)

    def step(rows: slice) -> None:
        optimizer.zero_grad()
        text, audio, vision = (x[rows] for x in data)
        loss = torch.nn.functional.l1_loss(model(text, audio, vision)["M"], labels[rows])
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.6)
        optimizer.step()

    def run() -> float:
        begin = time.perf_counter()
        for number in range(options.steps):
            step(slice(number * options.batch, (number + 1) * options.batch))
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / options.steps

    run()
    return rounds.Variant(run, {"compile_s": time.perf_counter() - start, "device": title})


def _ours(name: str, options: Options) -> rounds.Variant:
    import jax
    import numpy as np

    from configs.debias import DebiasConfig
    from train.engine import parallel
    from train.engine.pipeline import Pipeline
    from train.engine.stage import lanes_for
    from train.sentiment.debiasing.basemodel import BaseStage
    from train.sentiment.debiasing.models import build_model

    config = DebiasConfig(model="mult", debias=name)
    chosen = replace(config.optimizer, batch_size=options.batch, epochs=10_000, choose="last")
    config = replace(config, optimizer=chosen)
    layout = parallel.Layout("batch", 1)
    task = _task()
    strata = 62 if name == "suci" else 0
    stage = BaseStage(
        config, "mosi", task, build_model(config, task), strata, options.steps, layout.axis_name
    )
    pipeline = Pipeline([stage.stage()], layout, lanes_for("auto"))
    rows = _rows(options.batch * options.steps)
    rows["subject"] = np.arange(len(rows["row"]), dtype=np.int32) % max(strata, 1)
    data = {"train": rows, "valid": jax.tree.map(lambda x: x[: options.batch], rows)}
    tracks = parallel.spread(pipeline.empty(data, [1]), layout)
    seeds = parallel.spread(np.asarray([1], np.int32), layout)
    data = parallel.replicate(data, layout)
    start = time.perf_counter()
    state = {"tracks": pipeline.advance(tracks, seeds, data, 0, 1), "epoch": 1}
    jax.block_until_ready(state["tracks"])
    facts = {"compile_s": time.perf_counter() - start, "device": jax.devices()[0].device_kind}

    def run() -> float:
        begin, epoch = time.perf_counter(), state["epoch"]
        state["tracks"] = pipeline.advance(state["tracks"], seeds, data, epoch, epoch + 1)
        jax.block_until_ready(state["tracks"])
        state["epoch"] = epoch + 1
        return (time.perf_counter() - begin) / options.steps

    return rounds.Variant(run, facts)


def grid_table(options: Options) -> str:
    """Table of the seconds of the whole grid and of one evaluation pass, in turn, on three classes.

    Args:
        options: settings of the measurement.

    Returns:
        A Markdown table with a line above it.
    """
    clocks, points = grid_clocks(options)
    times: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(options.rounds):
        for name, clock in clocks.items():
            times[name].append(clock())
    pairs = [a / b for a, b in zip(times["pass"], times["grid"], strict=True)]
    return "\n".join(
        [
            f"{options.samples} samples, {points} points, macro F1 of three classes; "
            f"median of {options.rounds}",
            "",
            "| | s |",
            "|---|---|",
            f"| one evaluation pass of MulT | {statistics.median(times['pass']):.2f} |",
            f"| the grid | {statistics.median(times['grid']):.2f} |",
            f"| pass / grid | {statistics.median(pairs):.1f} ({min(pairs):.1f}-{max(pairs):.1f}) |",
        ]
    )


def grid_clocks(
    options: Options, small: bool = False
) -> tuple[dict[str, Callable[[], float]], int]:
    """Functions that time one evaluation pass and the grid, and the number of the grid's points.

    Both are compiled and have run once.

    Args:
        options: settings of the measurement.
        small: whether MulT has the sizes of the planted tasks.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from configs.debias import DebiasConfig, McisConfig
    from corrkd_jax import causal
    from train.engine.stage import lanes_for
    from train.sentiment.debiasing import counterfactual
    from train.sentiment.debiasing.forward import Selected
    from train.sentiment.debiasing.models import build_model
    from train.sentiment.results import Truth

    task = _task("ternary", 3)
    config = McisConfig()
    model = build_model(DebiasConfig(model="mult", debias="mcis", small=small), task)
    rows = jax.tree.map(jnp.asarray, _rows(options.samples))
    rows["content"] = jnp.asarray(np.random.default_rng(1).random((options.samples, FRAMES)) < 0.3)
    first = jax.tree.map(lambda x: x[:1], rows)
    variables = rounds.random_variables(
        model.init, jax.random.key(0), first["inputs"], first["valid"]
    )
    variables = jax.tree.map(lambda x: jnp.asarray(x)[None], variables)
    absent = counterfactual.stand_ins(rows, "mean")
    lanes = lanes_for("auto")
    chosen = Selected(variables, None, None)
    call = partial(counterfactual.outputs_of, model, lanes=lanes, nonverbal=config.nonverbal)
    evaluate = jax.jit(lambda chosen, rows, absent: call(chosen, rows, absent=absent))
    found = jax.block_until_ready(evaluate(chosen, rows, absent))
    classes = np.random.default_rng(2).integers(3, size=(options.samples, 1))
    truth = Truth(task, classes, np.ones(classes.shape), np.zeros(len(classes)))
    score = counterfactual.objective(config.objective, truth, task)
    outputs = tuple(x[0] for x in found)
    grid = jax.jit(lambda *own: causal.grid_scores(*own, score, config.reach, config.step))
    points = jax.block_until_ready(grid(*outputs)).size

    def clock(call: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - begin

    clocks = {
        "pass": lambda: clock(lambda: evaluate(chosen, rows, absent)),
        "grid": lambda: clock(lambda: grid(*outputs)),
    }
    return clocks, points


def _task(mode: str = "score", classes: int = 1):
    from train.sentiment.task import Task

    return Task(mode, classes, ("sentiment",))


def _rows(count: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    scores = rng.uniform(-3, 3, (count, 1)).astype(np.float32)
    ones = np.ones((count, 1), np.float32)
    return {
        "inputs": {
            name: rng.standard_normal((count, FRAMES, size), np.float32)
            for name, size in SIZES.items()
        },
        "valid": {name: np.ones((count, FRAMES), bool) for name in SIZES},
        "index": np.arange(count, dtype=np.int32),
        "labels": scores,
        "label_weight": ones,
        "target": (scores > 0).astype(np.int32),
        "target_weight": ones,
        "row": ones[:, 0],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
