"""Devices: the one file that knows how many there are, and the only one that says `pmap`.

Training state has a canonical layout on the host, with leading axes `[seeds]` or `[seeds, arms]`.
On the devices it gains a leading axis of local devices. Two ways to use several of them:

* `seeds`: each device trains its own seeds; nothing is exchanged.
* `batch`: every device holds all seeds and works on its block of each batch; gradients and
  batch-coupled losses meet in collectives over the axis `"data"`. What such a device has for
  itself, its simulated worlds, stands in an `Own`.
"""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from corrkd_jax.errors import InputError

AXIS = "data"


def connect(coordinator: str, processes: int, process_id: int) -> None:
    """Join a group of processes before anything else touches a device.

    Args:
        coordinator: `host:port` of process 0; `auto` where the cluster says it all (Slurm,
            GKE, TPU pods); empty to run alone.
        processes: number of processes, when not `auto`.
        process_id: number of this one, when not `auto`.

    Raises:
        InputError: the group cannot be formed.
    """
    if not coordinator:
        return
    if coordinator != "auto" and not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(f"--coordinator {coordinator}: give host:port or auto")
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--coordinator {coordinator}: {str(error).splitlines()[0]}") from error


def offer_cpu_devices(count: int) -> None:
    """Let a CPU stand for several devices, before JAX has looked for its own.

    Does nothing after that, and where `XLA_FLAGS` says how many there are.

    Args:
        count: number of devices that are wanted; there are no more than cores.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(count, os.cpu_count() or 1))


def missing_device() -> str:
    """Why JAX has no device to work on, in one line; empty if it has one.

    Where `JAX_PLATFORMS` names a platform that is not there, JAX says so in a traceback, or with
    an AssertionError that says nothing.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no such device is visible"])[0]
        reason = re.sub(r"\.?\s*\((set JAX_PLATFORMS|you may need).*", "", reason)
        if platforms := os.environ.get("JAX_PLATFORMS"):
            return f"JAX_PLATFORMS={platforms}: {reason}; set JAX_PLATFORMS=cpu, or leave it unset"
        return f"{reason}; mend its driver, or set JAX_PLATFORMS=cpu"
    return ""


def is_main() -> bool:
    """True on the process that writes files and draws progress."""
    return jax.process_index() == 0


class Own(NamedTuple):
    """A part of a state that differs between the shards of a batch, such as simulated worlds.

    Its canonical layout has the shards as the foremost axis, `[shards, seeds, ...]`; without
    shards it is laid out as everything else is.
    """

    tree: Any


def is_own(x: Any) -> bool:
    """Whether a node of a tree is an `Own`."""
    return isinstance(x, Own)


@dataclass(frozen=True)
class Layout:
    """How one run lies on the devices.

    Attributes:
        split: `"seeds"` or `"batch"`; `"batch"` on a single device, where both are one.
        devices: number of devices, in all processes.
        seeds: number of seeds, where it does not divide among the devices: the last one then is
            trained more than once, so that all devices do the same.
    """

    split: str
    devices: int
    seeds: int | None = None

    @property
    def axis_name(self) -> str | None:
        """Axis over which a batch is sharded, None when every device has whole batches."""
        return AXIS if self.split == "batch" and self.devices > 1 else None

    @property
    def shards(self) -> int:
        """Number of blocks a batch is cut into."""
        return self.devices if self.axis_name else 1

    @property
    def local(self) -> list[Any]:
        """This process's devices."""
        return jax.local_devices()[: self.devices // jax.process_count()]

    @property
    def own(self) -> slice:
        """Positions of this process's devices among all."""
        first = jax.process_index() * len(self.local)
        return slice(first, first + len(self.local))

    @property
    def local_mesh(self) -> Mesh:
        """This process's devices as the mesh on which its arrays lie."""
        return Mesh(np.asarray(self.local), (AXIS,))


def choose_layout(
    split: str, seeds: int, batch: int, devices: int = 0, option: str = "--optimizer.batch-size"
) -> Layout:
    """Split seeds over the devices if they come out even or are those of a CPU, else the batch.

    A core that waits for others gains nothing by a part of a batch, and draws other dropout.

    Args:
        split: `"auto"`, `"seeds"` or `"batch"`.
        seeds: number of seeds in the run.
        batch: global batch size.
        devices: how many to use; 0 for all. Fewer than all only in a single process.
        option: what the batch is called on the command line.

    Raises:
        InputError: there are not so many devices, there are fewer seeds, or the batch does not
            divide among them.
    """
    there = jax.device_count()
    if not 0 <= devices <= there or (devices not in (0, there) and jax.process_count() > 1):
        raise InputError(f"--devices {devices}: there are {there}")
    devices = devices or there
    if split == "auto":
        cores = jax.default_backend() == "cpu" and jax.process_count() == 1 and seeds > 1
        if cores:
            devices = min(devices, seeds)
        split = "seeds" if devices > 1 and (cores or seeds % devices == 0) else "batch"
    if split == "seeds":
        if seeds < devices:
            raise InputError(
                f"--seeds {seeds} leaves some of {devices} devices without one; choose more, or "
                "fewer with --devices"
            )
        return Layout(split, devices, seeds if seeds % devices else None)
    if batch % devices:
        raise InputError(
            f"{option} {batch} does not divide among {devices} devices; choose a multiple, or "
            "fewer with --devices"
        )
    return Layout(split, devices)


class Program:
    """A function that every device runs: `program(state, mapped, shared, *scalars)`.

    `state` and `mapped` are split along their leading (local device) axis, `shared` and the
    scalars are the same everywhere; `state` is donated. Compiled on its first call.
    """

    def __init__(self, function: Callable[..., Any], layout: Layout):
        """Wrap a function.

        Args:
            function: `(state, mapped, shared, *scalars) -> state` of one device.
            layout: how the run lies on the devices.
        """

        def unpacked(state: Any, mapped: Any, shared: Any, scalars: tuple[Any, ...]) -> Any:
            return function(state, mapped, shared, *scalars)

        devices = None if jax.process_count() > 1 else layout.local
        self._mapped = jax.pmap(
            unpacked, AXIS, in_axes=(0, 0, None, None), donate_argnums=0, devices=devices
        )

    def __call__(self, state: Any, mapped: Any, shared: Any, *scalars: Any) -> Any:
        """Run the function on every device; its result lies as `state` does."""
        return self._mapped(state, mapped, shared, scalars)

    def compiled(self, state: Any, mapped: Any, shared: Any, *scalars: Any) -> Any:
        """The program as a `jax.stages.Compiled`, whose plan and text can be read; runs nothing."""
        return self._mapped.lower(state, mapped, shared, scalars).compile()


def spread(tree: Any, layout: Layout) -> Any:
    """Canonical host arrays `[seeds, ...]` -> arrays `[local_devices, ...]` on the devices."""

    def cut(x: Any) -> Any:
        if isinstance(x, Own):
            rows = (lambda own: np.asarray(own)[layout.own]) if layout.axis_name else cut
            return jax.tree.map(rows, x)
        x = np.asarray(x)
        if layout.split == "seeds":
            x = _filled(x, layout)
            return x.reshape(layout.devices, -1, *x.shape[1:])[layout.own]
        return np.broadcast_to(x, (len(layout.local), *x.shape))

    return place(jax.tree.map(cut, tree, is_leaf=is_own), layout)


def _filled(seeds: np.ndarray, layout: Layout) -> np.ndarray:
    """`[seeds, ...]` with the last one again until it divides among the devices."""
    short = -len(seeds) % layout.devices
    return np.concatenate([seeds, *[seeds[-1:]] * short]) if short else seeds


def place(tree: Any, layout: Layout) -> Any:
    """Arrays `[local_devices, ...]` on the host -> on the devices, a row each."""
    # laid out as the program's own results are, or its second call would compile it again
    return jax.device_put(tree, NamedSharding(layout.local_mesh, PartitionSpec(AXIS)))


def replicate(tree: Any, layout: Layout) -> Any:
    """One copy of every array on each local device, laid out as `compile_program` takes it."""
    return jax.device_put(tree, NamedSharding(layout.local_mesh, PartitionSpec()))


def hand_over(data: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """`replicate` of every set; `data` ends empty, so that the host lets go of what it placed."""
    return {name: replicate(data.pop(name), layout) for name in list(data)}


def collect(tree: Any, layout: Layout) -> Any:
    """The inverse of `spread`: arrays on the devices -> canonical NumPy arrays, on every host."""

    def everywhere(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if jax.process_count() > 1:
            x = np.concatenate(multihost_utils.process_allgather(x))
        return x

    def fetch(x: Any) -> Any:
        if isinstance(x, Own):
            return jax.tree.map(everywhere if layout.axis_name else fetch, x)
        if layout.split != "seeds":
            return np.asarray(x[0])
        x = everywhere(x)
        return x.reshape(-1, *x.shape[2:])[: layout.seeds]

    return jax.tree.map(fetch, tree, is_leaf=is_own)


def own_batches(order: np.ndarray, layout: Layout) -> np.ndarray:
    """This host's share of an epoch's row numbers.

    Args:
        order: `[seeds, steps, batch]` row numbers of whole batches.
        layout: how the run lies on the devices.

    Returns:
        `[local_devices, steps, seeds, rows]`: whole batches of a device's own seeds, or its block
        of every seed's batch.
    """
    seeds, steps, batch = order.shape
    if layout.split == "seeds":
        order = _filled(order, layout)
        blocks = order.reshape(layout.devices, -1, steps, batch).transpose(0, 2, 1, 3)
    else:
        blocks = order.reshape(seeds, steps, layout.devices, -1).transpose(2, 1, 0, 3)
    return blocks[layout.own]


def mean(tree: Any, axis_name: str | None) -> Any:
    """Mean over the shards of a batch; `tree` itself when it is not sharded."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def total(tree: Any, axis_name: str | None) -> Any:
    """Sum over the shards of a batch; `tree` itself when it is not sharded."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def shard_index(axis_name: str | None) -> Any:
    """Number of this shard, 0 when the batch is not sharded."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name)


def shard_count(axis_name: str | None) -> int:
    """How many shards a batch has, inside a mapped function."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def own_rows(x: Any, axis_name: str | None) -> Any:
    """This shard's block of a batch that every shard has drawn whole, from the same key."""
    if axis_name is None:
        return x
    rows = x.shape[0] // shard_count(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, shard_index(axis_name) * rows, rows)


def decided(decide: Callable[[], str]) -> str:
    """What the first process decides, on all of them; all have come so far when any goes on.

    Args:
        decide: called on the first process only.

    Returns:
        Its answer, of up to 4,000 bytes.

    Raises:
        InputError: the first process's, on all of them.
    """
    if jax.process_count() == 1:
        return decide()
    answer, refused = "", False
    if is_main():
        try:
            answer = decide()
        except InputError as error:
            answer, refused = str(error), True
    message = np.zeros(4001, np.uint8)
    words = answer.encode()[:4000]
    message[0], message[1 : 1 + len(words)] = refused, list(words)
    message = np.asarray(multihost_utils.broadcast_one_to_all(message))
    answer = message[1:].tobytes().rstrip(b"\0").decode(errors="replace")
    if message[0]:
        raise InputError(answer)
    return answer


def wait(what: str) -> None:
    """Let all processes reach this point before any goes on."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def memory() -> int:
    """Bytes that one device may hold; on a CPU, the machine's memory among its devices."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def compute_dtype(name: str) -> Any:
    """JAX type of a configured name; `auto` by the kind of device."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
