"""Programs: one engine, one module a program (`python -m train.msa`)."""
