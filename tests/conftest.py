"""Eight CPU devices for the whole suite, so that every test of sharding has some to shard over."""

import os

# Read when JAX first asks for its devices, which no module does on import.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
