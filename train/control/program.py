"""`python -m train.quadruped`: policies for a robot whose joints may fail, and what detects it.

python -m train.quadruped                           the surrogate, three seeds, all arms
python -m train.quadruped solo8 --workdir RUN       the real robot in MJX, for an accelerator
python -m train.quadruped solo8_cpu --workdir RUN   the same with few robots, for two cores
python -m train.quadruped export RUN OUT            policy, detector and switch for a robot
python -m train.quadruped render RUN OUT.gif        a fault striking in the middle of a gait
"""

import dataclasses
import importlib
import json
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from configs.quadruped import PRESETS, RENAMED, QuadrupedConfig
from corrkd_jax.errors import InputError
from train.control import detection, ppo, robots, throughput
from train.control import report as quadruped_report
from train.control.detection import watched_robots
from train.control.judging import judge
from train.control.report import Results
from train.engine import cli, parallel
from train.engine.loop import run
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.stage import lanes_for
from train.engine.workdir import METRICS, Workdir, fresh_folder

NAME = "quadruped"


def main(argv: Sequence[str]) -> None:
    """Train, judge, report; or export or render a finished run."""
    if argv[:1] in (["export"], ["render"]):
        module = {"export": "train.control.export", "render": "train.control.film.render"}[argv[0]]
        importlib.import_module(module).main(argv[1:])
        return
    preset, config, options = cli.parse(
        argv, "python -m train.quadruped", (__doc__ or "").split("\n\n")[0], PRESETS, RENAMED
    )
    check(config)
    parallel.connect(options.coordinator, options.processes, options.process_id)
    folder = Path(options.workdir) if options.workdir else fresh_folder(preset)
    train(preset, config, options, folder)


def check(config: QuadrupedConfig) -> None:
    """Refuse settings that cannot run, before anything is compiled.

    Raises:
        InputError: names the option and what would do.
    """
    settings = config.ppo
    cli.require_seeds(config.first_seed, config.seeds)
    if config.num_envs % 4:
        raise InputError(f"--num-envs {config.num_envs}: must be a multiple of the 4 groups")
    samples = config.num_envs // 4 * settings.rollout_length
    if samples % settings.minibatches:
        raise InputError(
            f"--ppo.minibatches {settings.minibatches} does not divide the {samples} control "
            "steps of a group (--num-envs / 4 * --ppo.rollout-length)"
        )
    if settings.penalty_ramp and config.robot != "solo8":
        raise InputError(f"--ppo.penalty-ramp: {config.robot}'s reward has no negative terms")
    ramps = {
        "--ppo.penalty-ramp": settings.penalty_ramp,
        "--faults.takeover-ramp": config.faults.takeover_ramp,
    }
    for name, ramp in ramps.items():
        if ramp >= settings.iterations:
            raise InputError(
                f"{name} {ramp}: must end before the training does, after --ppo.iterations "
                f"{settings.iterations}"
            )
    for name, count, every, report in (
        ("--ppo.iterations", settings.iterations, "--ppo", settings.report_every),
        ("--detector.tune-iterations", config.detector.tune_iterations, "--ppo",
         settings.report_every),
        ("--detector.updates", config.detector.updates, "--detector",
         config.detector.report_every),
    ):  # fmt: skip
        if count % report:
            raise InputError(f"{name} {count}: {every}.report-every {report} does not divide it")
    if config.detector.tune_iterations and not config.detector.updates:
        raise InputError("--detector.tune-iterations: needs a detector (--detector.updates)")
    if not config.arms:
        raise InputError("--arms: name at least one")
    ppo.arms(config)
    if len(set(config.arms)) < len(config.arms):
        raise InputError(f"--arms {' '.join(config.arms)}: each once")
    if config.detector.updates and config.arms[0] in ppo.ONE_NETWORK:
        raise InputError(
            f"--arms {config.arms[0]}: the detector switches the heads of the first arm, and this "
            "one has but one network; name ours first, or --detector.updates 0"
        )
    if config.evaluation_robots and config.robot == "solo8":
        raise InputError(
            "--evaluation-robots: is for the surrogate; evaluate SOLO8 by python -m train.evaluate"
        )


def train(
    preset: str, config: QuadrupedConfig, options: cli.RunOptions, folder: Path
) -> Results | None:
    """One run from configuration to report; returns what its table shows."""
    started = time.monotonic()
    saved = {"program": NAME, "preset": preset, **dataclasses.asdict(config)}
    workdir = Workdir(folder, saved, options.resume)
    try:
        robot = robots.build(config)
        seeds = [config.first_seed + i for i in range(config.seeds)]
        parts = math.gcd(config.num_envs // 4, watched_robots(config))
        layout = parallel.choose_layout(
            options.split, len(seeds), parts, options.devices, "--num-envs or --detector.robots"
        )
        workdir.claim()
        policies = ppo.PpoStage(config, robot, layout.axis_name)
        watch = detection.DetectorStage(config, robot, policies.policy, layout.axis_name)
        # small networks leave a CPU idle one at a time
        lanes = lanes_for("vmap" if options.lanes == "auto" else options.lanes)
        stages = [policies.stage()]
        if config.detector.updates:
            stages.append(watch.stage())
        if config.detector.tune_iterations:
            stages.append(dataclasses.replace(policies, detector=watch.detector).stage())
        pipeline = Pipeline(stages, layout, lanes)
        tracks = run(
            pipeline,
            rows(config),
            seeds,
            list(config.arms),
            workdir,
            resume=options.resume,
            fused=options.fused,
            save_every=options.save_every,
        )
        best = {name: track.best for name, track in tracks.items()}
        workdir.save_model(best)
        results = judge(config, robot, best)
        if parallel.is_main():
            seconds = time.monotonic() - started
            steps = config.num_envs * config.ppo.iterations * config.ppo.rollout_length
            facts = [
                f"robot {config.robot}, {config.num_envs} at once; {steps:.3g} control steps an "
                f"arm and seed; seeds {seeds[0]} to {seeds[-1]}",
                f"machine: {layout.devices} x {jax.devices()[0].device_kind}, "
                f"{platform.machine()}, jax {jax.__version__}; {seconds:.0f} s to this report",
            ]
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
            metrics = [json.loads(line) for line in lines]
            title = f"Quadruped, {preset}"
            rates = throughput.of_training(folder, config)
            quadruped_report.write(folder, title, config, results, facts, metrics, rates)
            say(f"\n{folder / 'report.md'} ({seconds:.0f} s)")
        return results
    finally:
        workdir.close()


def rows(config: QuadrupedConfig) -> dict[str, dict[str, np.ndarray]]:
    """What the engine counts steps and epochs by: a row is one robot's part in one step."""
    counts = {
        "worlds": config.num_envs * config.ppo.report_every,
        "watched": watched_robots(config) * config.detector.report_every,
        # running means are looked at, no robot
        "valid": 1,
    }
    return {name: {"row": np.ones(count, np.float32)} for name, count in counts.items()}


def evaluate(run: Path, argv: Sequence[str]) -> None:
    """Evaluate a finished run on the grid of faults; arguments as of `train.programs`."""
    importlib.import_module("train.control.evaluation.evaluate").main(run, argv)


def export(run: Path, out: Path, argv: Sequence[str]) -> None:
    """Write a finished run's controller; arguments as of `train.programs`."""
    importlib.import_module("train.control.export").main([str(run), str(out), *argv])
