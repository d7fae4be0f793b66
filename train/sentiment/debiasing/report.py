"""What a person reads of a de-biasing run: a table a task, differences seed by seed, margins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.debias import DebiasConfig
from corrkd_jax import metrics
from train.engine import tables
from train.engine.report import Report, evaluate_and_export, legend_beside
from train.engine.tables import Claims, cell, paired, points
from train.sentiment.debiasing import arms, counterfactual
from train.sentiment.report import class_name
from train.sentiment.results import (
    Truth,
    confusions,
    floors,
    sentiment_floors,
    sentiment_metrics,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Results of one task.

    Attributes:
        outputs: row -> test split -> `[seeds, n, outputs]`; the vanilla row first.
        truths: test split -> what they are held against.
        coefficients: row -> `[seeds, 2]`, of the label and the context term; empty without them.
    """

    outputs: Mapping[str, Mapping[str, np.ndarray]]
    truths: Mapping[str, Truth]
    coefficients: Mapping[str, np.ndarray]

    def accuracy(self, row: str, split: str) -> np.ndarray:
        """Headline accuracy, `[seeds]`."""
        return self._of(metrics.accuracy, row, split)

    def weighted_f1(self, row: str, split: str) -> np.ndarray:
        """Weighted F1 of the headline classes, `[seeds]`."""
        return self._of(metrics.weighted_f1, row, split)

    def macro_f1(self, row: str, split: str) -> np.ndarray:
        """Macro F1 of the headline classes, `[seeds]`."""
        return self._of(metrics.macro_f1, row, split)

    def sentiment(self, row: str, split: str) -> dict[str, np.ndarray]:
        """Metrics of real scores, each `[seeds]`."""
        return sentiment_metrics(self.outputs[row][split][:, :, None], self.truths[split])

    def _of(self, finish: Any, row: str, split: str) -> np.ndarray:
        counts = confusions(self.outputs[row][split][:, :, None], self.truths[split])
        return np.asarray(finish(counts[:, 0]))

    def to_json(self) -> dict[str, Any]:
        """All figures as plain lists."""
        rows: dict[str, Any] = {}
        for row in self.outputs:
            rows[row] = {
                split: {
                    "accuracy": self.accuracy(row, split).tolist(),
                    "weighted_f1": self.weighted_f1(row, split).tolist(),
                    "macro_f1": self.macro_f1(row, split).tolist(),
                }
                for split in self.truths
            }
            if row in self.coefficients:
                rows[row]["coefficients"] = self.coefficients[row].tolist()
            for split, truth in self.truths.items():
                if truth.scores is not None:
                    scores = self.sentiment(row, split)
                    rows[row][split]["sentiment"] = {k: v.tolist() for k, v in scores.items()}
        return rows


MEANINGS = {
    counterfactual.VANILLA: "the model as it was trained",
    counterfactual.LABEL: "less what it says without any content",
    counterfactual.CONTEXT: "less what it says without the words that carry content",
    counterfactual.BOTH: "less both",
    "fixed": "coefficients (label, context) that nobody searched",
    counterfactual.BIASED: "of a validation split that leans as training does",
    counterfactual.BALANCED: "of a search that weighs the classes alike",
    **dict.fromkeys(arms.TITLES.values(), "the base model, without de-biasing"),
    arms.DOT: "the paper's attention over a memory of subjects",
    "random dictionary": "noise of the memory's mean and spread in its place, a control",
    arms.OWN: "a training sample's own subject, and the prior over subjects afterwards",
    "additive": "another attention",
    "no attention": "all subjects alike",
    "flat prior": "equal shares in the place of the prior",
    "always": "a constant prediction; a row that equals it has collapsed",
}
"""What the rows of the table stand for."""


def titles(config: DebiasConfig, planted: bool) -> dict[str, str]:
    """Test splits as tables and claims name them.

    Args:
        config: of the run.
        planted: whether the data are, so that the test split is made for something.
    """
    test = {"mcis": "unbiased", "suci": "new subjects"}.get(config.debias, "test")
    return {
        "test": test if planted else "test",
        "test_reversed": "reversed",
        "test_iid": "as training",
        "test_seen": "seen subjects",
    }


def build(
    title: str,
    config: DebiasConfig,
    reports: Sequence[tuple[str, Table]],
    facts: Sequence[str],
    planted: bool,
    folder: Path,
) -> Report:
    """The report of a run and its figure.

    Args:
        title: heading.
        config: of the run.
        reports: name of a task, empty for the method's own, and its table.
        facts: lines on seeds and machine.
        planted: whether the data are, so that the run has something to show.
        folder: of the run.
    """
    report = Report(title, facts)
    named = titles(config, planted)
    report.add(*introduction([table for _, table in reports], named, planted), _reading(config))
    for name, table in reports:
        if name:
            report.section(name.replace("-", " ").capitalize())
        report.add(*parts_of(table, named))
    if planted and (claims := planted_claims(config, dict(reports))):
        report.section("What was planted", claims.table())
    report.figure("accuracy.png", "accuracy by row", _figure(reports, named))
    evaluated = "tables and predictions.csv; --data.path FILE: on another file"
    report.next_steps(evaluate_and_export(folder, evaluated, "a model to use elsewhere"))
    return report


def introduction(
    shown: Sequence[Table], named: Mapping[str, str], planted: bool = False
) -> list[str]:
    """What columns and rows of some tables are.

    Args:
        shown: the tables, of one run.
        named: of `titles`.
        planted: whether the data are.
    """
    table = shown[0]
    columns = "Accuracy and weighted F1, x 100."
    if planted:
        known = [named.get(split, split) for split in table.truths]
        parts = [f"*{name}*: {_SPLITS[name]}" for name in known if name in _SPLITS]
        columns += f" Columns: {'; '.join(parts)}." if parts else ""
    seeds = len(next(iter(next(iter(table.outputs.values())).values())))
    names = [name for each in shown for name in each.outputs]
    return [columns, tables.glossary([*names, "always"], MEANINGS), tables.spread_in_words(seeds)]


_SPLITS = {
    "unbiased": "a test split without the bias of training",
    "new subjects": "a test split of subjects that training has not met",
    "reversed": "one that leans the other way",
    "as training": "one that leans as training does, where taking the bias away must cost",
    "seen subjects": "one of the training's subjects, where taking the bias away must cost",
}
"""What the planted test splits are made for."""


def parts_of(table: Table, named: Mapping[str, str]) -> list[str]:
    """Figures of one table in Markdown; `named` is of `titles`."""
    parts = [_accuracies(table, named)]
    if table.coefficients:
        parts.append(_coefficients(table))
    if len(table.outputs) > 1:
        parts.append(_differences(table, named))
    if any(truth.scores is not None for truth in table.truths.values()):
        parts += [_sentiment(table, split, named) for split in table.truths]
    return parts


def _accuracies(table: Table, named: Mapping[str, str]) -> str:
    splits = list(table.truths)
    head = [f"{named.get(s, s)}: {m}" for s in splits for m in ("accuracy", "F1")]
    lines = []
    for row in table.outputs:
        cells = []
        for split in splits:
            for metric in (table.accuracy, table.weighted_f1):
                cells.append(cell(100 * metric(row, split)))
        lines.append([row, *cells])
    first = table.truths[splits[0]]
    for constant in range(first.task.metric_classes):
        cells = []
        for split in splits:
            truth = table.truths[split]
            share = np.average(truth.classes[:, 0] == constant, weights=truth.weights[:, 0])
            cells += [f"{100 * share:.1f}", f"{100 * floors(truth)[0, constant]:.1f}"]
        lines.append([f"*always {class_name(first, constant)}*", *cells])
    return tables.table(["x 100", *head], lines)


def _coefficients(table: Table) -> str:
    lines = [[row, *(cell(v) for v in values.T)] for row, values in table.coefficients.items()]
    return tables.table(["coefficient of", "label term", "context term"], lines)


def _differences(table: Table, named: Mapping[str, str]) -> str:
    base, splits = next(iter(table.outputs)), list(table.truths)
    head = [named.get(split, split) for split in splits]
    lines = []
    for row in table.outputs:
        if row != base:
            pairs = (paired(table.accuracy(row, s), table.accuracy(base, s)) for s in splits)
            lines.append([row, *(points(d) for d in pairs)])
    return tables.table([f"accuracy minus {base}", *head], lines)


def _sentiment(table: Table, split: str, named: Mapping[str, str]) -> str:
    truth = table.truths[split]
    metrics_of = {row: table.sentiment(row, split) for row in table.outputs}
    metrics_of |= {f"*{name}*": values for name, values in sentiment_floors(truth).items()}
    keys = list(metrics_of[next(iter(table.outputs))])
    lines = [
        [row, *(cell(values[k] if k in ("mae", "corr") else 100 * values[k]) for k in keys)]
        for row, values in metrics_of.items()
    ]
    return tables.table([named.get(split, split), *keys], lines)


def planted_claims(config: DebiasConfig, results: Mapping[str, Table]) -> Claims:
    """What the planted task was built to show, and whether it did."""
    main, named = results[""], titles(config, planted=True)
    base = next(iter(main.outputs))
    claims = Claims("accuracy", "measured", "required")

    def claim(name: str, d: dict[str, Any], least: float, most: float = np.inf) -> None:
        asked = f">= {least:+g}" if most == np.inf else f"{least:+g} to {most:+g}"
        if least == -np.inf:
            asked = f"<= {most:+g}"
        claims.add(name, points(d), asked, holds=least <= d["mean"] <= most)

    def gain(table: Table, row: str, split: str) -> dict[str, Any]:
        return paired(table.accuracy(row, split), table.accuracy(base, split))

    if config.debias == "mcis":
        both = counterfactual.BOTH
        # the sizes of the gain were set for the pooled model; for the others, its sign
        known = config.model == "pooled"
        claim(f"{both} - {base}, unbiased", gain(main, both, "test"), 8.0 * known)
        claim(f"{both} - {base}, reversed", gain(main, both, "test_reversed"), 25.0 * known)
        for split in ("test", "test_reversed"):
            d = paired(main.accuracy(both, split), main.accuracy(counterfactual.CONTEXT, split))
            claim(f"{both} - context term, {named[split]}", d, -1.0)
        claim(f"{both} - {base}, as training", gain(main, both, "test_iid"), -np.inf, 0.0)
        if "label-bias-only" in results:
            label = counterfactual.LABEL
            d = gain(results["label-bias-only"], label, "test")
            claim("label bias only: label term", d, 3.0)
        if "control-no-bias" in results:
            d = gain(results["control-no-bias"], both, "test")
            claim(f"control, no bias: {both} - {base}", d, -1.5, 3.5)
    elif config.debias == "suci":
        linear = config.model == "pooled" and any("hidden=()" in n for n in config.network)
        own, dot = arms.OWN, arms.DOT
        claim(f"{own} - {base}, new subjects", gain(main, own, "test"), 5.0 if linear else 2.0)
        claim(
            f"{own} - {base}, reversed",
            gain(main, own, "test_reversed"),
            15.0 if linear else 10.0,
        )
        claim(f"{own} - {base}, seen subjects", gain(main, own, "test_seen"), -np.inf, 0.0)
        for split in ("test", "test_reversed"):
            claim(f"{dot} - {base}, {named[split]}", gain(main, dot, split), -np.inf, 1.5)
        if "control-no-confounder" in results:
            control = results["control-no-confounder"]
            claim(f"control: {own} - {base}", gain(control, own, "test"), -2.0, 2.0)
            claim(f"control: {dot} - {base}", gain(control, dot, "test"), -2.0, 2.0)
    return claims


def _reading(config: DebiasConfig) -> str:
    if config.debias == "mcis":
        return (
            "Coefficients are searched on the validation split and on nothing else. What is taken "
            "away helps where the test split leans as training does: a gain there would be a leak. "
            "A validation split that leans as well shows little of the bias, as its row says; a "
            "small balanced one is worth having."
        )
    if config.debias == "suci":
        return (
            "All rows have the same head and differ in the confounder that it reads. `own_subject` "
            "is the adjustment, `dot` the paper's letter; on planted data the claims ask the first "
            "to gain and the second not to. The dictionary and the prior are of the training split "
            "alone."
        )
    return "No de-biasing was asked for."


def _figure(reports: Sequence[tuple[str, Table]], named: Mapping[str, str]) -> "Figure":
    """Accuracy of every row on every test split, as bars with the deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2 * len(reports)), layout="constrained")
    for axes, (name, table) in zip(
        np.atleast_1d(figure.subplots(len(reports), 1)), reports, strict=True
    ):
        rows, splits = list(table.outputs), list(table.truths)
        wide = 0.8 / len(splits)
        for number, split in enumerate(splits):
            values = np.stack([100 * table.accuracy(row, split) for row in rows])
            place = np.arange(len(rows)) + (number - (len(splits) - 1) / 2) * wide
            axes.bar(
                place,
                values.mean(axis=1),
                wide,
                yerr=tables.deviation(values.T),
                label=named.get(split, split),
            )
        axes.set_xticks(np.arange(len(rows)), rows, rotation=20, ha="right", fontsize=7)
        axes.set(ylabel="accuracy x 100", title=name.replace("-", " "))
        legend_beside(axes)
    return figure
