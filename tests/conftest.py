"""Eight CPU devices, quick compilation and one cache of compiled programs for the whole suite."""

import gc
import os
import sys

import pytest

from tests import budget, xla

# Before any test module, worker or child: JAX reads the cache's folder when it is imported, and
# the flags when it first asks for its devices, which no module does on import.
# Workers share the folder. JAX does not write an entry atomically, so one process may read what
# another has half written, or what a killed one left. An entry is compressed as a whole and a part
# of it cannot be unpacked; JAX then warns, and compiles as if there were none.
_compiled = xla.prepare()


def pytest_configure(config) -> None:
    budget.configure(config)
    missing = [flag for flag in xla.QUICK if flag not in os.environ["XLA_FLAGS"]]
    if missing and os.environ.get("CORRKD_TEST_OPTIMIZED") != "1":
        text = f"this jaxlib does not know {' '.join(missing)}: the suite takes longer"
        config.issue_config_time_warning(pytest.PytestWarning(text), stacklevel=2)


def pytest_collection_modifyitems(items) -> None:
    budget.longest_first(items)


def pytest_collection_finish() -> None:
    """Leave what is imported out of the garbage that is looked for after every module."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    if _compiled:
        _compiled.cleanup()


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Each compiled program holds memory maps, of which Linux grants a process 65,530.

    The whole suite compiles more than that in one process; LLVM then aborts.
    """
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
        gc.collect()
