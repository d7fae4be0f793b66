"""Constraint solver of SOLO8: MuJoCo's Newton method, for a body with four legs of two joints.

Legs touch each other through the trunk alone. Each of them sees eight degrees of freedom, the
trunk's six and its own two, and the linear systems fall into one small system a leg and one of the
trunk. MJX's own solver factors a full matrix, a robot after the other. Here the robots are the last
axis of every array, along which a processor works on many at once. `python -m benchmarks.solver`
compares the two.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from mujoco import mjx

TRUNK, LEGS, JOINTS = 6, 4, 2
_LOCKS = LEGS * JOINTS
ROWS = np.array(
    [
        [_LOCKS + leg, _LOCKS + LEGS + leg]
        + [_LOCKS + 2 * LEGS + 4 * leg + edge for edge in range(4)]
        + [JOINTS * leg + joint for joint in range(JOINTS)]
        for leg in range(LEGS)
    ]
)
"""`[4, 8]`: where MJX has each leg's constraints: a corner of the torso, the knee, four edges of
the foot's pyramid, two locks."""
_ALWAYS = np.arange(ROWS.shape[1])[:, None] >= ROWS.shape[1] - JOINTS
_SEES = np.array(
    [[*range(TRUNK), *(TRUNK + JOINTS * leg + np.arange(JOINTS))] for leg in range(LEGS)]
)
"""`[4, 8]`: the degrees of freedom that each leg sees."""
_OWN = np.arange(_SEES.shape[1])[:, None] >= TRUNK


def newton(
    mass: Array,
    jacobian: Array,
    stiffness: Array,
    target: Array,
    force: Array,
    start: Array,
    iterations: int,
    searches: int,
) -> tuple[Array, Array]:
    """Accelerations that the constraints allow: MuJoCo's convex problem with pyramidal cones.

    It minimises `(a - f/M)' M (a - f/M) / 2` plus, for each lock, `stiffness x**2 / 2`, where `x`
    is `jacobian a - target`, and for each contact's edge the same where `x` is negative. Each
    iteration is Newton's step with the edges that push, shortened to where the sum is least along
    it. Under `vmap` all robots are solved side by side.

    Args:
        mass: `[14, 14]`, mass matrix.
        jacobian: `[32, 14]`, MJX's `efc_J`.
        stiffness: `[32]`, MJX's `efc_D`.
        target: `[32]`, MJX's `efc_aref`.
        force: `[14]`, force of all else, MJX's `qfrc_smooth`.
        start: `[14]`, acceleration to begin with.
        iterations: number of iterations of Newton's method.
        searches: number of steps of each line search.

    Returns:
        Accelerations `[14]` and forces `[32]` of the constraints.
    """

    def side_by_side(*arguments: Array) -> tuple[Array, Array]:
        return _newton(*arguments, iterations, searches)

    @custom_vmap
    def solve(*arguments: Array) -> tuple[Array, ...]:
        return tuple(x[..., 0] for x in side_by_side(*(x[..., None] for x in arguments)))

    @solve.def_vmap
    def _(count: int, batched: list[bool], *arguments: Array):
        last = [
            jnp.moveaxis(x, 0, -1) if many else jnp.broadcast_to(x[..., None], (*x.shape, count))
            for x, many in zip(arguments, batched, strict=True)
        ]
        return tuple(jnp.moveaxis(x, -1, 0) for x in side_by_side(*last)), (True, True)

    return solve(mass, jacobian, stiffness, target, force, start)


def _newton(mass, jacobian, stiffness, target, force, start, iterations, searches):
    """`newton` with robots in the last axis of all."""
    # loops keep XLA from computing one's result anew for each number that another makes of it
    mass_trunk = mass[:TRUNK, :TRUNK]
    mass_legs = jnp.stack([mass[np.ix_(sees, sees)] for sees in _SEES])
    mass_legs = jnp.where(_OWN | _OWN[:, None], mass_legs, 0)
    jacobian = jnp.stack(
        [jacobian[np.ix_(rows, sees)] for rows, sees in zip(ROWS, _SEES, strict=True)]
    )
    stiffness = stiffness[ROWS]

    def times_mass(v: Array) -> Array:
        trunk = _sum(mass_trunk[:, i] * v[i] for i in range(TRUNK))
        legs = _product(mass_legs, v[_SEES])
        legs = jnp.concatenate([_sum(legs[:, :TRUNK]), legs[:, TRUNK:].reshape(_LOCKS, -1)])
        return legs + jnp.concatenate([trunk, jnp.zeros_like(v[TRUNK:])])

    def iterate(_, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, x, rest = state
        weight = jnp.where(_ALWAYS | (x < 0), stiffness, 0)
        legs = mass_legs + _sum(
            (weight[:, r, None] * jacobian[:, r])[:, :, None] * jacobian[:, r, None]
            for r in range(ROWS.shape[1])
        )
        right = -_transposed(jacobian, weight * x) - jnp.where(_OWN, rest[_SEES], 0)
        legs = _eliminate(jnp.concatenate([legs, right[:, :, None]], 2), TRUNK, TRUNK + JOINTS)
        trunk = jnp.concatenate([mass_trunk, -rest[:TRUNK, None]], 1)
        trunk += _sum(jnp.concatenate([legs[:, :TRUNK, :TRUNK], legs[:, :TRUNK, -1:]], 2))
        base = _eliminate(trunk, 0, TRUNK)[:, -1]
        joints = legs[:, TRUNK:, -1] - _sum(legs[:, TRUNK:, i] * base[i] for i in range(TRUNK))
        step = jnp.concatenate([base, joints.reshape(_LOCKS, -1)])
        seen, inertia = _product(jacobian, step[_SEES]), times_mass(step)
        size = _shorten(_sum(step * rest), _sum(step * inertia), x, seen, stiffness, searches)
        return a + size * step, x + size * seen, rest + size * inertia

    first = start, _product(jacobian, start[_SEES]) - target[ROWS], times_mass(start) - force
    a, x, _ = lax.fori_loop(0, iterations, iterate, first)
    forces = -jnp.where(_ALWAYS | (x < 0), stiffness, 0) * x
    return a, forces.reshape(ROWS.size, -1)[np.argsort(ROWS.ravel())]


def _shorten(slope: Array, curve: Array, x: Array, seen: Array, stiffness: Array, searches: int):
    """Factor `[n]` on a step at which the sum is least: Newton's method between brackets.

    Args:
        slope: `[n]`, first derivative of the part without constraints.
        curve: `[n]`, its second derivative.
        x: `[4, 8, n]`, the constraints.
        seen: `[4, 8, n]`, their change along the step.
        stiffness: `[4, 8, n]`.
        searches: number of steps.
    """
    bend, pull = stiffness * seen**2, stiffness * seen * x

    def look(_, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        at, low, high = state
        counts = _ALWAYS | (x + at * seen < 0)
        second = curve + _total(jnp.where(counts, bend, 0))
        first = slope + at * curve + _total(jnp.where(counts, pull + at * bend, 0))
        low, high = jnp.where(first < 0, at, low), jnp.where(first < 0, high, at)
        # a robot that has arrived has no step to shorten
        after = at - first / jnp.where(second > 0, second, 1)
        inside = (low <= after) & (after <= high)
        return jnp.where(inside, after, (low + high) / 2), low, high

    zero = jnp.zeros_like(slope)
    return lax.fori_loop(0, searches, look, (zero + 1, zero, zero + jnp.inf))[0]


def _eliminate(matrix: Array, first: int, last: int) -> Array:
    """Gauss and Jordan's elimination of some unknowns.

    Args:
        matrix: `[..., k, k + 1, n]`, linear systems with their right-hand sides, positive definite.
        first: first unknown to eliminate.
        last: unknown after the last one.
    """

    def pivot(i: Array, matrix: Array) -> Array:
        row = lax.dynamic_index_in_dim(matrix, i, -3, False)
        row = row / lax.dynamic_index_in_dim(row, i, -2)
        column = lax.dynamic_index_in_dim(matrix, i, -2)
        here = (jnp.arange(matrix.shape[-3]) == i)[:, None, None]
        row = jnp.expand_dims(row, -3)
        return jnp.where(here, row, matrix - column * row)

    return lax.fori_loop(first, last, pivot, matrix)


def _product(matrix: Array, v: Array) -> Array:
    """`[4, k, 8, n]` times `[4, 8, n]`."""
    return _sum(matrix[:, :, i] * v[:, i, None] for i in range(v.shape[1]))


def _transposed(matrix: Array, v: Array) -> Array:
    """The transpose of `[4, k, 8, n]` times `[4, k, n]`."""
    return _sum(matrix[:, i] * v[:, i, None] for i in range(v.shape[1]))


def _total(v: Array) -> Array:
    """Sum `[n]` over all axes but the last."""
    return _sum(v.reshape(-1, v.shape[-1]))


def _sum(terms) -> Array:
    """Sum over the first axis, as one loop over robots, which a reduction does not become."""
    return sum(terms)


def step(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Physics after one step: `mjx.step` of SOLO8 with this solver.

    `qacc_smooth` and the factors of the mass, which MJX computes only for its own solver, are left
    as they were.

    Args:
        model: MJX model of `solo8_model.mjcf`, whose `opt.iterations` and `opt.ls_iterations` hold.
        data: MJX data.

    Returns:
        MJX data.
    """
    for part in _PARTS:
        data = part(model, data)
    force = mjx.fwd_acceleration(model, data).qfrc_smooth
    rows, opt = data._impl, model.opt
    acceleration, forces = newton(
        rows.M,
        rows.efc_J,
        rows.efc_D,
        rows.efc_aref,
        force,
        data.qacc_warmstart,
        opt.iterations,
        opt.ls_iterations,
    )
    found = {
        "qacc": acceleration,
        "qfrc_smooth": force,
        "qfrc_constraint": rows.efc_J.T @ forces,
        "_impl.efc_force": forces,
    }
    return mjx.euler(model, data.tree_replace(found))


# MJX's own list has tendons, cameras and lights besides
_PARTS = (
    mjx.kinematics,
    mjx.com_pos,
    mjx.crb,
    mjx.collision,
    mjx.make_constraint,
    mjx.transmission,
    mjx.fwd_velocity,
    mjx.fwd_actuation,
)
