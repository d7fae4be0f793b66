"""Brax environments; importing this package registers them with Brax."""
