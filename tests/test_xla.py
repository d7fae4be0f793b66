"""What the suite's own compilation rests on."""

import os
import subprocess
import sys

from tests import xla


def test_a_flag_that_xla_does_not_know_is_left_out():
    assert xla.known(("--xla_no_such_flag=1", xla.DEVICES)) == (xla.DEVICES,)


def test_a_child_has_one_device_and_this_process_eight():
    code = "import jax; print(jax.device_count())"
    counts = []
    for flags in (os.environ["XLA_FLAGS"], xla.one_device_flags(), xla.DEFAULT):
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        counts.append(int(subprocess.check_output([sys.executable, "-c", code], env=env)))
    assert counts == [8, 1, 1]


def test_half_an_entry_of_the_cache_is_no_entry(tmp_path):
    """As another process sees one that is being written: it compiles, and says so."""
    code = "import jax; print(jax.jit(lambda x: 3 * x)(14))"
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        xla.CACHE: str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run():
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout == "42\n"
        return "Error reading persistent compilation cache entry" in done.stderr

    assert not run()
    entries = list(tmp_path.glob("*-cache"))
    assert entries
    for part in (2, 1 << 40):
        for entry in entries:
            whole = entry.read_bytes()
            entry.write_bytes(whole[: len(whole) // part])
        assert run()
