"""Finished models over many rows, in padded blocks: texts, curves and meshes come from it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from train.engine.feed import Set
from train.engine.progress import Bar
from train.engine.stage import Lanes, Tree, vectorized


def predict(
    function: Callable[[Tree, Tree], Tree],
    models: Tree,
    rows: Tree | Set,
    *,
    depth: int = 0,
    lanes: Lanes = vectorized,
    block: int = 256,
    doing: str = "evaluating",
) -> Tree:
    """What models say of every row, each block of rows by the same compiled program.

    Args:
        function: `(model, batch) -> tree`, leaves `[rows, ...]`; must treat rows one by one, since
            a block is filled up with copies of the last row.
        models: parameters with `depth` leading axes of models (seeds, arms).
        rows: arrays `[n, ...]`, which go to the device whole, or a set, which is read from the host
            block by block, with a progress bar.
        depth: number of leading axes of models.
        lanes: how the models share the device.
        block: rows at a time.
        doing: what the progress bar says.

    Returns:
        NumPy arrays `[..., n, ...]`, the axes of models first.
    """
    if isinstance(rows, Set):
        return _by_reading(function, models, rows, depth, lanes, block, doing)

    def whole(model: Tree, rows: Tree) -> Tree:
        return by_block(lambda batch: function(model, batch), rows, block)

    return jax.tree.map(np.asarray, jax.jit(_of_models(whole, depth, lanes))(models, rows))


def _by_reading(
    function: Callable[[Tree, Tree], Tree],
    models: Tree,
    rows: Set,
    depth: int,
    lanes: Lanes,
    block: int,
    doing: str,
) -> Tree:
    call = jax.jit(_of_models(function, depth, lanes))
    models = jax.tree.map(jnp.asarray, models)
    count, parts = len(rows), []
    with Bar(count, unit="rows") as bar:
        bar.update(0, doing)
        for index in positions(count, block):
            parts.append(jax.tree.map(np.asarray, call(models, rows.take(index))))
            bar.update(min(int(index[-1]) + 1, count), doing)
    # the last block was filled up
    lead = (slice(None),) * depth
    return jax.tree.map(
        lambda *each: np.concatenate(each, axis=depth)[(*lead, slice(count))], *parts
    )


def _of_models(
    function: Callable[[Tree, Tree], Tree], depth: int, lanes: Lanes
) -> Callable[..., Tree]:
    for _ in range(depth):
        function = lanes(function, (0, None))
    return function


def by_block(function: Callable[[Tree], Tree], rows: Tree, block: int) -> Tree:
    """The same inside a compiled program, for one model.

    Args:
        function: of a batch; leaves `[rows, ...]`; must treat rows one by one.
        rows: arrays `[n, ...]`.
        block: rows at a time.

    Returns:
        Leaves `[n, ...]`.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    index = jnp.asarray(positions(count, block))
    results = lax.map(lambda at: function(jax.tree.map(lambda x: x[at], rows)), index)

    def joined(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])[:count]

    return jax.tree.map(joined, results)


def positions(count: int, block: int) -> np.ndarray:
    """Numbers of rows by block, `[blocks, block]`; the last block repeats the last row."""
    block = min(block, count)
    blocks = -(-count // block)
    return np.minimum(np.arange(blocks * block), count - 1).reshape(blocks, block)
