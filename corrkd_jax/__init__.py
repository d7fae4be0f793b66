"""corrkd_jax: robust and de-biased perception and control in JAX, a function at a time."""
