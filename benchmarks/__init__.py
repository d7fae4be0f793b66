"""Measurements, never assertions about time; `python -m benchmarks.msa`."""
