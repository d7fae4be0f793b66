"""Data-free distillation as a stage: a student learns from what its host makes, compensated."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from configs.dfkd import DfkdConfig
from corrkd_jax.models.compensated import Answer
from train.datafree import ring
from train.datafree.arms import Hyper, arms
from train.datafree.hosts.host import Host, Shown, latents, shard_latents, total
from train.datafree.hosts.networks import Dictionary, Networks, View
from train.datafree.survey import Examples, build_dictionary, take_survey
from train.engine import optimizer, parallel
from train.engine.stage import Context, Stage, Tree, stacked
from train.images.views import crop_and_flip

EXTRA_RATE = 1e-3
"""Adam's learning rate of what a host trains beside the student (DFND's noise)."""

SHOWN_EPOCHS, SHOWN_SIDE, SHOWN_COLUMNS, SHOWN_LINES = 20, 64, 16, 10
"""Of the pictures: most epochs, most pixels along a side, images a line, least lines in all."""


class Distilling(NamedTuple):
    """State of a data-free distillation.

    Attributes:
        variables: `params` of the student and its compensation, and `batch_stats`.
        extra: parameters of the host's student loss.
        optimizer: of both.
        step: student steps taken.
        hyper: of the arm.
        dictionary: of confounders.
        histogram: `[classes]`, shares of the teacher's classes among the substitution data.
        host: the host's state.
        pool: images that are kept, or None.
        losses: terms of the host's last call.
        pictures: `[epochs, n, height, width, channels]` uint8, some images of `shown_epochs`.
    """

    variables: Tree
    extra: Tree
    optimizer: Tree
    step: Array
    hyper: Hyper
    dictionary: Dictionary
    histogram: Array
    host: Tree
    pool: ring.Ring | None
    losses: dict[str, Array]
    pictures: Array


class Selected(NamedTuple):
    """All that inference needs."""

    variables: Tree
    dictionary: Dictionary
    strength: Any


@dataclass(frozen=True)
class DistillStage:
    """The functions of the stage and what they share.

    Attributes:
        config: of the run.
        networks: teacher, student, generator.
        host: where images come from.
        prototypes: size of the dictionary.
        steps: student steps an epoch.
        places: for images that are kept.
        white: value of a pixel of the test images that means 1.0.
    """

    config: DfkdConfig
    networks: Networks
    host: Host
    prototypes: int
    steps: int
    places: int
    white: float = 255.0

    def stage(self) -> Stage:
        """The stage that the engine trains."""
        settings = self.config.optimizer
        return Stage(
            name="student",
            epochs=settings.epochs,
            data="pool" if self.config.method.passes_over_pool else "steps",
            batch=settings.batch_size,
            init=self.init,
            prepare=self.prepare,
            step=self.step,
            evaluate=self.evaluate,
            summarize=self.summarize,
            select=self.select,
            refresh=self.refresh,
            # a sample of the pool serves for the dictionary
            refresh_needs_all=False,
            hyper=stacked(arms(self.config, self.prototypes)),
        )

    @property
    def pooled(self) -> bool:
        """Whether images are kept."""
        return self.config.method.keeps_images

    @property
    def shown_epochs(self) -> np.ndarray:
        """Epochs, from 1, of which the report shows images.

        The first, the last, and evenly between; of kept images those that begin with a call.
        """
        count = self._calls if self.pooled else self.config.optimizer.epochs
        return np.unique(np.linspace(1, count, min(count, SHOWN_EPOCHS)).round().astype(int))

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Of `Distilling.pictures`: of few epochs several lines each, no more than are made."""
        networks, epochs = self.networks, len(self.shown_epochs)
        most = self.config.synthesis.batch_size or self.config.optimizer.batch_size
        most = self.places if self.config.method.selects_images else most
        count = min(SHOWN_COLUMNS * max(SHOWN_LINES // epochs, 1), most)
        side = min(networks.side, SHOWN_SIDE)
        return epochs, count, side, side, networks.channels

    @property
    def _calls(self) -> int:
        epochs = self.config.optimizer.epochs
        return min(self.config.synthesis.calls or epochs, epochs)

    def init(self, key: Array, batch: Tree, hyper: Hyper, context: Context) -> Distilling:
        """A fresh student, no images, no dictionary."""
        networks = self.networks
        host_key, student_key = jax.random.split(key)
        image = jnp.zeros((2, networks.side, networks.side, networks.channels))
        teacher = context["teacher"]
        size = self._size(teacher)
        empty = jnp.zeros((self.prototypes, size)), jnp.zeros(self.prototypes)
        variables = networks.student.init(student_key, image, *empty)
        extra = self.host.extra(networks.classes)
        pool = None
        if self.pooled:
            shape = (networks.side, networks.side, networks.channels)
            pool = ring.empty(self.places, shape)
        return Distilling(
            variables=variables,
            extra=extra,
            optimizer=(self._tx().init(variables["params"]), optax.scale_by_adam().init(extra)),
            step=jnp.int32(0),
            hyper=hyper,
            dictionary=Dictionary(*empty, jnp.int32(-1)),
            histogram=jnp.zeros(networks.classes),
            host=self.host.init(host_key, teacher),
            pool=pool,
            losses={name: jnp.zeros(()) for name in self.host.losses},
            pictures=jnp.zeros(self.picture_shape, jnp.uint8),
        )

    def prepare(self, batch: Tree, key: Array, context: Context) -> Tree:
        """The teacher, and a key that all shards of a batch share."""
        return {**batch, "teacher": context["teacher"], "key": jax.random.key_data(key)}

    def refresh(
        self, state: Distilling, data: Tree, key: Array, context: Context, epoch: Array
    ) -> Distilling:
        """Call for images where they are kept, keep some to be shown of the others.

        The dictionary is built when it is due.
        """
        call_key, survey_key, build_key = jax.random.split(key, 3)
        config = self.config
        view = self.view(state, context["teacher"])
        if self.pooled:
            state = lax.cond(
                epoch < self._calls,
                lambda: self._call(state, view, call_key, data, epoch),
                lambda: state,
            )
        else:
            # the same latents every time, so that a column shows what becomes of them
            same = latents(jax.random.key(0), self.picture_shape[1], self.networks)
            images = self.networks.to_bytes(self.host.draw(state.host, same))
            state = self._pictured(state, images, epoch)
        kdci, epochs = config.compensation, config.optimizer.epochs
        since = epoch - kdci.first
        due = (since % kdci.every == 0) if kdci.every else (since == 0)
        due &= (since >= 0) & (epoch < epochs)

        examples = Examples(self.host, state.host, state.pool, data.get("pool"))

        def surveyed() -> Distilling:
            survey = take_survey(view, survey_key, examples)
            first = epoch <= kdci.first
            new = build_dictionary(
                build_key, survey, state.dictionary, state.hyper, kdci, first, state.step
            )
            dictionary = jax.tree.map(lambda a, b: jnp.where(due, a, b), new, state.dictionary)
            return state._replace(dictionary=dictionary, histogram=survey.histogram)

        return lax.cond(due | (epoch == epochs), surveyed, lambda: state)

    def _call(
        self, state: Distilling, view: View, key: Array, data: Tree, epoch: Array
    ) -> Distilling:
        host, images, losses = self.host.call(state.host, view, key, data)
        state = self._pictured(state, images, epoch + 1)
        return state._replace(host=host, pool=ring.push(state.pool, images), losses=losses)

    def _pictured(self, state: Distilling, images: Array, epoch: Array) -> Distilling:
        """Some of an epoch's images kept to be shown, evenly from first to last, made smaller."""
        shape = self.picture_shape[1:]
        rows = np.linspace(0, len(images) - 1, shape[0]).round().astype(int)
        small = jax.image.resize(images[rows].astype(jnp.float32), shape, "linear")
        epochs = self.shown_epochs
        place = jnp.min(jnp.where(epochs == epoch, np.arange(len(epochs)), len(epochs)))
        new = jnp.round(small).astype(jnp.uint8)
        # past the end where the epoch is not shown
        return state._replace(pictures=state.pictures.at[place].set(new, mode="drop"))

    def view(self, state: Distilling, teacher: Tree) -> View:
        """What the host may ask."""
        return View(
            self.config,
            self.networks,
            teacher,
            state.variables,
            state.dictionary,
            self.strength(state),
            state.hyper.skew,
        )

    def strength(self, state: Distilling) -> Array:
        """Factor on the expected confounder at this step: the arm's, along the ramp."""
        ramp = self.config.compensation.ramp * self.steps
        since = state.dictionary.since
        risen = jnp.clip((state.step - since + 1) / max(ramp, 1), 0.0, 1.0)
        return state.hyper.strength * jnp.where(since >= 0, risen if ramp else 1.0, 0.0)

    def step(self, state: Distilling, batch: Tree, key: Array) -> tuple[Distilling, dict]:
        """One step on kept images, or a turn of the generator and the student's steps after it.

        The engine's key differs from shard to shard; what is drawn here comes from the one of
        `prepare`, so that the numbers do not depend on the devices.
        """
        key = jax.random.fold_in(jax.random.wrap_key_data(batch["key"]), state.step)
        teacher = batch["teacher"]
        if self.pooled:
            axis_name = self.networks.axis_name
            draw_key, augment_key = jax.random.split(key)
            count = len(batch["row"]) * parallel.shard_count(axis_name)
            images = parallel.own_rows(ring.draw(state.pool, draw_key, count), axis_name)
            if self.config.optimizer.augment:
                augment_key = jax.random.fold_in(augment_key, parallel.shard_index(axis_name))
                images = crop_and_flip(augment_key, images)
            images = self.networks.read(images)
            state, metrics = self._learn(state, self._shown(images, teacher))
            return state, {**metrics, **self._named(state.losses)}
        return self._turn(state, batch, teacher, key)

    def _turn(
        self, state: Distilling, batch: Tree, teacher: Tree, key: Array
    ) -> tuple[Distilling, dict]:
        settings, axis_name = self.config.synthesis, self.networks.axis_name
        turn_key, *keys = jax.random.split(key, 1 + settings.student_steps)
        real = self.networks.read(batch["images"]) if "images" in batch else batch["row"]
        host, losses, shown = self.host.turn(state.host, self.view(state, teacher), turn_key, real)
        state = state._replace(host=host, losses=losses)
        if shown is not None:
            state, metrics = self._learn(state, lax.stop_gradient(shown))
            return state, {**metrics, **self._named(losses)}
        count = len(batch["row"]) * parallel.shard_count(axis_name)

        def learn(state: Distilling, key: Array) -> tuple[Distilling, dict]:
            images = self.host.draw(state.host, shard_latents(key, count, self.networks))
            if self.config.method.passes_over_pool:
                images = jnp.concatenate([images, real])
            return self._learn(state, self._shown(lax.stop_gradient(images), teacher))

        state, metrics = lax.scan(learn, state, jnp.stack(keys))
        metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)
        return state, {**metrics, **self._named(losses)}

    def _named(self, losses: dict[str, Array]) -> dict[str, Array]:
        return {f"synthesis_{name}": value for name, value in losses.items()}

    def _shown(self, images: Array, teacher: Tree) -> Shown:
        """Normalised images with what the teacher says of them."""
        logits, _ = self.networks.teacher.apply(teacher, images)
        return Shown(images, lax.stop_gradient(logits))

    def _learn(self, state: Distilling, shown: Shown) -> tuple[Distilling, dict[str, Array]]:
        """One step of the student and its compensation."""
        networks, temperature = self.networks, self.config.optimizer.temperature
        images, logits = shown
        statistics = {k: v for k, v in state.variables.items() if k != "params"}
        confounders, prior, _ = state.dictionary
        strength = self.strength(state)

        def objective(params: Tree, extra: Tree) -> tuple[Array, tuple]:
            answer, updates = networks.student.apply(
                {"params": params, **statistics},
                images,
                confounders,
                prior,
                strength,
                train=True,
                mutable=list(statistics),
            )
            terms = self.host.loss(answer.logits, logits, extra, temperature, networks.axis_name)
            return total(terms), (terms, updates, answer)

        # two optimizers and a mask by arm: more than `optimizer.gradient_step` is for
        params = state.variables["params"]
        (value, (terms, updates, answer)), gradients = jax.value_and_grad(
            objective, (0, 1), has_aux=True
        )(params, state.extra)
        gradients = parallel.mean(gradients, networks.axis_name)
        mask = self._mask(params, state.hyper)
        gradient = jax.tree.map(jnp.multiply, mask, gradients[0])
        # what is not trained does not decay either
        trained = jax.tree.map(jnp.multiply, mask, params)
        direction, sgd = self._tx().update(gradient, state.optimizer[0], trained)
        more, adam = optax.scale_by_adam().update(gradients[1], state.optimizer[1])
        rate, waits = self._rate(state.step)
        new = state._replace(
            variables={"params": optimizer.descend(params, direction, rate), **updates},
            extra=optimizer.descend(state.extra, more, jnp.asarray(EXTRA_RATE)),
            optimizer=(sgd, adam),
        )
        if self.config.synthesis.warmup:
            new = jax.tree.map(lambda old, new: jnp.where(waits, old, new), state, new)
        metrics = {
            **terms,
            "total": value,
            "gradient_norm": optax.tree.norm(gradient),
            "agreement": self._agreement(answer, logits),
        }
        return new._replace(step=state.step + 1), metrics

    def _agreement(self, answer: Answer, logits: Array) -> Array:
        same = jnp.argmax(answer.logits, axis=-1) == jnp.argmax(logits, axis=-1)
        return parallel.mean(jnp.mean(same.astype(jnp.float32)), self.networks.axis_name)

    def _rate(self, step: Array) -> tuple[Array, Array]:
        """Learning rate, and whether the student still waits for its host's warm-up."""
        settings = self.config.optimizer
        wait = self.config.synthesis.warmup * self.steps
        steps = max(settings.epochs * self.steps - wait, 1)
        begun = jnp.maximum(step - wait, 0)
        lowest = settings.final_learning_rate / settings.learning_rate
        factor = optimizer.schedule(settings.schedule, begun, steps, lowest)
        return settings.learning_rate * factor, step < wait

    def _tx(self) -> optax.GradientTransformation:
        settings = self.config.optimizer
        clip_norm = settings.clip_norm or math.inf
        return optimizer.sgd(settings.weight_decay, clip_norm, settings.momentum)

    def _mask(self, params: Tree, hyper: Hyper) -> Tree:
        """Ones where a parameter is trained."""

        def trained(path: tuple, x: Array) -> Any:
            is_confounder = [k.key for k in path] == ["compensation", "confounder"]
            return hyper.train_confounder if is_confounder else 1.0

        return jax.tree.map_with_path(trained, params)

    def _size(self, teacher: Tree) -> int:
        """Width of a confounder."""
        if self.config.compensation.feature != "penultimate":
            return self.networks.classes
        shape = (1, self.networks.side, self.networks.side, self.networks.channels)
        return jax.eval_shape(self.networks.teacher.apply, teacher, jnp.zeros(shape))[1].shape[-1]

    def evaluate(self, state: Distilling, batch: Tree) -> dict[str, Array]:
        """Right answers by class with the compensation kept and dropped, and rows by class."""
        labels, weights = batch["labels"], batch["row"]
        right = self.right(self.select(state), batch)

        def by_class(values: Array) -> Array:
            return jax.ops.segment_sum(weights * values, labels, self.networks.classes)

        return {
            **{name: by_class(values) for name, values in right.items()},
            "rows": by_class(jnp.ones_like(weights)),
        }

    def right(self, selected: Selected, batch: Tree) -> dict[str, Array]:
        """Which answers are right, image by image.

        Args:
            selected: one student.
            batch: `images` and `labels`.

        Returns:
            `[batch]` float32 of 0 and 1: `keep` and `drop`, with the compensation kept and
            dropped, and `drop_top5`, the label among the five likeliest.
        """
        variables, (confounders, prior, _), strength = selected
        images = self.networks.read(batch["images"], self.white)
        answer = self.networks.student.apply(variables, images, confounders, prior, strength)
        right = {
            "keep": among_best(answer.logits, batch["labels"], 1),
            "drop": among_best(answer.plain, batch["labels"], 1),
            "drop_top5": among_best(answer.plain, batch["labels"], 5),
        }
        return {name: values.astype(jnp.float32) for name, values in right.items()}

    def summarize(self, sums: dict[str, Array]) -> dict[str, Array]:
        """Accuracies; the score is the mode that a student is deployed in."""
        rows = jnp.maximum(jnp.sum(sums["rows"]), 1.0)
        accuracy = {name: jnp.sum(sums[name]) / rows for name in ("keep", "drop", "drop_top5")}
        at_logits = self.config.compensation.site == "logits"
        return {**accuracy, "score": accuracy["drop" if at_logits else "keep"]}

    def select(self, state: Distilling) -> Selected:
        """What inference needs."""
        return Selected(state.variables, state.dictionary, self.strength(state))


def among_best(logits: Array, labels: Array, count: int) -> Array:
    """Whether labels are among the likeliest classes; of equal ones the first wins, as in argmax.

    Args:
        logits: `[batch, classes]`.
        labels: `[batch]`.
        count: how many classes may be named.

    Returns:
        `[batch]` bool.
    """
    of_label = jnp.take_along_axis(logits, labels[:, None], axis=1)
    earlier = jnp.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > of_label) | ((logits == of_label) & earlier)
    return jnp.sum(ahead, axis=1) < count
