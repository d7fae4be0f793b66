"""Flax modules; one file a network, shared blocks in `transformer`."""
