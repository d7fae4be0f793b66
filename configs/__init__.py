"""What a run of corrkd_jax is: frozen dataclasses with named presets, no behaviour."""
