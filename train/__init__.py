"""Programs of corrkd_jax: one engine, one module a program (`python -m train.msa`)."""
