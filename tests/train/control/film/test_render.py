from dataclasses import replace

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from PIL import Image

from configs.quadruped import RobotConfig
from corrkd_jax.errors import InputError
from envs import faults, solo8, solo8_model
from envs import solo8_constants as c
from tests.envs.simulate import load
from tests.train.control.tiny_quadruped import TINY, untrained
from train.control import export as quadruped_export
from train.control.film import pictures
from train.control.film import render as quadruped_render
from train.control.film.pictures import Moment
from train.control.film.render import RenderOptions


def controller_of(loaded):
    return quadruped_render.in_memory(loaded, quadruped_export.pick(loaded, "", 0))


@pytest.fixture(scope="module")
def held():
    """Angles at which locks were to hold, a row each physics step; `walk` fills it."""
    return []


@pytest.fixture(scope="module")
def walk(held):
    loaded = untrained(replace(TINY, body=RobotConfig(obs_mode="gravity", noise=0)))
    options = RenderOptions(fault="locked", onset=0.4, leg="HR", joints="KFE")
    engage = faults.engage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "engage", lambda *x: held.append(x[3].copy()) or engage(*x))
        return quadruped_render.walk_solo8(loaded, controller_of(loaded), options, 60)


@pytest.mark.parametrize("mode", ["quat", "gravity"])
def test_sees_what_the_environment_shows(mode):
    model = load()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    data.qpos, data.qvel = rng.normal(size=15), rng.normal(size=14)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    action = rng.normal(size=8)
    env = solo8.Solo8(solo8.Config(obs_mode=mode, noise=0))
    info = {
        "command": jnp.array([0.6, 0.0]),
        "last_action": jnp.array(action),
        "hardware": solo8.draw_hardware(jax.random.PRNGKey(0), False),
    }
    expected = env._observe(data, info, jax.random.PRNGKey(0))
    found = quadruped_render.observe(data, action, 0.6, mode)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_fault_strikes_at_its_onset(walk):
    expected = np.zeros((60, 8))
    expected[20:, c.JOINTS.index("HR_KFE")] = faults.LOCKED
    np.testing.assert_array_equal([moment.true for moment in walk], expected)
    knee = np.array([moment.qpos[7 + c.JOINTS.index("HR_KFE")] for moment in walk])
    assert np.ptp(knee[19:]) < 5e-3 < np.ptp(knee[:20])
    assert all(moment.probabilities.shape == (8, 3) for moment in walk)


def test_a_lock_holds_the_angle_of_its_onset(walk, held):
    joint = c.JOINTS.index("HR_KFE")
    angles = np.array(held).reshape(60, c.SUBSTEPS, 8)
    np.testing.assert_array_equal(angles[20:, :, joint], walk[19].qpos[7 + joint])


def test_writes_what_the_detector_believes(walk):
    """The panel differs where the head is wrong, and by what the detector says of a joint."""

    def panel(**changes):
        moments = [*walk[:-1], walk[-1]._replace(**changes)]
        frame = Image.new("RGB", (pictures.SIZE[0], pictures.SIZE[1] + pictures.PANEL))
        pictures.overlay(frame, moments, len(moments) - 1, 0.5)
        return np.asarray(frame).astype(int)

    sure = np.tile(np.float32([1, 0, 0]), (8, 1))
    right, wrong = panel(kind=2, probabilities=sure), panel(kind=0, probabilities=sure)
    assert not right[: pictures.SIZE[1]].any()
    reddish = [(p[..., 0] > 200) & (p[..., 1:] < 60).all(axis=-1) for p in (right, wrong)]
    assert not reddish[0].any()
    assert reddish[1].any()
    sure[3] = [0, 1, 0]
    joint = panel(kind=2, probabilities=sure)
    columns = np.flatnonzero((joint != right).any(axis=(0, 2)))
    assert 44 <= len(columns) <= 45  # the bar of one joint


@pytest.mark.parametrize("leg", c.LEGS)
def test_lines_where_there_is_no_opengl(walk, leg):
    picture = pictures.sketch(solo8_model.mjcf(c.ROBOTS["v7"]), leg)
    healthy, locked = (np.asarray(picture(walk[at].true, walk[-1].qpos)) for at in (0, -1))
    changed = (healthy != locked).any(axis=-1)
    # one segment of one leg
    assert 50 < changed.sum() < 2000
    assert (locked[changed] == pictures.COLORS[faults.LOCKED]).all()


def test_says_that_opengl_is_missing(walk, monkeypatch, capsys):
    def none(*_):
        raise mujoco.FatalError("an OpenGL platform library has not been loaded")

    monkeypatch.setattr(pictures, "opengl", none)
    frames = pictures.film(solo8_model.mjcf(c.ROBOTS["v7"]), walk[:4], 2, 0.5, "FL")
    assert len(frames) == 2
    assert "MUJOCO_GL=egl" in capsys.readouterr().out


def test_mujoco_draws_the_failing_leg_in_its_colour(walk):
    try:
        picture = pictures.opengl(solo8_model.mjcf(c.ROBOTS["v7"]), "HR")
    except Exception as error:
        pytest.skip(f"no OpenGL: {error}")
    healthy, locked = (
        np.asarray(picture(walk[at].true, walk[-1].qpos)).astype(int) for at in (0, -1)
    )
    assert healthy.shape == (*pictures.SIZE[::-1], 3)
    bluish = [(p[..., 2] > p[..., 0] + 60).sum() for p in (healthy, locked)]
    assert bluish[1] > bluish[0] + 100


def test_the_toy_as_a_gif(tmp_path):
    probabilities = np.full((4, 3), 1 / 3)
    moments = [
        Moment(0.01 * t, 0.02 * t, 0, probabilities, np.full(4, t > 4), None) for t in range(10)
    ]
    options = RenderOptions(onset=0.08, seconds=0.4)
    frames = quadruped_render.curves(moments, options, 0.02)
    quadruped_render.save(tmp_path / "toy.gif", frames, 25)
    with Image.open(tmp_path / "toy.gif") as film:
        assert film.n_frames == len(frames) == 5
        assert film.info["duration"] == 40
    assert np.any(np.asarray(frames[0]) != np.asarray(frames[-1]))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("x.avi", {}, "x.avi: name a .gif or .mp4"),
        ("none/x.gif", {}, "there is no folder"),
        ("x.gif", {"seconds": 0}, "--seconds 0: must be positive"),
        ("x.gif", {"onset": 9}, "--onset 9: not within the 8 s"),
        ("x.gif", {"fault": "rust"}, "--fault rust: choose from none, power-loss, locked"),
        ("x.gif", {"leg": "XX"}, "--leg XX: choose from FL, FR, HL, HR"),
        ("x.gif", {"joints": "hip"}, "--joints hip: choose from HFE, KFE, both"),
    ],
)
def test_refuses(tmp_path, name, options, says):
    with pytest.raises(InputError, match=says):
        quadruped_render.check(tmp_path / name, RenderOptions(**options))


def test_mp4_holds_every_frame(tmp_path, monkeypatch):
    """By the program in the wheel, which the system's own would hide."""
    monkeypatch.setattr(quadruped_render.shutil, "which", lambda name: None)
    ramp = np.linspace(0, 250, 8).astype(np.uint8)
    frames = [Image.fromarray(np.full((48, 64, 3), grey, np.uint8)) for grey in ramp]
    quadruped_render.save(tmp_path / "x.mp4", frames, 25)
    pixels = imageio_ffmpeg.read_frames(str(tmp_path / "x.mp4"))
    meta = next(pixels)
    assert (meta["size"], meta["fps"]) == ((64, 48), 25)
    found = [np.frombuffer(frame, np.uint8).mean() for frame in pixels]
    np.testing.assert_allclose(found, ramp, atol=4)


def test_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    def none():
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setattr(quadruped_render.shutil, "which", lambda name: None)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(InputError, match="needs ffmpeg"):
        quadruped_render.check(tmp_path / "x.mp4", RenderOptions())
