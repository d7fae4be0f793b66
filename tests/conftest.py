"""Eight CPU devices for the whole suite, so that every test of sharding has some to shard over."""

import gc
import os

import pytest

# Read when JAX first asks for its devices, which no module does on import.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Each compiled program holds memory maps, of which Linux grants a process 65,530.

    The whole suite compiles more than that in one process; LLVM then aborts.
    """
    yield
    import jax

    jax.clear_caches()
    gc.collect()
