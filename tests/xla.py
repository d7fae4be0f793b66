"""How the suite's programs are compiled: quickly, unless `CORRKD_TEST_OPTIMIZED=1`.

Three quarters of the suite is XLA compiling tiny programs that then run for a moment, so that no
optimisation of theirs pays. A program that trains for long runs faster under `DEFAULT`, in a
process of its own.
"""

import os
import subprocess
import sys
import tempfile

QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
DEFAULT = ""
"""A user's flags: none."""
DEVICES = "--xla_force_host_platform_device_count=8"
CACHE = "JAX_COMPILATION_CACHE_DIR"


def prepare() -> tempfile.TemporaryDirectory | None:
    """Set this process's variables, which workers and children inherit.

    Returns:
        The session's folder of compiled programs, to be removed at its end; None where the user
        has named one, and in a worker.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return None
    quick = () if os.environ.get("CORRKD_TEST_OPTIMIZED") == "1" else known(QUICK)
    # of a flag that is given twice XLA takes the last: the user's
    flags = (*quick, os.environ.get("XLA_FLAGS", ""), DEVICES)
    os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if flag)
    if CACHE in os.environ:
        return None
    folder = tempfile.TemporaryDirectory(prefix="corrkd-compiled-", ignore_cleanup_errors=True)
    os.environ[CACHE] = folder.name
    return folder


def known(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Those flags that the installed XLA knows; one that it does not know ends the process."""
    # reads the flags as the first use of a device does, in a fifth of its time
    code = "from jaxlib import xla_client; xla_client.CompileOptions()"
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "XLA_FLAGS": flag},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for flag in flags
    ]
    answers = [each.wait() == 0 for each in asked]
    return tuple(flag for flag, answer in zip(flags, answers, strict=True) if answer)


def one_device_flags() -> str:
    """This process's flags without the eight devices."""
    return os.environ["XLA_FLAGS"].replace(DEVICES, "").strip()
