"""Losses: pure functions of arrays, with weights for padding and a named axis for sharding."""

from corrkd_jax.losses.classification import cross_entropy
from corrkd_jax.losses.contrastive import active_negative_fraction, sample_contrastive
from corrkd_jax.losses.distillation import decoupled_kd, kd, target_nontarget_kl
from corrkd_jax.losses.infomax import (
    ClassMemory,
    class_entropy,
    empty_memory,
    gaussian_likelihood,
    predictive_contrast,
    remember,
)
from corrkd_jax.losses.prototype import category_prototype, class_prototypes, cosine_to_prototypes
from corrkd_jax.losses.reduction import reduce
from corrkd_jax.losses.response import (
    jsd_mutual_information,
    response_consistency,
    split_responses,
)
from corrkd_jax.losses.subspaces import (
    SubspaceTerms,
    central_moment_discrepancy,
    difference,
    reconstruction,
    subspace_terms,
)
from corrkd_jax.losses.unimodal import (
    UnimodalTables,
    class_centers,
    init_tables,
    multitask_l1,
    relative_distance,
    shifted_labels,
    update_tables,
)

__all__ = [
    "ClassMemory",
    "SubspaceTerms",
    "UnimodalTables",
    "active_negative_fraction",
    "category_prototype",
    "central_moment_discrepancy",
    "class_centers",
    "class_entropy",
    "class_prototypes",
    "cosine_to_prototypes",
    "cross_entropy",
    "decoupled_kd",
    "difference",
    "empty_memory",
    "gaussian_likelihood",
    "init_tables",
    "jsd_mutual_information",
    "kd",
    "multitask_l1",
    "predictive_contrast",
    "reconstruction",
    "reduce",
    "relative_distance",
    "remember",
    "response_consistency",
    "sample_contrastive",
    "shifted_labels",
    "split_responses",
    "subspace_terms",
    "target_nontarget_kl",
    "update_tables",
]
