"""What Brax's own trainers need to run on the JAX that this project runs on.

Brax 0.14.2's PPO, SAC and APG copy their state to every device by `jax.device_put_replicated`,
which JAX 0.10 no longer has. Nothing here is applied on import.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_REMOVED = "device_put_replicated"


@contextmanager
def brax_trainers() -> Iterator[None]:
    """Let Brax's trainers run in the body of a `with`, and leave `jax` as it was afterwards.

    Puts `jax.device_put_replicated` back for as long as the body runs; does nothing where JAX has
    it. Whoever calls the trainers in several threads enters this once, around all of them.
    """
    if hasattr(jax, _REMOVED):
        yield
        return
    setattr(jax, _REMOVED, replicate)
    try:
        yield
    finally:
        delattr(jax, _REMOVED)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copies of a tree on several devices, as `jax.device_put_replicated` gave them.

    Args:
        tree: arrays and numbers `[...]`.
        devices: one or more.

    Returns:
        The tree with leaves `[devices, ...]`, each device holding its own row.

    Raises:
        ValueError: no device.
    """
    if not devices:
        raise ValueError("devices: name at least one")
    rows = NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec("devices"))

    def leaf(x: Any) -> Array:
        x = jnp.asarray(x)
        return jax.device_put(jnp.broadcast_to(x, (len(devices), *x.shape)), rows)

    return jax.tree.map(leaf, tree)
