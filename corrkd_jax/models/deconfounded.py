"""Base model whose head reads its fused feature with the expected confounder added to it."""

from typing import NamedTuple

import flax.linen as nn
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.causal import backdoor_expectation, intervene
from corrkd_jax.models.fusion import Fused, Inputs


class Mixture(NamedTuple):
    """Share of each weighting of the dictionary; traced scalars, so that arms may differ.

    Attributes:
        dot: share of dot-product attention, the paper's letter.
        additive: share of additive attention.
        uniform: share of equal weights.
        own_subject: share of a sample's own stratum in training and the prior afterwards.
    """

    dot: ArrayLike = 0.0
    additive: ArrayLike = 0.0
    uniform: ArrayLike = 0.0
    own_subject: ArrayLike = 0.0


class Deconfounded(nn.Module):
    """SuCI as a plug-in (arXiv:2403.05025, reconstructed): `W_h h + W_g E[s]`, then a linear head.

    It takes the place of the base model's head and leaves the rest as it is. With a mixture of
    zeros it is the base model under a head of the same size, the arm to compare with.

    Attributes:
        base: any model with the interface of `corrkd_jax.models.fusion`; its own head is unused.
        weightings: forms of `Mixture` that some arm uses; others are not computed.
        width: width of the intervened feature.
        key_width: width of queries and keys.
        scale: `"key"` divides dot products by the root of `key_width`, `"dictionary"` by that of
            the dictionary's width, as CCIM's code does.
        renormalize: divide the weights by their sum after the prior has been multiplied in.
    """

    base: nn.Module
    weightings: tuple[str, ...] = ("dot",)
    width: int = 128
    key_width: int = 256
    scale: str = "key"
    renormalize: bool = False

    def setup(self) -> None:
        """Build the head; the base model is an attribute already."""
        self.intervention = InterventionHead(
            self.base.outputs,
            self.weightings,
            self.width,
            self.key_width,
            self.scale,
            self.renormalize,
        )

    def embed(self, inputs: Inputs, train: bool = False) -> Inputs:
        """Embedded inputs of the base model.

        Args:
            inputs: see `corrkd_jax.models.fusion.BaseModel.embed`.
            train: likewise.

        Returns:
            Modality -> `[batch, time, features]`.
        """
        return self.base.embed(inputs, train)

    def fuse(self, embedded: Inputs, valid: Inputs, train: bool = False) -> Fused:
        """Fused feature of the base model.

        Args:
            embedded: see `corrkd_jax.models.fusion.BaseModel.fuse`.
            valid: likewise.
            train: likewise.

        Returns:
            `Fused`.
        """
        return self.base.fuse(embedded, valid, train)

    def __call__(
        self,
        inputs: Inputs,
        valid: Inputs,
        confounders: Array,
        prior: Array,
        mixture: Mixture,
        strata: Array | None = None,
        train: bool = False,
    ) -> tuple[Array, Fused]:
        """Logits or score, and the base model's fused feature.

        Args:
            inputs: modality -> `[batch, time, features]`.
            valid: modality -> `[batch, time]` bool, False on padding.
            confounders: see `InterventionHead`.
            prior: see `InterventionHead`.
            mixture: see `InterventionHead`.
            strata: see `InterventionHead`.
            train: dropout and batch statistics of the base model on.

        Returns:
            `[batch, outputs]` float32, and `Fused`.
        """
        fused = self.fuse(self.embed(inputs, train), valid, train)
        return self.intervention(fused.features, confounders, prior, mixture, strata), fused


class InterventionHead(nn.Module):
    """Head that `Deconfounded` puts in place of the base model's.

    Attributes:
        outputs: 1 for a score, else the number of classes.
        weightings: see `Deconfounded`.
        width: see `Deconfounded`.
        key_width: see `Deconfounded`.
        scale: see `Deconfounded`.
        renormalize: see `Deconfounded`.
    """

    outputs: int
    weightings: tuple[str, ...]
    width: int
    key_width: int
    scale: str
    renormalize: bool

    @nn.compact
    def __call__(
        self,
        features: Array,
        confounders: Array,
        prior: Array,
        mixture: Mixture,
        strata: Array | None = None,
    ) -> Array:
        """Logits or score of intervened features.

        Args:
            features: `[batch, width]` of the base model.
            confounders: `[strata, size]`, the dictionary.
            prior: `[strata]`, summing to one.
            mixture: share of each weighting.
            strata: `[batch]` integers, each sample's own stratum; only in training.

        Returns:
            `[batch, outputs]` float32.
        """
        xavier = nn.initializers.xavier_normal()

        def kernel(name: str, rows: int, columns: int) -> Array:
            return self.param(name, xavier, (rows, columns))

        wide, size = features.shape[-1], confounders.shape[-1]
        query = features @ kernel("query", wide, self.key_width)
        keys = confounders @ kernel("key", size, self.key_width)
        vector = kernel("additive", self.key_width, 1)[:, 0]
        scale = None if self.scale == "key" else size**0.5
        expectation = 0.0
        for name in self.weightings:
            expectation = expectation + getattr(mixture, name) * backdoor_expectation(
                query,
                confounders,
                prior,
                keys=keys,
                weighting=name,
                vector=vector if name == "additive" else None,
                strata=strata if name == "own_subject" else None,
                scale=scale,
                renormalize=self.renormalize,
            )
        hidden = intervene(
            features,
            expectation,
            kernel("feature", wide, self.width),
            kernel("confounder", size, self.width),
        )
        return nn.Dense(self.outputs, name="out")(hidden)
