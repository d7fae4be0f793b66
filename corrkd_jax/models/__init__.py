"""Flax modules; one file a network, with shared blocks in `transformer`."""
