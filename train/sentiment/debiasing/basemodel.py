"""Base models of sentiment, with or without an intervention, as a stage of the engine."""

from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from configs.debias import PRESET_RATES, RATES, DebiasConfig
from corrkd_jax.errors import InputError
from corrkd_jax.metrics import confusion, weighted_f1
from train.engine import optimizer
from train.engine.stage import Context, Stage, Tree, stacked
from train.sentiment.debiasing import dictionary, memory
from train.sentiment.debiasing.arms import Hyper, arms
from train.sentiment.debiasing.forward import Dictionary, Selected, called, forward, fused
from train.sentiment.debiasing.memory import Memory
from train.sentiment.debiasing.objective import Objective
from train.sentiment.task import Task, predicted_classes


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
    tables: Memory | None


@dataclass(frozen=True)
class BaseStage:
    """Training of a base model: the functions of its stage and what they share.

    Attributes:
        config: of the run.
        preset: for what only a preset knows, MISA's weights.
        task: what the labels mean.
        model: of `train.sentiment.debiasing.models.build_model`.
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
        settings = self.config.optimizer
        last = settings.choose == "last"
        return Stage(
            name="base",
            epochs=settings.epochs,
            data="train",
            batch=settings.batch_size,
            init=self.init,
            step=self.step,
            evaluate=self.evaluate,
            summarize=self.summarize,
            select=self.select,
            refresh=self.refresh if self.strata or self._remembers else None,
            hyper=stacked(arms(self.config, self.strata)),
            validate_every=settings.epochs if last else 1,
        )

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return Objective(self.config.model, self.preset, self.task, self.axis_name)

    @property
    def _remembers(self) -> bool:
        return memory.remembers(self.config.model, self.task)

    @property
    def _factors(self) -> dict[str, float]:
        """Multiples of the learning rate by part of the model."""
        if not self.config.optimizer.grouped:
            return {}
        of_preset = PRESET_RATES.get((self.preset, self.config.model), {})
        return RATES.get(self.config.model, {}) | of_preset

    def init(self, key: Array, batch: Tree, hyper: Hyper, context: Context) -> Training:
        """Fresh parameters; the dictionary and the tables are filled by `refresh`."""
        given, blank = (batch["inputs"], batch["valid"]), None
        if self.strata:
            blank = dictionary.empty(self.config.suci, self.model.base, key, *given, self.strata)
            variables = self.model.init(key, *given, *blank, hyper.mixture)
        else:
            variables = self.model.init(key, *given)
        tx = optimizer.adam(self.config.optimizer.clip_norm, ("network",))
        state = tx.init({"network": variables["params"]})
        return Training(variables, state, jnp.int32(0), hyper, blank, None)

    def refresh(
        self, state: Training, data: Tree, key: Array, context: Context, epoch: Array
    ) -> Training:
        """Build the dictionary from the training split alone; start what a model remembers."""
        train, batch = data["train"], self.config.optimizer.batch_size
        if state.tables is None and self._remembers:
            one = jax.tree.map(lambda x: x[:1], {n: train[n] for n in ("inputs", "valid")})
            shapes = jax.eval_shape(lambda: fused(self.model, state.variables, one))
            tables = memory.begin(self.config.model, shapes, train["labels"][:, 0], batch)
            state = state._replace(tables=tables)
        if not self.strata:
            return state
        given = (self.config.suci, self.model, state.variables, train, batch)
        return state._replace(dictionary=dictionary.build(*given, self.strata, state.hyper))

    def step(self, state: Training, batch: Tree, key: Array) -> tuple[Training, dict[str, Array]]:
        """One step of AdamW on the model's own loss."""
        statistics = {k: v for k, v in state.variables.items() if k != "params"}

        def objective(params: Tree) -> tuple[Array, tuple]:
            given = [batch["inputs"], batch["valid"]]
            if self.strata:
                given += [*state.dictionary, state.hyper.mixture, batch["subject"]]
            (outputs, parts), updates = self.model.apply(
                {"params": params["network"], **statistics},
                *given,
                train=True,
                rngs={"dropout": key},
                mutable=list(statistics),
                method=called,
            )
            if outputs.shape != (len(batch["row"]), self.task.classes):
                raise InputError(
                    f"--model {self.config.model}: gives outputs of shape {outputs.shape}, but "
                    f"{(len(batch['row']), self.task.classes)} is needed: rows and classes"
                )
            number = state.step % self.steps
            terms = self.objective.terms(outputs, parts, batch, state.tables, number)
            return sum(terms.values()), (terms, updates, parts)

        settings = self.config.optimizer
        total = settings.epochs * self.steps
        factor = optimizer.schedule(settings.schedule, state.step, total)
        descent = optimizer.gradient_step(
            objective,
            {"network": state.variables["params"]},
            optimizer.adam(settings.clip_norm, ("network",)),
            state.optimizer,
            state.hyper.learning_rate * factor,
            weight_decay=settings.weight_decay,
            factors=self._factors,
            axis_name=self.axis_name,
        )
        terms, updates, parts = descent.extra
        epoch = state.step // self.steps + 1
        norm = optax.tree.norm(descent.gradients["network"])
        metrics = {**terms, "total": descent.value, "gradient_norm": norm}
        return state._replace(
            variables={"params": descent.params["network"], **updates},
            optimizer=descent.state,
            step=state.step + 1,
            tables=memory.renewed(state.tables, parts, batch, epoch, self.task, self.axis_name),
        ), metrics

    def evaluate(self, state: Training, batch: Tree) -> dict[str, Array]:
        """Confusion counts of the headline classes, and the summed loss."""
        outputs = forward(self.model, self.select(state), batch["inputs"], batch["valid"])
        weights = batch["label_weight"][:, 0] * batch["row"]
        each = self.objective.each(outputs, batch)
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
