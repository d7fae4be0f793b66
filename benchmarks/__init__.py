"""Benchmarks: measurements, never assertions about time; `python -m benchmarks.msa` is one."""
