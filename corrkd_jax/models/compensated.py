"""Student whose prediction is compensated for the preferences of the substitution data (KDCI)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.causal import Weighting, backdoor_expectation, intervene

SITES = ("logits", "penultimate")
STARTS = ("identity", "zero", "xavier")


class Answer(NamedTuple):
    """Predictions of a compensated student.

    Attributes:
        logits: `[batch, classes]`, compensated (KDCI's S').
        plain: `[batch, classes]`, the student's own logits, which remain when the compensation is
            dropped after training.
        features: `[batch, width]`, penultimate.
    """

    logits: Array
    plain: Array
    features: Array


class Compensated(nn.Module):
    """KDCI as a plug-in (arXiv:2403.19539, reconstructed): `S' = s W_s + F W_z`.

    It wraps a student that is otherwise left as it is. At the site `"penultimate"`, CCIM's,
    features are compensated instead and a classifier of this module reads them; the backbone's own
    is unused. A student trained so must be evaluated with its compensation.

    Attributes:
        backbone: an image classifier of `corrkd_jax.models.backbones`.
        classes: number of classes.
        site: `"logits"` or `"penultimate"`.
        weighting: `"additive"`, the paper's choice, or `"dot"`.
        width: width of queries and keys; the default is CCIM's.
        start: see `Compensation`.
        own_kernel: see `Compensation`.
        renormalize: see `Compensation`.
    """

    backbone: nn.Module
    classes: int
    site: str = "logits"
    weighting: Weighting = "additive"
    width: int = 256
    start: str = "identity"
    own_kernel: bool = False
    renormalize: bool = False

    @nn.compact
    def __call__(
        self,
        images: Array,
        confounders: Array,
        prior: Array,
        strength: ArrayLike = 1.0,
        train: bool = False,
    ) -> Answer:
        """Predictions of the student.

        Args:
            images: `[batch, height, width, channels]`, normalised.
            confounders: `[strata, size]`, the dictionary.
            prior: `[strata]`; all zeros, before there is a dictionary, leave the student alone.
            strength: factor on the expected confounder; 0 leaves the student alone.
            train: update batch norms.

        Returns:
            `Answer`.

        Raises:
            ValueError: the site is unknown, or `Compensation` refuses its attributes.
        """
        if self.site not in SITES:
            raise ValueError(f"site must be one of {SITES}, got {self.site!r}")
        logits, features = self.backbone(images, train)
        at_logits = self.site == "logits"
        compensation = Compensation(
            self.classes if at_logits else features.shape[-1],
            self.weighting,
            self.width,
            self.start,
            self.own_kernel,
            self.renormalize,
            name="compensation",
        )
        if at_logits:
            return Answer(compensation(logits, confounders, prior, strength), logits, features)
        classifier = nn.Dense(self.classes, name="classifier")
        intervened = compensation(features, confounders, prior, strength)
        return Answer(classifier(intervened), classifier(features), features)


class Compensation(nn.Module):
    """Compensated prediction `s W_s + E[z] W_z`, the expectation over a dictionary by attention.

    Attributes:
        outputs: width of the result.
        weighting: `"additive"` or `"dot"`, see `corrkd_jax.causal.backdoor_expectation`; dot
            products are divided by the root of the dictionary's width, as in CCIM.
        width: width of queries and keys.
        start: initialisation of W_z. `"identity"`: an additive prior from the first step on where
            the dictionary is as wide as the result, and a tenth of Xavier's draw where it is not;
            `"zero"`: the student alone at first; `"xavier"`: CCIM's, for W_s as well.
        own_kernel: learn W_s, which starts as the identity; else the prediction stays as it is.
        renormalize: divide the weights by their sum after the prior has been multiplied in. Without
            it they shrink as the dictionary grows.
    """

    outputs: int
    weighting: Weighting = "additive"
    width: int = 256
    start: str = "identity"
    own_kernel: bool = False
    renormalize: bool = False

    @nn.compact
    def __call__(
        self, prediction: Array, confounders: Array, prior: Array, strength: ArrayLike = 1.0
    ) -> Array:
        """Compensated prediction.

        Args:
            prediction: `[batch, width]`, s: the student's logits or features.
            confounders: see `Compensated`.
            prior: see `Compensated`.
            strength: see `Compensated`.

        Returns:
            `[batch, outputs]`.

        Raises:
            ValueError: an attribute is unknown, or without W_s the widths differ.
        """
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {STARTS}, got {self.start!r}")
        wide, size = prediction.shape[-1], confounders.shape[-1]
        if not self.own_kernel and wide != self.outputs:
            raise ValueError(
                f"without own_kernel the result is as wide as the prediction, {wide}, not "
                f"{self.outputs}"
            )
        # data: the keys are made of it too
        confounders = jax.lax.stop_gradient(confounders)
        xavier = nn.initializers.xavier_normal()
        query = prediction @ self.param("query", xavier, (wide, self.width))
        keys = confounders @ self.param("key", xavier, (size, self.width))
        expectation = strength * backdoor_expectation(
            query,
            confounders,
            prior,
            keys=keys,
            weighting=self.weighting,
            vector=self.param("additive", xavier, (self.width, 1))[:, 0],
            scale=size**0.5,
            renormalize=self.renormalize,
            present=prior > 0,
        )
        kernel = None
        if self.own_kernel:
            kernel = self.param("prediction", self._kernel(wide, own=True), (wide, self.outputs))
        confounder_kernel = self.param("confounder", self._kernel(size), (size, self.outputs))
        return intervene(prediction, expectation, kernel, confounder_kernel)

    def _kernel(self, rows: int, own: bool = False) -> nn.initializers.Initializer:
        xavier = nn.initializers.xavier_normal()
        if self.start == "xavier":
            return xavier
        if self.start == "zero" and not own:
            return nn.initializers.zeros
        if rows == self.outputs:
            return lambda key, shape, dtype=jnp.float32: jnp.eye(*shape, dtype=dtype)
        return lambda key, shape, dtype=jnp.float32: 0.1 * xavier(key, shape, dtype)
