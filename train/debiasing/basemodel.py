"""Base models of sentiment, with or without an intervention, as a stage of the engine."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from configs.debias import (
    MISA_WEIGHTS,
    MMIM_WEIGHTS,
    PRESET_RATES,
    RATES,
    SMALL,
    SMALL_SUBJECTS,
    DebiasConfig,
)
from corrkd_jax import losses
from corrkd_jax.causal import random_dictionary, subject_dictionary
from corrkd_jax.errors import InputError
from corrkd_jax.losses.unimodal import FUSION
from corrkd_jax.metrics import confusion, weighted_f1
from corrkd_jax.models.corrkd import CorrKDNetwork
from corrkd_jax.models.deconfounded import Deconfounded, Mixture
from corrkd_jax.models.fusion import Fused
from corrkd_jax.models.lmf import LMF
from corrkd_jax.models.mag import MAG
from corrkd_jax.models.misa import MISA
from corrkd_jax.models.mmim import MMIM, ORDER, SENSES
from corrkd_jax.models.mult import MulT
from corrkd_jax.models.pooled import Pooled
from corrkd_jax.models.self_mm import SelfMM
from corrkd_jax.models.tfn import TFN
from corrkd_jax.models.transformer import masked_mean
from train import optimizer, parallel
from train.protocol import Task, predicted_classes
from train.stage import Context, Stage, Tree, stacked

MODELS: dict[str, type[nn.Module]] = {
    "pooled": Pooled,
    "tfn": TFN,
    "lmf": LMF,
    "mult": MulT,
    "misa": MISA,
    "self_mm": SelfMM,
    "mag": MAG,
    "mmim": MMIM,
    "corrkd": CorrKDNetwork,
}
TITLES = {
    "pooled": "Pooled",
    "tfn": "TFN",
    "lmf": "LMF",
    "mult": "MulT",
    "misa": "MISA",
    "self_mm": "Self-MM",
    "mag": "MAG",
    "mmim": "MMIM",
    "corrkd": "CorrKD's network",
}


class Hyper(NamedTuple):
    """What may differ from arm to arm; traced scalars.

    Attributes:
        rate: learning rate.
        mixture: of weightings; zeros for the base model under the same head.
        random: 1 puts noise of the dictionary's mean and spread in its place (control).
        flat: 1 puts equal shares in the prior's place (ablation).
    """

    rate: Any
    mixture: Mixture = Mixture()
    random: Any = 0.0
    flat: Any = 0.0


OWN = "SuCI, own_subject"
DOT = "SuCI, dot"
RANDOM = "SuCI, dot, random dictionary"


def arms(config: DebiasConfig, strata: int) -> dict[str, Hyper]:
    """Rows of the table: the base model and, for an intervention, its forms and controls.

    Args:
        config: of the run.
        strata: size of the dictionary.
    """
    base = Hyper(config.optimizer.rate)
    rows = {TITLES[config.model]: base}
    if config.debias == "suci":

        def form(**weights: float) -> Hyper:
            return base._replace(mixture=Mixture(**weights))

        rows |= {
            DOT: form(dot=1.0),
            RANDOM: form(dot=1.0)._replace(random=1.0),
            OWN: form(own_subject=1.0),
        }
        if config.ablate:
            rows |= {
                "SuCI, additive": form(additive=1.0),
                "SuCI, no attention": form(uniform=1.0),
                "SuCI, dot, flat prior": form(dot=1.0)._replace(flat=1.0),
                f"SuCI, dot x {strata}": form(dot=float(strata)),
                "SuCI, own_subject, flat prior": form(own_subject=1.0)._replace(flat=1.0),
            }
    return rows


def build_model(config: DebiasConfig, task: Task, axis_name: str | None = None) -> nn.Module:
    """The base model of a configuration, under a new head for an intervention.

    Raises:
        InputError: the task is not for base models, or an attribute is unknown or does not read.
    """
    if len(task.names) > 1:
        raise InputError(
            f"--model {config.model}: the file has {len(task.names)} tasks a sample "
            f"({', '.join(task.names)}); base models have one"
        )
    kind = MODELS[config.model]
    sizes = SMALL_SUBJECTS if config.debias == "suci" else SMALL
    chosen = dict(sizes[config.model]) if config.small else {}
    chosen |= network_options(config.network, kind, config.model)
    known = {f.name for f in fields(kind)}
    chosen["classes" if "classes" in known else "outputs"] = task.classes
    if "axis_name" in known:
        chosen["axis_name"] = axis_name
    model = kind(**chosen)
    if config.debias != "suci":
        return model
    return Deconfounded(
        model,
        _used_weightings(config),
        config.suci.width,
        config.suci.key_width,
        config.suci.scale,
        config.suci.renormalize,
    )


def _used_weightings(config: DebiasConfig) -> tuple[str, ...]:
    mixtures = [hyper.mixture for hyper in arms(config, 2).values()]
    return tuple(n for n in Mixture._fields if any(getattr(m, n) for m in mixtures))


def network_options(options: Sequence[str], kind: type, model: str) -> dict[str, Any]:
    """`NAME=VALUE` options as attributes of a base model.

    Raises:
        InputError: no such attribute, or a value of another type.
    """
    defaults = {
        f.name: f.default
        for f in fields(kind)
        if isinstance(f.default, int | float | str | tuple) and f.name not in ("name", "parent")
    }
    for reserved in ("outputs", "classes", "tasks"):
        defaults.pop(reserved, None)
    chosen = {}
    for option in options:
        name, _, text = option.partition("=")
        if name not in defaults:
            raise InputError(
                f"--network {option}: {model} has no {name!r}; it has {', '.join(defaults)}"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        default = defaults[name]
        if isinstance(default, tuple) and isinstance(value, int):
            value = (value,)
        if isinstance(default, float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(default):
            raise InputError(
                f"--network {option}: {name} is a {type(default).__name__} such as {default!r}"
            )
        chosen[name] = value
    return chosen


class Dictionary(NamedTuple):
    """Confounders of one model; data, not parameters.

    Attributes:
        confounders: `[strata, size]`.
        prior: `[strata]`.
    """

    confounders: Array
    prior: Array


class Training(NamedTuple):
    """State of a base model under training.

    Attributes:
        variables: `params`, and `batch_stats` where the model has them.
        optimizer: Adam's state.
        step: steps taken.
        hyper: of the arm.
        dictionary: None without an intervention.
        tables: what Self-MM remembers of every training sample, and MMIM of the batch before;
            None elsewhere.
    """

    variables: Tree
    optimizer: Tree
    step: Array
    hyper: Hyper
    dictionary: Dictionary | None
    tables: losses.UnimodalTables | losses.ClassMemory | None


class Selected(NamedTuple):
    """What is kept of an epoch: all that inference needs."""

    variables: Tree
    dictionary: Dictionary | None
    mixture: Mixture


def forward(
    model: nn.Module, chosen: Selected, inputs: Tree, valid: Tree, embedded: bool = False
) -> Array:
    """Logits or score `[batch, outputs]` at inference.

    Args:
        model: of `build_model`.
        chosen: its selected state.
        inputs: modality -> `[batch, time, features]`, raw or as `embed` gives them.
        valid: modality -> `[batch, time]` bool.
        embedded: the inputs are embedded already.
    """

    def call(module: nn.Module) -> Array:
        fused = module.fuse(inputs if embedded else module.embed(inputs), valid)
        if isinstance(module, Deconfounded):
            return module.intervention(fused.features, *chosen.dictionary, chosen.mixture)
        return module.head(fused.features)

    return nn.apply(call, model)(chosen.variables)


def _called(
    module: nn.Module, inputs: Tree, valid: Tree, *confounders: Any, train: bool
) -> tuple[Array, Fused]:
    """Outputs and what they are made of, through the methods of the contract alone."""
    if isinstance(module, Deconfounded):
        return module(inputs, valid, *confounders, train=train)
    fused = module.fuse(module.embed(inputs, train), valid, train)
    return module.head(fused.features, train), fused


@dataclass(frozen=True)
class BaseStage:
    """Training of a base model: the functions of its stage and what they share.

    Attributes:
        config: of the run.
        preset: for what only a preset knows, MISA's weights.
        task: what the labels mean.
        model: of `build_model`.
        strata: size of the dictionary, 0 without an intervention.
        steps: an epoch.
        axis_name: mapped axis over which batches are sharded, or None.
    """

    config: DebiasConfig
    preset: str
    task: Task
    model: nn.Module
    strata: int
    steps: int
    axis_name: str | None

    def stage(self) -> Stage:
        """The stage that the engine trains."""
        chosen = self.config.optimizer
        last = chosen.choose == "last"
        return Stage(
            name="base",
            epochs=chosen.epochs,
            data="train",
            batch=chosen.batch,
            init=self.init,
            step=self.step,
            evaluate=self.evaluate,
            summarize=self.summarize,
            select=self.select,
            refresh=self.refresh if self.strata or self._has_tables or self._has_memory else None,
            hyper=stacked(arms(self.config, self.strata)),
            validate_every=chosen.epochs if last else 1,
        )

    @property
    def _has_tables(self) -> bool:
        return self.config.model == "self_mm" and self.task.mode == "score"

    @property
    def _has_memory(self) -> bool:
        return self.config.model == "mmim"

    @property
    def _factors(self) -> dict[str, float]:
        """Multiples of the learning rate by part of the model."""
        if not self.config.optimizer.grouped:
            return {}
        own = PRESET_RATES.get((self.preset, self.config.model), {})
        return RATES.get(self.config.model, {}) | own

    def init(self, key: Array, batch: Tree, hyper: Hyper, context: Context) -> Training:
        """Fresh parameters; the dictionary and the tables are filled by `refresh`."""
        dictionary = None
        if self.strata:
            base = self.model.base
            given = (batch["inputs"], batch["valid"])
            shapes = jax.eval_shape(lambda: _fused_after_init(base, key, *given))
            size = shapes.shape[-1]
            if self.config.suci.dictionary == "features":
                size = sum(x.shape[-1] for x in batch["inputs"].values())
            dictionary = Dictionary(jnp.zeros((self.strata, size)), jnp.zeros(self.strata))
            variables = self.model.init(key, *given, *dictionary, hyper.mixture)
        else:
            variables = self.model.init(key, batch["inputs"], batch["valid"])
        tx = optimizer.adam(self.config.optimizer.clip, ("network",))
        state = tx.init({"network": variables["params"]})
        return Training(variables, state, jnp.int32(0), hyper, dictionary, None)

    def refresh(
        self, state: Training, data: Tree, key: Array, context: Context, epoch: Array
    ) -> Training:
        """Build the dictionary from the training split alone; start what a model remembers."""
        train = data["train"]
        if state.tables is None and (self._has_tables or self._has_memory):
            fused = jax.eval_shape(lambda: _fused(self.model, state.variables, train, slice(0, 1)))
            if self._has_tables:
                widths = {name: x.shape[-1] for name, x in self._branches(fused).items()}
                tables = losses.init_tables(train["labels"][:, 0], widths)
            else:
                widths = {name: x.shape[-1] for name, x in _projected(fused).items()}
                tables = losses.empty_memory(widths, self.config.optimizer.batch)
            state = state._replace(tables=tables)
        if not self.strata:
            return state
        if self.config.suci.dictionary == "features":
            features = mean_features(train)
        else:
            features = _all_fused(self.model, state.variables, train, self.config.optimizer.batch)
        confounders, prior = subject_dictionary(features, train["subject"], self.strata)
        noise = random_dictionary(jax.random.key(0), confounders)
        flat = jnp.full(prior.shape, 1.0 / self.strata)
        hyper = state.hyper
        return state._replace(
            dictionary=Dictionary(
                jnp.where(hyper.random > 0, noise, confounders),
                jnp.where(hyper.flat > 0, flat, prior),
            )
        )

    def step(self, state: Training, batch: Tree, key: Array) -> tuple[Training, dict[str, Array]]:
        """One step of AdamW on the model's own loss."""
        statistics = {k: v for k, v in state.variables.items() if k != "params"}

        def objective(params: Tree) -> tuple[Array, tuple]:
            given = [batch["inputs"], batch["valid"]]
            if self.strata:
                given += [*state.dictionary, state.hyper.mixture, batch["subject"]]
            (outputs, fused), updates = self.model.apply(
                {"params": params["network"], **statistics},
                *given,
                train=True,
                rngs={"dropout": key},
                mutable=list(statistics),
                method=_called,
            )
            if outputs.shape != (len(batch["row"]), self.task.classes):
                raise InputError(
                    f"--model {self.config.model}: gives outputs of shape {outputs.shape}, but "
                    f"{(len(batch['row']), self.task.classes)} is needed: rows and classes"
                )
            terms = self._terms(outputs, fused, batch, state)
            return sum(terms.values()), (terms, updates, fused)

        params = {"network": state.variables["params"]}
        (value, (terms, updates, fused)), gradients = jax.value_and_grad(objective, has_aux=True)(
            params
        )
        gradients = parallel.mean(gradients, self.axis_name)
        chosen = self.config.optimizer
        tx = optimizer.adam(chosen.clip, ("network",))
        direction, tx_state = tx.update(gradients, state.optimizer, params)
        total = chosen.epochs * self.steps
        rate = state.hyper.rate * optimizer.schedule(chosen.schedule, state.step, total)
        params = optimizer.descend(params, direction, rate, chosen.decay, self._factors)
        tables = state.tables
        if self._has_tables:
            tables = losses.update_tables(
                tables,
                batch["index"],
                self._branches(fused),
                state.step // self.steps + 1,
                limit=3.0,
                weights=batch["row"],
                axis_name=self.axis_name,
            )
        if self._has_memory:
            tables = losses.remember(_projected(fused), self._sign(batch), axis_name=self.axis_name)
        metrics = {**terms, "total": value, "gradient_norm": optax.tree.norm(gradients["network"])}
        variables = {"params": params["network"], **updates}
        return state._replace(
            variables=variables, optimizer=tx_state, step=state.step + 1, tables=tables
        ), metrics

    def _branches(self, fused: Fused) -> dict[str, Array]:
        """Features that Self-MM's tables remember."""
        names = ("text", "audio", "vision")
        return {FUSION: fused.features, **{name: fused.parts[name] for name in names}}

    def _sign(self, batch: Tree) -> Array:
        """1 for rows of positive labels, -1 of negative ones, 0 between and for rows of none."""
        labels = batch["labels"][:, 0]
        if self.task.mode != "score":
            labels = 2 * labels - (self.task.classes - 1)
        counts = batch["label_weight"][:, 0] * batch["row"] > 0
        return jnp.where(counts, jnp.sign(labels), 0)

    def _terms(
        self, outputs: Array, fused: Fused, batch: Tree, state: Training
    ) -> dict[str, Array]:
        """Terms of the loss, each over the whole batch, already weighted."""
        weights = batch["label_weight"][:, 0] * batch["row"]
        shared = {"weights": weights, "axis_name": self.axis_name}
        if self._has_tables:
            names = ("text", "audio", "vision")
            predictions = {name: fused.parts[f"predicted_{name}"] for name in names}
            labels = {name: t[batch["index"]] for name, t in state.tables.labels.items()}
            return {"task": losses.multitask_l1({FUSION: outputs, **predictions}, labels, **shared)}
        terms = {"task": losses.reduce(self._each(outputs, batch), **shared)}
        if self.config.model == "misa":
            parts = (fused.parts[n] for n in ("projected", "private", "shared", "reconstructed"))
            found = losses.subspace_terms(*parts, **shared)
            scale = MISA_WEIGHTS.get(self.preset, (0.1, 0.3, 1.0))
            names = ("difference", "similarity", "reconstruction")
            terms |= {n: s * x for n, s, x in zip(names, scale, found, strict=True)}
        if self.config.model == "mmim":
            terms |= self._bounds(fused.parts, self._sign(batch), state, shared)
        return terms

    def _bounds(
        self, parts: dict[str, Array], sign: Array, state: Training, shared: dict[str, Any]
    ) -> dict[str, Array]:
        """MMIM's terms; MMSA counts the entropy from an epoch's third batch on."""
        alpha, beta = MMIM_WEIGHTS
        contrast = sum(
            losses.predictive_contrast(parts[name], parts[f"predicted_{name}"], **shared)
            for name in ORDER
        )
        likelihood, entropy = 0.0, 0.0
        for name in SENSES:
            given = (parts[f"mean_{name}"], parts[f"log_variance_{name}"], parts[name])
            likelihood += losses.gaussian_likelihood(*given, **shared)
            entropy += losses.class_entropy(
                parts[f"projected_{name}"],
                sign,
                state.tables.projected[name],
                state.tables.sign,
                axis_name=self.axis_name,
            )
        begun = state.step % self.steps > 1
        return {
            "contrast": alpha * contrast,
            "likelihood": -beta * likelihood,
            "entropy": -beta * jnp.where(begun, entropy, 0.0),
        }

    def _each(self, outputs: Array, batch: Tree) -> Array:
        """Loss of every row, `[batch]`: absolute error (MISA's: squared) or cross-entropy."""
        labels = batch["labels"][:, 0]
        if self.task.mode == "score":
            error = outputs[:, 0] - labels
            return error**2 if self.config.model == "misa" else jnp.abs(error)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def evaluate(self, state: Training, batch: Tree) -> dict[str, Array]:
        """Confusion counts of the headline classes, and the summed loss."""
        outputs = forward(self.model, self.select(state), batch["inputs"], batch["valid"])
        weights = batch["label_weight"][:, 0] * batch["row"]
        each = self._each(outputs, batch)
        predicted = predicted_classes(outputs, self.task.mode)
        target_weights = batch["target_weight"][:, 0] * batch["row"]
        return {
            "confusion": confusion(
                batch["target"][:, 0], predicted, self.task.metric_classes, target_weights
            ),
            "loss": jnp.sum(jnp.where(weights > 0, weights * each, 0.0)),
            "rows": jnp.sum(weights),
        }

    def summarize(self, sums: dict[str, Array]) -> dict[str, Array]:
        """Validation loss, by which the epoch is chosen, and weighted F1."""
        loss = sums["loss"] / jnp.maximum(sums["rows"], 1.0)
        return {"score": -loss, "loss": loss, "f1": weighted_f1(sums["confusion"])}

    def select(self, state: Training) -> Selected:
        """What inference needs."""
        return Selected(state.variables, state.dictionary, state.hyper.mixture)


def mean_features(rows: Tree) -> Array:
    """Means over the valid frames of all modalities side by side, `[n, features]`."""
    means = [masked_mean(rows["inputs"][m], v) for m, v in sorted(rows["valid"].items())]
    return jnp.concatenate(means, axis=-1)


def _projected(fused: Fused) -> dict[str, Array]:
    """What MMIM remembers of a batch."""
    return {name: fused.parts[f"projected_{name}"] for name in SENSES}


def _fused_after_init(base: nn.Module, key: Array, inputs: Tree, valid: Tree) -> Array:
    variables = base.init(key, inputs, valid)
    return nn.apply(lambda m: m.fuse(m.embed(inputs), valid), base)(variables).features


def _fused(model: nn.Module, variables: Tree, rows: Tree, index: Any) -> Fused:
    """Fused features of some rows, at inference."""
    inputs, valid = (jax.tree.map(lambda x: x[index], rows[name]) for name in ("inputs", "valid"))
    return nn.apply(lambda m: m.fuse(m.embed(inputs), valid), model)(variables)


def _all_fused(model: nn.Module, variables: Tree, rows: Tree, block: int) -> Array:
    """Fused features of a whole split, `[n, width]`, a block at a time."""
    count = rows["row"].shape[0]
    block = min(block, count)
    blocks = -(-count // block)
    position = jnp.minimum(jnp.arange(blocks * block), count - 1).reshape(blocks, block)
    features = lax.map(lambda index: _fused(model, variables, rows, index).features, position)
    return features.reshape(blocks * block, -1)[:count]
