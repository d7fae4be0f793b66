"""Frames of a walking SOLO8: MuJoCo's renderer or, without OpenGL, lines; what is so below them."""

import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs import solo8_constants as c
from envs.faults import HEALTHY
from train.control.robot import CONDITIONS
from train.engine.progress import Bar, say

SIZE = (640, 400)
"""Width and height of the picture."""
PANEL = 160
"""Height of what is written below it."""
COLORS = ((150, 160, 170), (235, 120, 30), (60, 120, 220))
"""Colours of health, power loss and locked."""
SKY, FLOOR, INK, DARK = (214, 224, 232), (188, 190, 192), (235, 235, 235), (26, 28, 32)

Picture = Callable[[np.ndarray, np.ndarray], Image.Image]
"""Joint conditions `[8]` and `qpos` `[15]` -> a picture of that moment."""


class Moment(NamedTuple):
    """A control step.

    Attributes:
        speed, tilt: of the body, m/s and rad on the real robot.
        kind: head that drives.
        probabilities: `[joints, 3]` of the detector.
        true: condition of each joint `[joints]`.
        qpos: `[15]`; None for the surrogate.
    """

    speed: float
    tilt: float
    kind: int
    probabilities: np.ndarray
    true: np.ndarray
    qpos: np.ndarray | None


def film(
    xml: str, moments: Sequence[Moment], every: int, command: float, leg: str
) -> list[Image.Image]:
    """Frames of the robot, and below them what is so and what the detector believes.

    Args:
        xml: MJCF of the robot.
        moments: one a control step.
        every: control steps a frame.
        command: m/s.
        leg: that may fail; the camera stands on its side.
    """
    frames = []
    with Bar(len(range(0, len(moments), every)), unit="frames") as bar:
        bar.update(0, "drawing")
        try:
            picture = opengl(xml, leg)
        except Exception as error:  # each platform's library raises another type
            say(
                "no OpenGL here, so the robot is drawn as lines; for MuJoCo's own renderer install "
                f"libegl1 and libgl1 and set MUJOCO_GL=egl ({str(error).splitlines()[0]})"
            )
            picture = sketch(xml, leg)
        for number in range(0, len(moments), every):
            moment = moments[number]
            frame = Image.new("RGB", (SIZE[0], SIZE[1] + PANEL), DARK)
            frame.paste(picture(moment.true, moment.qpos), (0, 0))
            overlay(frame, moments, number, command)
            frames.append(frame)
            bar.update(len(frames), "drawing")
    return frames


def towards(leg: str) -> float:
    """Azimuth, degrees, of a camera that looks at a leg from outside."""
    return {"FL": -120.0, "HL": -60.0, "FR": 120.0, "HR": 60.0}[leg]


def opengl(xml: str, leg: str) -> Picture:
    """Pictures by MuJoCo's own renderer; raises what its OpenGL library does where there is none.

    On Linux without a display it asks EGL, unless MUJOCO_GL says otherwise: MuJoCo itself would
    ask for a window.
    """
    model = scenery(xml)
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY")
    if headless and not os.environ.get("MUJOCO_GL"):
        from mujoco.egl import GLContext  # loads a library of the system
    else:
        from mujoco import GLContext
    context = GLContext(*SIZE)
    context.make_current()
    drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, drawing)
    data, scene = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=200)
    camera, option, area = mujoco.MjvCamera(), mujoco.MjvOption(), mujoco.MjrRect(0, 0, *SIZE)
    camera.distance, camera.elevation, camera.azimuth = 1.0, -18, towards(leg)
    body = model.geom_rgba.copy()
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)

    def picture(true: np.ndarray, qpos: np.ndarray) -> Image.Image:
        # held here, lest the context be closed while its pictures are still asked for
        context.make_current()
        model.geom_rgba[:] = body
        for joint in np.flatnonzero(true != HEALTHY):
            geoms = model.geom_bodyid == model.jnt_bodyid[joint + 1]
            model.geom_rgba[geoms, :3] = np.divide(COLORS[true[joint]], 255)
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        # the height stays: a fall should be seen as one
        camera.lookat = (qpos[0], qpos[1], 0.14)
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, option, None, camera, every, scene)
        mujoco.mjr_render(area, scene, drawing)
        mujoco.mjr_readPixels(pixels, None, area, drawing)
        return Image.fromarray(pixels[::-1])

    return picture


def scenery(xml: str) -> mujoco.MjModel:
    """The robot under a sky, on a floor whose squares of a decimetre show that it moves."""
    spec = mujoco.MjSpec.from_string(xml)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = SIZE
    spec.visual.rgba.haze = [*np.divide(SKY, 255), 1]
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=np.divide(SKY, 255),
        rgb2=[0.5, 0.6, 0.7],
        width=128,
        height=128,
    )
    spec.add_texture(
        name="squares",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=np.divide(FLOOR, 255),
        rgb2=np.divide(FLOOR, 300),
        width=256,
        height=256,
    )
    material = spec.add_material(name="squares", texuniform=True, texrepeat=[5, 5])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "squares"
    floor = next(geom for geom in spec.geoms if geom.name == "floor")
    floor.material, floor.rgba = "squares", [1, 1, 1, 1]
    return spec.compile()


def sketch(xml: str, leg: str) -> Picture:
    """Pictures without OpenGL: the torso's outline and the legs as lines, seen from the side."""
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    angle = np.radians(towards(leg))
    right = np.array([np.sin(angle), -np.cos(angle), 0])
    away = np.array([np.cos(angle), np.sin(angle), 0])
    scale, ground = 0.75 * SIZE[0], 0.75 * SIZE[1]
    half = np.array(c.TORSO_SIZE) / 2

    def picture(true: np.ndarray, qpos: np.ndarray) -> Image.Image:
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        middle = np.array([qpos[0], qpos[1], 0])

        def at(point: np.ndarray) -> tuple[float, float]:
            point = point - middle
            # from a little above: what is farther away stands higher
            up = point[2] + 0.3 * (point @ away)
            return SIZE[0] / 2 + scale * (point @ right), ground - scale * up

        frame = Image.new("RGB", SIZE, SKY)
        draw = ImageDraw.Draw(frame)
        draw.rectangle((0, SIZE[1] / 2, *SIZE), fill=FLOOR)
        lines = np.floor(middle[:2] / 0.2) * 0.2
        for step in np.arange(-2, 2.1, 0.2):
            x, y = lines + step
            for ends in (((x, y - 9), (x, y + 9)), ((x - 9, y), (x + 9, y))):
                draw.line([at(np.array([*end, 0])) for end in ends], fill=(170, 172, 175))
        draw.rectangle((0, 0, SIZE[0], SIZE[1] / 2 - 1), fill=SKY)
        axes = data.xmat[1].reshape(3, 3)
        corners = [data.xpos[1] + axes @ (half * (a, b, 0))
                   for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]  # fmt: skip
        draw.polygon([at(corner) for corner in corners], fill=(90, 95, 105), outline=DARK)
        for number in range(4):
            points = [at(data.xpos[2 + 3 * number + part]) for part in range(3)]
            for part in range(2):
                color = COLORS[true[2 * number + part]] if true[2 * number + part] else DARK
                draw.line(points[part : part + 2], fill=color, width=7)
            x, y = points[2]
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=DARK)
        return frame

    return picture


def overlay(frame: Image.Image, moments: Sequence[Moment], number: int, command: float) -> None:
    """Write below a picture what is so, what the detector says of each joint, and what came when.

    Args:
        frame: `SIZE` and `PANEL` below it, drawn into.
        moments: all of the film.
        number: of this one.
        command: m/s.
    """
    draw, top = ImageDraw.Draw(frame), SIZE[1]
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    moment = moments[number]
    true = int(moment.true.max())
    wrong = moment.kind != true
    draw.text((10, top + 8), f"{number * c.CONTROL_DT:.2f} s", fill=INK, font=font)
    speed = f"{moment.speed:.2f} m/s (command {command:.2f})"
    draw.text((10, top + 28), speed, fill=INK, font=font)
    draw.text((10, top + 48), f"condition: {CONDITIONS[true]}", fill=COLORS[true], font=font)
    says = "driving head: " + CONDITIONS[moment.kind]
    draw.text((10, top + 68), says, fill=COLORS[moment.kind], font=font)
    if wrong:
        draw.rectangle((4, top + 67, 210, top + 87), outline=(220, 50, 50), width=2)

    # the detector's three probabilities of a joint as one bar
    left, width = 232, 44
    draw.text((left, top + 4), "detector, joint by joint:", fill=INK, font=small)
    for condition, name in enumerate(CONDITIONS):
        at = (left + 140 + 65 * condition, top + 4)
        draw.text(at, name, fill=COLORS[condition], font=small)
    for joint, name in enumerate(c.JOINTS):
        x, y = left + joint * (width + 6), top + 24
        for condition, share in enumerate(moment.probabilities[joint]):
            height = 40 * float(share)
            if height >= 0.5:
                draw.rectangle((x, y, x + width, y + height), fill=COLORS[condition])
            y += height
        if moment.true[joint] != HEALTHY:
            box = (x - 3, top + 21, x + width + 3, top + 67)
            draw.rectangle(box, outline=(255, 255, 255), width=2)
        draw.text((x + 2, top + 70), name, fill=INK, font=small)

    first, last, total = 86, SIZE[0] - 12, len(moments)
    kinds = {
        "condition": np.array([m.true.max() for m in moments]),
        "driving": np.array([m.kind for m in moments]),
    }
    for row, (name, each) in enumerate(kinds.items()):
        y = top + 96 + 20 * row
        draw.text((10, y), name, fill=INK, font=small)
        changes = [0, *(np.flatnonzero(np.diff(each)) + 1).tolist(), total]
        for start, end in pairwise(changes):
            span = [first + (last - first) * at / total for at in (start, min(end, number + 1))]
            if start <= number:
                draw.rectangle((span[0], y, span[1], y + 12), fill=COLORS[each[start]])
            if 0 < start <= number:
                draw.line((span[0], y - 4, span[0], y + 16), fill=(255, 255, 255), width=2)
    events = []
    for at in range(1, number + 1):
        for name, each in (("fault", kinds["condition"]), ("switch", kinds["driving"])):
            if each[at] != each[at - 1]:
                events.append(f"{name} {at * c.CONTROL_DT:.2f} s: {CONDITIONS[each[at]]}")
    shown = "; ".join(events[-3:])
    draw.text((first, top + 138), shown, fill=INK, font=small)
    x = first + (last - first) * (number + 1) / total
    draw.line((x, top + 92, x, top + 132), fill=(255, 80, 80), width=1)
