"""Losses: pure functions of arrays, with weights for padding and a named axis for sharding."""

from corrkd_jax.losses.classification import cross_entropy
from corrkd_jax.losses.contrastive import active_negative_fraction, sample_contrastive
from corrkd_jax.losses.distillation import decoupled_kd, kd, target_nontarget_kl
from corrkd_jax.losses.prototype import category_prototype, class_prototypes, cosine_to_prototypes
from corrkd_jax.losses.reduction import reduce
from corrkd_jax.losses.response import (
    jsd_mutual_information,
    response_consistency,
    split_responses,
)

__all__ = [
    "active_negative_fraction",
    "category_prototype",
    "class_prototypes",
    "cosine_to_prototypes",
    "cross_entropy",
    "decoupled_kd",
    "jsd_mutual_information",
    "kd",
    "reduce",
    "response_consistency",
    "sample_contrastive",
    "split_responses",
    "target_nontarget_kl",
]
