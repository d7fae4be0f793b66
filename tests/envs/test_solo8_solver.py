"""The constraint solver against C MuJoCo's, on problems that C MuJoCo meets."""

from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import solo8_constants as c
from envs import solo8_solver as solver
from tests.envs.simulate import advance, joints, load, spawn

SETTLED = {"iterations": 12, "searches": 8}


def standing(model, data):
    advance(model, data, 0.6)


def walking(model, data):
    advance(model, data, 0.6, action=lambda t: 2 * np.sin(2 * np.pi * 2.5 * t + np.arange(8)))


def limping(model, data):
    advance(model, data, 0.4, power_loss=joints("FL", "HFE", "KFE"))


def locked(model, data):
    # the locks hold angles that the joints have left
    advance(model, data, 0.1)
    held = joints("HR", "HFE", "KFE") | joints("FL", "KFE")
    advance(model, data, 0.1, locked=held, angle=data.qpos[7:] + 0.05)


def fallen(model, data):
    data.qpos[7:] = np.tile([1.2, -0.4], 4)
    data.qpos[3:7] = [1, 0.1, 0.05, 0]
    advance(model, data, 0.6, torque=lambda _: np.zeros(8))


def landing(model, data):
    # a step ago nothing touched the floor
    data.qvel[:6] = [0.5, -0.3, -2, 1, 2, 0.5]
    while not data.ncon:
        mujoco.mj_step(model, data)


def flying(model, data):
    data.qpos[2] = 1


CASES = (standing, walking, limping, locked, fallen, landing, flying)


def in_mjxs_order(model, data):
    """Jacobian, stiffness, target and forces of C MuJoCo, which has no rows for what is off."""
    first = {}
    for leg, name in enumerate(c.LEGS):
        knee, foot = (model.body(f"{name}_{part}").id for part in ("upper", "foot"))
        sphere = model.geom_type == mujoco.mjtGeom.mjGEOM_SPHERE
        corner = np.flatnonzero(sphere & (model.geom_bodyid == 1))[leg]
        first[corner] = 8 + leg
        first[np.flatnonzero(sphere & (model.geom_bodyid == knee))[0]] = 12 + leg
        first[np.flatnonzero(sphere & (model.geom_bodyid == foot))[0]] = 16 + 4 * leg
    full = data.efc_J.reshape(data.nefc, model.nv)
    rows = np.zeros(data.nefc, int)
    rows[: data.ne] = np.argmax(full[: data.ne] != 0, axis=1) - 6
    for contact in data.contact[: data.ncon]:
        edges = 1 if contact.dim == 1 else 2 * (contact.dim - 1)
        rows[contact.efc_address + np.arange(edges)] = first[contact.geom.max()] + np.arange(edges)
    laid = []
    for values in (full, data.efc_D, data.efc_aref, data.efc_force):
        out = np.zeros((32, *values.shape[1:]))
        out[rows] = values
        laid.append(out)
    return laid


@pytest.fixture(scope="module")
def problems():
    """Arguments of `newton`, then accelerations and forces of C MuJoCo; a row for each case."""
    model = load()
    model.opt.iterations, model.opt.ls_iterations, model.opt.tolerance = 100, 50, 1e-12
    rows = []
    for case in CASES:
        data = spawn(model)
        case(model, data)
        start = data.qacc_warmstart.copy()
        mujoco.mj_forward(model, data)
        mass = np.zeros((14, 14))
        mujoco.mj_fullM(model, data, mass)
        laid = in_mjxs_order(model, data)
        given = mass, *laid[:3], data.qfrc_smooth, start
        rows.append((*given, data.qacc.copy(), laid[3]))
    return [jnp.asarray(np.stack(column), jnp.float32) for column in zip(*rows, strict=True)]


@pytest.fixture(scope="module")
def solve():
    return jax.jit(jax.vmap(partial(solver.newton, **SETTLED)))


def missed(found, right):
    """Of accelerations, each robot's in parts of its own, or of gravity if it stands."""
    size = np.maximum(np.linalg.norm(right, axis=1), 9.81)
    return np.linalg.norm(np.asarray(found) - np.asarray(right), axis=1) / size


def gradient(mass, jacobian, stiffness, target, force, acceleration):
    """Of the convex problem at an acceleration, in double precision."""
    mass, jacobian, stiffness, target, force, acceleration = (
        np.asarray(x, np.float64) for x in (mass, jacobian, stiffness, target, force, acceleration)
    )
    x = jacobian @ acceleration - target
    pushes = (np.arange(len(x)) < 8) | (x < 0)
    return mass @ acceleration - force + jacobian.T @ (pushes * stiffness * x)


def test_c_mujocos_accelerations_and_forces(problems, solve):
    *given, right, forces = problems
    # the cases are not empty: locks pull, feet push, knees and torso push, and one has nothing
    assert forces[CASES.index(locked), [1, 6, 7]].all()
    assert forces[CASES.index(fallen), 8:16].any()
    assert forces[CASES.index(standing), 16:].all()
    assert not forces[CASES.index(flying)].any()
    found, pushing = solve(*given)
    assert missed(found, right).max() < 1e-5
    np.testing.assert_allclose(pushing, forces, atol=2e-3 * np.abs(forces).max())


def test_from_any_start(problems, solve):
    *given, right, _ = problems
    given[-1] = 100 * jax.random.normal(jax.random.PRNGKey(0), right.shape)
    found, _ = solve(*given)
    assert missed(found, right).max() < 2e-4


def test_what_has_arrived_stays(problems, solve):
    *given, right, _ = problems
    given[-1] = right
    found, pushing = solve(*given)
    assert missed(found, right).max() < 1e-5
    # a step of nothing at all must not divide by it
    zero = [jnp.zeros_like(x[:1]) for x in given]
    zero[0] = jnp.eye(14)[None]
    found, pushing = solve(*zero)
    assert not found.any()
    assert not pushing.any()


def test_few_iterations_come_near(problems):
    """From far away; the environment has five."""
    *given, right, _ = problems
    given[-1] = 100 * jax.random.normal(jax.random.PRNGKey(1), right.shape)
    far = []
    for iterations in (1, 3, 5):
        newton = partial(solver.newton, iterations=iterations, searches=2)
        far.append(missed(jax.jit(jax.vmap(newton))(*given)[0], right).max())
    assert far[0] > 0.1
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.02


def test_least_of_random_problems(solve):
    """Optimality, for targets and stiffness that no robot has, with and without locks."""
    random = np.random.default_rng(0)
    count = len(CASES)
    sees = solver._SEES
    root = np.zeros((count, 4, 8, 8))
    root[:] = random.normal(size=root.shape)
    mass = np.zeros((count, 14, 14))
    jacobian = np.zeros((count, 32, 14))
    for leg in range(4):
        block = root[:, leg] @ np.swapaxes(root[:, leg], 1, 2) + np.eye(8)
        mass[np.ix_(range(count), sees[leg], sees[leg])] += block
        rows = np.ix_(range(count), solver.ROWS[leg, :6], sees[leg])
        jacobian[rows] = random.normal(size=(count, 6, 8))
    for joint in range(8):
        jacobian[:, joint, 6 + joint] = random.integers(0, 2, count)
    stiffness = random.uniform(0.1, 10, (count, 32))
    target, force = random.normal(size=(count, 32)), random.normal(size=(count, 14))
    given = mass, jacobian, stiffness, target, force
    found, pushing = solve(*(jnp.asarray(x, jnp.float32) for x in (*given, np.zeros_like(force))))
    for row in range(count):
        each = [x[row] for x in given]
        assert np.abs(gradient(*each, found[row])).max() < 1e-4
    edges = np.asarray(pushing)[:, 8:]
    assert (edges >= 0).all()
    assert (edges > 0).any()
    x = np.einsum("nij,nj->ni", jacobian, found) - target
    np.testing.assert_allclose(pushing[:, :8], -(stiffness * x)[:, :8], atol=1e-4)


def test_alone_and_in_nested_batches(problems, solve):
    *given, _, _ = problems
    found, pushing = solve(*given)
    newton = partial(solver.newton, **SETTLED)
    alone = jax.jit(newton)(*(x[1] for x in given))
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-4, atol=1e-2)
    # one mass for all robots of a row, as where nothing of the body is drawn
    mass, *rest = [jnp.stack([x[:3], x[3:6]]) for x in given]
    inner = jax.vmap(newton, in_axes=(None, 0, 0, 0, 0, 0))
    nested = jax.jit(jax.vmap(inner))(mass[:, 0], *rest)
    assert nested[0].shape == (2, 3, 14)
    assert nested[1].shape == (2, 3, 32)
    np.testing.assert_allclose(nested[0][0, 0], found[0], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(nested[1][1, 0], pushing[3], rtol=1e-3, atol=1e-2)


def test_a_step_too_small_to_square():
    """Its slope is a number and its curve is none: the size must stay one."""
    nothing = jnp.zeros((4, 8, 1))
    slope, curve = jnp.full(1, -1e-30), jnp.zeros(1)
    assert np.isfinite(solver._shorten(slope, curve, nothing, nothing, nothing, 3)).all()


@pytest.mark.parametrize(("searches", "arrives"), [(1, False), (12, True)])
def test_the_least_along_a_step(searches, arrives):
    """Edges that begin and cease to push on the way make one look too few."""
    random = np.random.default_rng(1)
    count = 50
    x, seen = random.normal(size=(2, 4, 8, count))
    stiffness = random.uniform(0.1, 10, (4, 8, count))
    curve = random.uniform(1, 2, count)
    pushes = solver._ALWAYS | (x < 0)
    # downhill, as every step is
    slope = -(10 + np.abs(np.sum(pushes * stiffness * seen * x, axis=(0, 1))))
    size = solver._shorten(*map(jnp.asarray, (slope, curve, x, seen, stiffness)), searches)
    size = np.asarray(size, np.float64)
    now = x + size * seen
    slopes = slope + size * curve
    slopes += np.sum((solver._ALWAYS | (now < 0)) * stiffness * seen * now, axis=(0, 1))
    assert (np.abs(slopes).max() < 1e-3) == arrives


def test_rows_are_each_leg_once():
    assert sorted(solver.ROWS.ravel()) == list(range(32))
    counts = np.bincount(solver._SEES.ravel())
    assert counts.tolist() == [4] * 6 + [1] * 8
