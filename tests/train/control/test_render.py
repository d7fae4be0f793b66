from dataclasses import replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from PIL import Image

from configs.quadruped import RobotConfig
from corrkd_jax.errors import InputError
from envs import solo8
from envs import solo8_constants as c
from tests.envs.simulate import load
from tests.train.control.tiny_quadruped import TINY, untrained
from train.control import export as quadruped_export
from train.control import render as quadruped_render
from train.control.render import Moment, RenderOptions


def controller_of(loaded):
    params, detector = quadruped_export.pick(loaded, "", 0)
    return quadruped_render.in_memory(loaded, params, detector)


@pytest.fixture(scope="module")
def walk():
    loaded = untrained(replace(TINY, body=RobotConfig(obs_mode="gravity", noise=0)))
    options = RenderOptions(fault="locked", onset=0.4, leg="HR", joints="KFE")
    return quadruped_render.walk_solo8(loaded, controller_of(loaded), options, 60)[1]


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
    assert [moment.true for moment in walk] == [0] * 20 + [2] * 40
    knee = np.array([moment.qpos[7 + c.JOINTS.index("HR_KFE")] for moment in walk])
    assert np.ptp(knee[19:]) < 5e-3 < np.ptp(knee[:20])
    assert all(moment.probabilities.shape == (8, 3) for moment in walk)


def test_writes_what_the_detector_believes(walk):
    frames = []
    for kind in (2, 0):
        frame = Image.new("RGB", (480, 360))
        quadruped_render.overlay(frame, walk[-1]._replace(kind=kind), 1.2)
        frames.append(np.asarray(frame))
    background = [tuple(frame[2, 2]) for frame in frames]
    # red where head and truth differ
    assert background[0] != background[1]
    assert background[1][0] > 2 * background[1][1]
    assert all((frame > 200).any() and not frame[-1].any() for frame in frames)


def test_the_toy_as_a_gif(tmp_path):
    probabilities = np.full((4, 3), 1 / 3)
    moments = [Moment(0.01 * t, 0.02 * t, 0, probabilities, t > 4, None) for t in range(10)]
    options = RenderOptions(onset=0.08, seconds=0.4)
    frames = quadruped_render.curves(moments, options, 0.02)
    quadruped_render.save(tmp_path / "toy.gif", frames, 25)
    with Image.open(tmp_path / "toy.gif") as film:
        assert film.n_frames == len(frames) == 5
        assert film.info["duration"] == 40
    assert np.any(np.asarray(frames[0]) != np.asarray(frames[-1]))


def test_no_opengl_is_one_clear_line(monkeypatch):
    def none(*_):
        raise mujoco.FatalError("an OpenGL platform library has not been loaded")

    monkeypatch.setattr(mujoco, "Renderer", none)
    with pytest.raises(InputError, match="MUJOCO_GL=egl") as caught:
        quadruped_render.pictures(load(), [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("x.avi", {}, "x.avi: name a .gif or .mp4"),
        ("none/x.gif", {}, "there is no folder"),
        ("x.gif", {"seconds": 0}, "--seconds 0: must be positive"),
        ("x.gif", {"onset": 9}, "--onset 9: not within the 8 s"),
    ],
)
def test_refuses(tmp_path, name, options, says):
    with pytest.raises(InputError, match=says):
        quadruped_render.check(tmp_path / name, RenderOptions(**options))


def test_mp4_needs_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(quadruped_render.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs ffmpeg"):
        quadruped_render.check(tmp_path / "x.mp4", RenderOptions())
