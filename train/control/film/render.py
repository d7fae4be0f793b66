"""`python -m train.quadruped render RUN OUT.gif`: a fault strikes in the middle of a gait.

The robot walks in C MuJoCo by the controller that `export` writes, what the detector believes below
it; the surrogate is drawn as curves.
"""

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from PIL import Image

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Finite, NotNegative, Positive
from envs import faults, surrogate
from envs import solo8_constants as c
from envs.solo8 import motor_torque
from train.control import export, finished
from train.control.film.pictures import Moment, film
from train.control.finished import SwitchOptions, Trained
from train.control.policy import Controller
from train.control.robot import CONDITIONS, PARTS
from train.engine import cli
from train.engine.progress import say
from train.engine.tables import seeds_in_words

KINDS = {"none": faults.HEALTHY, "power-loss": faults.POWER_LOSS, "locked": faults.LOCKED}
EVERY = 2
"""Control steps a frame: 25 a second."""


@dataclass(frozen=True)
class RenderOptions:
    """The fault that strikes, and what the film shows."""

    fault: str = "power-loss"
    """Fault that strikes: none, power-loss or locked."""
    onset: Annotated[float, Finite] = 3.0
    """Time at which it strikes, in s."""
    leg: str = "FL"
    """Leg that fails: FL, FR, HL or HR; the surrogate breaks its first."""
    joints: str = "both"
    """Joints of the leg that fail: HFE, KFE or both."""
    speed: Annotated[float, Finite] = 0.5
    """Commanded speed, in m/s."""
    seconds: Annotated[float, Positive] = 8.0
    """Length of the film, in s."""
    arm: str = ""
    """Arm of the run; empty: the tuned one, or else the first."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of the run; 0: the first."""
    switch: SwitchOptions = field(default_factory=SwitchOptions)


def render(folder: Path, out: Path, argv: Sequence[str]) -> None:
    """Film a finished run.

    Args:
        folder: of the run.
        out: file, .gif or .mp4.
        argv: options.

    Raises:
        InputError: the run is not finished, or the film cannot be made or written.
    """
    usage = "python -m train.quadruped render RUN OUT.gif"
    options = cli.parse_options(RenderOptions, argv, usage, __doc__ or "")
    check(out, options)
    run = finished.load_run(folder, options.switch)
    controller = in_memory(run, export.driver_of(run, options.arm, options.seed))
    dt = run.robot.env.dt
    steps = round(options.seconds / dt)
    if run.robot.mjcf:
        moments = walk(run, controller, options, steps)
        frames = film(run.robot.mjcf, moments, EVERY, options.speed, options.leg)
    else:
        moments = list(walk_surrogate(controller, options, steps))
        frames = curves(moments, options, dt)
    save(out, frames, round(1 / (EVERY * dt)))
    arm, seed = export.arm_of(run, options.arm), run.seed(options.seed)
    say(f"{out}: {options.seconds:g} s; arm {arm}, seed {seed} of {seeds_in_words(run.seeds)}")


def check(out: Path, options: RenderOptions) -> None:
    """Refuse what cannot be drawn or written, before anything is simulated.

    Raises:
        InputError: names the option or file and what would do.
    """
    if out.suffix not in (".gif", ".mp4"):
        raise InputError(f"{out}: name a .gif or .mp4 file")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}")
    if out.suffix == ".mp4":
        ffmpeg(out)
    for name, given, known in (
        ("fault", options.fault, KINDS),
        ("leg", options.leg, c.LEGS),
        ("joints", options.joints, PARTS),
    ):
        if given not in known:
            raise InputError(f"--{name} {given}: choose from {', '.join(known)}")
    if options.fault != "none" and not 0 <= options.onset < options.seconds:
        raise InputError(f"--onset {options.onset:g}: not within the {options.seconds:g} s shown")


def in_memory(run: Trained, driver: export.Driver) -> Controller:
    """The controller as exported, without a file."""
    return Controller(io.BytesIO(export.controller_file(export.metadata_of(run), driver)))


def walk_surrogate(controller: Controller, options: RenderOptions, steps: int) -> Iterator[Moment]:
    """The toy until it falls or the time is over."""
    env = surrogate.Surrogate()
    step, onset = jax.jit(env.step), round(options.onset / env.dt)
    state = env.reset(jax.random.key_data(jax.random.key(options.seed)))
    fault = surrogate.fault(KINDS[options.fault], onset)
    info = state.info | {"fault": fault, "command": jnp.float32(options.speed)}
    state = state.replace(info=info)
    for number in range(steps):
        action = controller(state.obs)
        state = step(state, action)
        body, struck = state.pipeline_state, KINDS[options.fault] * (number >= onset)
        yield Moment(
            float(body.speed),
            float(body.tilt),
            controller.kind,
            controller.probabilities,
            struck * (np.arange(surrogate.LEGS) == 0),
            None,
        )
        if state.done:
            return


def walk(run: Trained, controller: Controller, options: RenderOptions, steps: int) -> list[Moment]:
    """The robot in C MuJoCo, without sensor noise; it is shown lying as well."""
    env = run.robot.env
    model = mujoco.MjModel.from_xml_string(run.robot.mjcf)
    data = mujoco.MjData(model)
    data.qpos[7:] = c.DEFAULT_POSE
    mujoco.mj_forward(model, data)
    broken = np.isin(c.JOINTS, [f"{options.leg}_{joint}" for joint in PARTS[options.joints]])
    kind, onset = KINDS[options.fault], round(options.onset / c.CONTROL_DT)
    action, angle, moments = np.zeros(8), data.qpos[7:].copy(), []
    for number in range(steps):
        now = broken & (number >= onset)
        dead, locked = now & (kind == faults.POWER_LOSS), now & (kind == faults.LOCKED)
        action = controller(observe(data, action, options.speed, env.config.obs_mode))
        action = action.clip(-env.config.action_limit, env.config.action_limit)
        target = c.DEFAULT_POSE + c.ACTION_SCALE * action
        for _ in range(c.SUBSTEPS):
            model.eq_data[:, 0], data.eq_active[:] = faults.engage(
                data.qpos[7:], data.qvel[6:], locked, angle, env.config.lock_play
            )
            data.ctrl = motor_torque(target - data.qpos[7:], data.qvel[6:], dead)
            mujoco.mj_step(model, data)
        angle = np.where(locked, angle, data.qpos[7:])
        axes = rotation(data)
        moments.append(
            Moment(
                float(axes[:, 0] @ data.qvel[:3]),
                float(np.arccos(np.clip(axes[2, 2], -1, 1))),
                controller.kind,
                controller.probabilities,
                kind * now,
                data.qpos.copy(),
            )
        )
    return moments


def rotation(data: mujoco.MjData) -> np.ndarray:
    """Axes of the base in the world, the columns of `[3, 3]`."""
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, data.qpos[3:7])
    return flat.reshape(3, 3)


def observe(data: mujoco.MjData, action: np.ndarray, speed: float, mode: str) -> np.ndarray:
    """What `Solo8` observes, without noise, under a command to go straight on."""
    orientation = data.qpos[3:7] if mode == "quat" else -rotation(data)[2]
    parts = (
        orientation,
        np.multiply([speed, 0.0], c.COMMAND_SCALE),
        data.qpos[7:] - c.DEFAULT_POSE,
        c.VELOCITY_SCALE * data.qvel[6:],
        action,
    )
    return np.concatenate(parts).astype(np.float32)


def curves(moments: Sequence[Moment], options: RenderOptions, dt: float) -> list[Image.Image]:
    """Frames of speed, tilt and heads as they grow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    speed, tilt, head = figure.subplots(3, 1, sharex=True)
    time = dt * np.arange(1, len(moments) + 1)
    drawn = []
    for axes, values, label in (
        (speed, [m.speed for m in moments], "speed"),
        (tilt, [m.tilt for m in moments], "tilt"),
        (head, [m.kind for m in moments], "driving head"),
    ):
        drawn.append((axes.plot([], [], label=label)[0], np.array(values)))
        axes.set(xlim=(0, options.seconds), ylabel=label)
        if options.fault != "none":
            axes.axvline(options.onset, color="firebrick", lw=1)
    drawn.append(
        (head.plot([], [], "k:", label="true")[0], np.array([m.true.max() for m in moments]))
    )
    speed.axhline(options.speed, color="0.6", ls=":")
    speed.set_ylim(-0.2, 1.3)
    tilt.set_ylim(-1.05, 1.05)
    head.set(yticks=range(3), yticklabels=CONDITIONS, ylim=(-0.3, 2.3), xlabel="s")
    head.legend(fontsize=7, loc="upper left")
    if len(moments) * dt < options.seconds - dt / 2:
        tilt.set_title("falls", fontsize=8)
    frames = []
    for last in range(EVERY, len(moments) + 1, EVERY):
        for curve, values in drawn:
            curve.set_data(time[:last], values[:last])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return frames


def ffmpeg(out: Path) -> str:
    """The program that writes `.mp4`: the system's own, or the one in imageio-ffmpeg's wheel.

    Raises:
        InputError: this machine has neither.
    """
    if program := shutil.which("ffmpeg"):
        return program
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise InputError(
            f"{out}: .mp4 needs ffmpeg, which is not on the path; .gif does not"
        ) from None


def save(out: Path, frames: Sequence[Image.Image], rate: int) -> None:
    """Write frames as a film, whole or not at all.

    Raises:
        InputError: ffmpeg or the disk refuses.
    """
    content = io.BytesIO()
    if out.suffix == ".gif":
        options = {"duration": 1000 // rate, "loop": 0}
        frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], **options)
    else:
        width, height = frames[0].size
        command = [ffmpeg(out), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", str(rate), "-i", "-", "-pix_fmt", "yuv420p"]
        # a pipe cannot be rewound, which a plain mp4 asks for
        command += ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
        pixels = b"".join(frame.tobytes() for frame in frames)
        done = subprocess.run(command, input=pixels, capture_output=True)
        if done.returncode:
            raise InputError(f"{out}: ffmpeg: {done.stderr.decode().strip()[-200:]}")
        content.write(done.stdout)
    write_atomically(out, lambda file: file.write(content.getvalue()))
