"""Robust and de-biased perception and control in JAX: functions that can be imported one by one."""
