"""Masks of missing data: modality subsets, frame dropping, and the training law that mixes them.

Every random mask is a function of (key, sample id, modality) alone. It does not change with the
order or the size of a batch, with the number of devices, or with the model that reads it.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
from jax import Array

from corrkd_jax.data.msa import MODALITIES

SUBSETS = tuple(
    tuple(name in kept for name in MODALITIES)
    for size in range(1, len(MODALITIES) + 1)
    for kept in combinations(MODALITIES, size)
)
"""Non-empty subsets of (text, audio, vision), as flags: l, a, v, la, lv, av, lav."""

SUBSET_NAMES = tuple(
    "".join(letter for letter, kept in zip("lav", subset, strict=True) if kept)
    for subset in SUBSETS
)
"""Names of the subsets, by the letters of their modalities."""

_PATTERN, _FRAMES = 0, 1

# By name, never by position: a dictionary that enters a compiled function comes out sorted.
_INDEX = {name: m for m, name in enumerate(MODALITIES)}


def sample_keys(key: Array, ids: Array) -> Array:
    """Random key of each sample, from its id alone.

    Args:
        key: random key.
        ids: `[n, 2]` uint32, of `corrkd_jax.data.dataset.id_hashes`.

    Returns:
        `[n]` keys.
    """

    def of_sample(words: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])

    return jax.vmap(of_sample)(ids)


def _frame_uniforms(keys: Array, valid: dict[str, Array]) -> dict[str, Array]:
    """Uniforms of every frame, each modality from keys of its own, `[n, T_m]`."""

    def of_modality(name: str, frames: int) -> Array:
        own = jax.vmap(lambda key: jax.random.fold_in(key, _FRAMES + _INDEX[name]))(keys)
        return jax.vmap(lambda key: jax.random.uniform(key, (frames,)))(own)

    return {name: of_modality(name, mask.shape[1]) for name, mask in valid.items()}


def subset_masks(valid: dict[str, Array], subset: Array | tuple[bool, ...]) -> dict[str, Array]:
    """Masks that keep whole modalities.

    Args:
        valid: modality -> `[n, T_m]` bool, False on padding.
        subset: `[3]` flags in the order text, audio, vision, or `[n, 3]`; may be traced.

    Returns:
        modality -> `[n, T_m]` bool, True where a frame is real and its modality kept.
    """
    subset = jnp.asarray(subset)
    return {name: mask & subset[..., _INDEX[name], None] for name, mask in valid.items()}


def frame_masks(
    key: Array, ids: Array, valid: dict[str, Array], ratio: float | Array
) -> dict[str, Array]:
    """Masks that drop each frame with probability `ratio`, independently in every modality.

    A frame that is kept at some ratio is kept at every smaller one too, so that curves over the
    ratio compare the same frames.

    Args:
        key: random key of the protocol (not of the model).
        ids: `[n, 2]` uint32 hashes of the sample ids.
        valid: modality -> `[n, T_m]` bool.
        ratio: probability in [0, 1]; 1 drops everything. May be traced.

    Returns:
        modality -> `[n, T_m]` bool, True where a frame is real and kept.
    """
    uniforms = _frame_uniforms(sample_keys(key, ids), valid)
    return {name: valid[name] & (uniforms[name] >= ratio) for name in valid}


def training_masks(key: Array, ids: Array, valid: dict[str, Array]) -> dict[str, Array]:
    """Masks of modality random missing (MRM), with which the student trains.

    For each sample one of the seven non-empty subsets of the modalities is drawn uniformly. Then,
    with probability one half, a ratio from {0.0, 0.1, ..., 0.9} is drawn at which frames of the
    kept modalities drop, independently in each. One kept frame always remains. A sample without a
    frame in any modality of its subset gets the complete set instead. The paper (arXiv:2404.16456)
    names both kinds of missingness, not the law. This one covers every test condition, the complete
    input included.

    Args:
        key: random key, fresh every epoch.
        ids: `[n, 2]` uint32 hashes of the sample ids.
        valid: modality -> `[n, T_m]` bool, False on padding.

    Returns:
        modality -> `[n, T_m]` bool, True where a frame is real and kept.
    """
    keys = sample_keys(key, ids)

    def pattern(key: Array) -> tuple[Array, Array]:
        subset, halves, tenths = jax.random.split(jax.random.fold_in(key, _PATTERN), 3)
        ratio = jax.random.randint(tenths, (), 0, 10) / 10
        return (
            jnp.asarray(SUBSETS)[jax.random.randint(subset, (), 0, len(SUBSETS))],
            jnp.where(jax.random.bernoulli(halves), ratio, 0.0),
        )

    subset, ratio = jax.vmap(pattern)(keys)
    uniforms = _frame_uniforms(keys, valid)
    candidates = subset_masks(valid, subset)
    bare = ~jnp.any(jnp.stack([jnp.any(c, axis=1) for c in candidates.values()]), axis=0)
    candidates = {name: jnp.where(bare[:, None], valid[name], candidates[name]) for name in valid}
    # the frame that would be dropped last; it stays, so that something always does
    rank = {name: jnp.where(candidates[name], uniforms[name], -1.0) for name in valid}
    last = jnp.max(jnp.stack([jnp.max(r, axis=1) for r in rank.values()]), axis=0)
    threshold = jnp.minimum(ratio, last)[:, None]
    return {name: candidates[name] & (uniforms[name] >= threshold) for name in valid}


def drop(inputs: dict[str, Array], keep: dict[str, Array]) -> dict[str, Array]:
    """Inputs with the frames set to zero that are not kept.

    Nothing of a dropped frame passes, NaN included.

    Args:
        inputs: modality -> `[n, T_m, D_m]`.
        keep: modality -> `[n, T_m]` bool.

    Returns:
        modality -> array like the input's.
    """
    return {
        name: jnp.where(keep[name][..., None], x, jnp.zeros((), x.dtype))
        for name, x in inputs.items()
    }
