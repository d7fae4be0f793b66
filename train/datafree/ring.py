"""A memory of fixed size on the device: image pools and banks of descriptors.

The newest rows take the places of the oldest. A ring is part of a stage's state, so it is saved
and restored with it, and what is drawn next depends on nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Ring(NamedTuple):
    """Rows, and how many were ever written.

    Attributes:
        rows: `[places, ...]`.
        written: scalar int32, of all times; the next row goes to place `written % places`.
    """

    rows: Array
    written: Array

    @property
    def filled(self) -> Array:
        """How many places hold a row."""
        return jnp.minimum(self.written, len(self.rows))


def empty(places: int, row: Sequence[int], dtype: jnp.dtype = jnp.uint8) -> Ring:
    """A ring for rows of shape `row`, without any.

    Raises:
        ValueError: no places.
    """
    if places < 1:
        raise ValueError(f"places must be 1 or more, got {places}")
    return Ring(jnp.zeros((places, *row), dtype), jnp.int32(0))


def push(ring: Ring, rows: Array) -> Ring:
    """The ring with `rows` `[n, ...]` in it, in the places of the oldest once it is full.

    Raises:
        ValueError: more rows than places.
    """
    places, count = len(ring.rows), len(rows)
    if count > places:
        raise ValueError(f"{count} rows do not fit into a ring of {places}")
    at = (ring.written + jnp.arange(count)) % places
    return Ring(ring.rows.at[at].set(rows.astype(ring.rows.dtype)), ring.written + count)


def draw(ring: Ring, key: Array, count: int) -> Array:
    """`count` rows of all that are there, each as likely, with replacement.

    An empty ring gives zeros: write first.
    """
    return ring.rows[jax.random.randint(key, (count,), 0, jnp.maximum(ring.filled, 1))]


def draw_distinct(ring: Ring, key: Array, count: int) -> tuple[Array, Array]:
    """`count` different rows, or as many as there are places.

    Returns:
        Rows, and a weight for each, 0 for those in excess of what the ring holds.
    """
    places = jnp.arange(len(ring.rows))
    lots = jnp.where(places < ring.filled, jax.random.uniform(key, places.shape), -1.0)
    lots, at = jax.lax.top_k(lots, min(count, len(places)))
    return ring.rows[at], (lots >= 0).astype(jnp.float32)


def quantize(images: Array) -> Array:
    """Images in [0, 1] as bytes, cut off and not rounded, as the published code saves its PNGs."""
    return jnp.floor(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)
