"""De-biasing by intervention and by counterfactuals: pure functions of arrays.

Intervention replaces `P(Y|X)` by `P(Y|do(X))`, an expectation over a dictionary of confounders.
Counterfactual inference subtracts from a model's output what its bias alone would have given. Every
function takes anything that NumPy can read, so that outputs of another framework need no
conversion.
"""

from corrkd_jax.causal.counterfactual import (
    Found,
    beam_search,
    best_point,
    grid_scores,
    grid_search,
    purify,
    replace_tokens,
    stand_in,
)
from corrkd_jax.causal.dictionary import (
    Components,
    kmeans,
    pca,
    prototype_dictionary,
    random_dictionary,
    subject_dictionary,
)
from corrkd_jax.causal.intervention import (
    Weighting,
    backdoor_expectation,
    backdoor_probabilities,
    geometric_probabilities,
    intervene,
)

__all__ = [
    "Components",
    "Found",
    "Weighting",
    "backdoor_expectation",
    "backdoor_probabilities",
    "beam_search",
    "best_point",
    "geometric_probabilities",
    "grid_scores",
    "grid_search",
    "intervene",
    "kmeans",
    "pca",
    "prototype_dictionary",
    "purify",
    "random_dictionary",
    "replace_tokens",
    "stand_in",
    "subject_dictionary",
]
