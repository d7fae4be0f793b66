"""What a person reads of a run: the table, the curve, the differences, the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from train.engine import tables
from train.engine.report import Report, evaluate_and_export, legend_beside
from train.engine.tables import Claims, cell, paired, points
from train.sentiment import corrkd, paper_tables
from train.sentiment.results import (
    COLUMNS,
    RATIOS,
    Row,
    Truth,
    average,
    columns,
    floors,
    headline_f1,
    sentiment_floors,
    sentiment_metrics,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MEANINGS = {
    corrkd.TEACHER_ROW: "the teacher, which learned from complete input; zeros stand for what is "
    "missing",
    corrkd.BASELINE: "the baseline, a student that learns from labels, its input masked at random",
    "+ KL": "from the teacher's probabilities as well",
    "+ DKD": "from the teacher's decoupled probabilities as well",
    corrkd.METHOD: "from the teacher as well, by contrast between samples (SCD), prototypes of "
    "classes (CPD) and its disentangled responses (RCD)",
    "w/o": "without that loss",
    "KL for RCD": "with another loss in its place",
    corrkd.CONTROL: "the control, every sample with another sample's teacher",
}
"""What the rows of the table stand for."""

MEANING = (
    "Weighted F1 x 100; columns are the modalities that are there (l text, a audio, v vision); Avg "
    "is the mean of the six incomplete subsets. *always ...* is a constant prediction: a row that "
    "equals it has collapsed."
)
"""What a cell of the table is."""


def table(
    rows: Sequence[Row],
    truth: Truth,
    paper: dict[str, Sequence[float]] | None = None,
    legacy_order: bool = False,
) -> str:
    """The seven-subset table in Markdown, weighted F1 x 100, mean and deviation over seeds."""
    parts = []
    for number, name in enumerate(truth.task.names):
        lines = []
        for row in rows:
            values = 100 * columns(headline_f1(row.subsets, truth, legacy_order)[..., number])
            lines.append([row.name, *(cell(v) for v in values.T)])
        for constant, value in enumerate(floors(truth, legacy_order)[number]):
            label = class_name(truth, constant)
            lines.append([f"*always {label}*", *[f"{100 * value:.1f}"] * 8])
        for label, numbers in (paper or {}).items():
            lines.append([f"*{label}*", *(f"{x:.1f}" for x in numbers)])
        parts.append(tables.table([name, *COLUMNS], lines))
    return "\n\n".join(parts)


def class_name(truth: Truth, constant: int) -> str:
    """What a class of the headline metric is called."""
    if truth.task.has_scores:
        return ("negative", "positive")[constant]
    return f"class {constant}"


def sentiment_table(rows: Sequence[Row], truth: Truth) -> str:
    """Further metrics on complete input, for runs with real scores."""
    names = {
        "non0_acc": "Acc-2 non0",
        "non0_f1": "F1 non0",
        "has0_acc": "Acc-2 has0",
        "has0_f1": "F1 has0",
        "acc5": "Acc-5",
        "acc7": "Acc-7",
        "mae": "MAE",
        "corr": "Corr",
    }
    metrics = {row.name: sentiment_metrics(row.subsets[:, 6], truth) for row in rows}
    metrics |= {f"*{name}*": values for name, values in sentiment_floors(truth).items()}
    shown = [key for key in names if key in metrics[rows[0].name]]
    lines = [
        [name, *(cell(values[k] if k in ("mae", "corr") else 100 * values[k]) for k in shown)]
        for name, values in metrics.items()
    ]
    return tables.table(["complete input", *(names[k] for k in shown)], lines)


def curve_table(rows: Sequence[Row], truth: Truth) -> str:
    """Weighted F1 x 100 against the share of frames missing, mean over seeds."""
    lines = []
    for row in rows:
        values = 100 * headline_f1(row.curve, truth).mean(axis=(0, -1))
        lines.append([row.name, *(f"{v:.1f}" for v in values)])
    for constant, value in enumerate(floors(truth).mean(axis=0)):
        name = f"*always {class_name(truth, constant)}*"
        lines.append([name, *[f"{100 * value:.1f}"] * len(RATIOS)])
    return tables.table(["frames missing", *(f"{r:.1f}" for r in RATIOS)], lines)


def differences(rows: Sequence[Row], truth: Truth) -> str:
    """Paired differences of Avg against the baseline, seed by seed."""
    # where the arms asked for leave the baseline out, the zero-filled teacher stands in
    base_row = next((row for row in rows if row.name == corrkd.BASELINE), rows[0])
    base = average(base_row, truth)
    lines = []
    for row in rows:
        if row is not base_row:
            d = paired(average(row, truth), base)
            lines.append([row.name, points(d), f"{d['least']:+.2f}", str(len(d["each"]))])
    return tables.table([f"Avg minus {base_row.name}", "mean", "least seed", "seeds"], lines)


def planted_claims(rows: Sequence[Row], truth: Truth) -> Claims:
    """What the planted task was built to show, and whether it did; empty if arms are missing."""
    claims = Claims("Avg", "measured", "least seed", "required")
    avg = {row.name: average(row, truth) for row in rows}
    needed = (corrkd.TEACHER_ROW, corrkd.BASELINE, corrkd.METHOD)
    if not all(name in avg for name in needed):
        return claims
    teacher, base, method = (avg[name] for name in needed)
    for name, d, least in (
        (f"{corrkd.METHOD} - {corrkd.BASELINE}", paired(method, base), 3.0),
        (f"{corrkd.BASELINE} - {corrkd.TEACHER_ROW}", paired(base, teacher), 6.0),
        (f"{corrkd.METHOD} - {corrkd.TEACHER_ROW}", paired(method, teacher), 0.0),
    ):
        cells = points(d), f"{d['least']:+.2f}", f">= {least:g}"
        claims.add(name, *cells, holds=d["mean"] >= least)
    if corrkd.CONTROL in avg:
        d, gain = paired(avg[corrkd.CONTROL], base), paired(method, base)["mean"]
        name = f"control: {corrkd.CONTROL}, - {corrkd.BASELINE}"
        cells = points(d), f"{d['least']:+.2f}", "gain gone"
        claims.add(name, *cells, holds=d["mean"] < gain / 2)
    return claims


def build(
    rows: Sequence[Row],
    truth: Truth,
    *,
    title: str,
    preset: str,
    facts: Sequence[str],
    folder: Path,
    metrics: Sequence[dict[str, Any]] = (),
) -> Report:
    """The report of a run and its figures.

    Args:
        rows: test results, the zero-filled teacher first.
        truth: of the test split.
        title: heading.
        preset: for the paper's table beside the measured one.
        facts: lines on data, seeds and machine.
        folder: of the run.
        metrics: rows of `metrics.jsonl`, for the training curves.
    """
    paper = paper_tables.rows_for(preset)
    meaning = MEANING
    if paper:
        meaning += (
            " Rows marked *paper* are the authors', on their features and split: a direction, "
            "not a target."
        )
    report = Report(title, facts)
    names = [row.name for row in rows]
    seeds = len(rows[0].subsets)
    report.section(
        "Missing modalities, test split",
        meaning,
        tables.glossary(names, MEANINGS),
        tables.spread_in_words(seeds),
        table(rows, truth, paper),
    )
    if preset == "planted" and (claims := planted_claims(rows, truth)):
        report.section("What was planted", claims.table())
    report.section("Against the baseline, seed by seed", differences(rows, truth))
    if truth.scores is not None:
        report.section("Other metrics", sentiment_table(rows, truth))
    report.section("Missing frames", curve_table(rows, truth))
    report.figure("missing_frames.png", "F1 against missing frames", _curve_figure(rows, truth))
    if metrics:
        report.section("Training")
        caption = "validation score and loss"
        report.figure("training.png", caption, _training_figure(metrics))
    evaluated = "table, curve and predictions.csv; --data.path FILE: on another file"
    report.next_steps(evaluate_and_export(folder, evaluated, "a model to use elsewhere"))
    return report


def _curve_figure(rows: Sequence[Row], truth: Truth) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        f1 = 100 * headline_f1(row.curve, truth).mean(axis=-1)
        mean, std = f1.mean(axis=0), tables.deviation(f1)
        (drawn,) = axes.plot(RATIOS, mean, marker="o", markersize=3, label=row.name)
        axes.fill_between(RATIOS, mean - std, mean + std, color=drawn.get_color(), alpha=0.12)
    floor = 100 * floors(truth).max(axis=1).mean()
    axes.axhline(floor, color="0.6", linestyle=":", lw=1, label="best constant prediction")
    axes.set(xlabel="share of frames missing in every modality", ylabel="weighted F1 x 100")
    legend_beside(axes)
    return figure


def _training_figure(metrics: Sequence[dict[str, Any]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    scores, losses = figure.subplots(1, 2)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in metrics:
        groups.setdefault(row.get("arm", row["stage"]), []).append(row)
    for name, epochs_of in groups.items():
        for axes, key in ((scores, "valid_score"), (losses, "train_total")):
            shown = [p for p in epochs_of if key in p]
            epochs = [p["epoch"] + 1 for p in shown]
            axes.plot(epochs, [np.mean(p[key]) for p in shown], label=name, lw=1)
    scores.set(xlabel="epoch", ylabel="validation F1 (teacher: complete input)")
    losses.set(xlabel="epoch", ylabel="training loss, total")
    legend_beside(losses)
    return figure
