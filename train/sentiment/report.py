"""What a person reads of a run: the table, the curve, the differences, the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.errors import InputError
from train.engine.tables import cell, line, paired
from train.engine.workdir import write_text
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


def table(
    rows: Sequence[Row],
    truth: Truth,
    paper: dict[str, Sequence[float]] | None = None,
    legacy_order: bool = False,
) -> str:
    """The seven-subset table in Markdown, weighted F1 x 100, mean and deviation over seeds."""
    parts = []
    for number, name in enumerate(truth.task.names):
        lines = ["| " + " | ".join([name, *COLUMNS]) + " |", "|---" * 9 + "|"]
        for row in rows:
            values = 100 * columns(headline_f1(row.subsets, truth, legacy_order)[..., number])
            lines.append(line(row.name, [cell(v) for v in values.T]))
        for constant, value in enumerate(floors(truth, legacy_order)[number]):
            label = class_name(truth, constant)
            lines.append(line(f"*always {label}*", [f"{100 * value:.1f}"] * 8))
        for label, numbers in (paper or {}).items():
            lines.append(line(f"*{label}*", [f"{x:.1f}" for x in numbers]))
        parts.append("\n".join(lines))
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
    found = {row.name: sentiment_metrics(row.subsets[:, 6], truth) for row in rows}
    found |= {f"*{name}*": values for name, values in sentiment_floors(truth).items()}
    shown = [key for key in names if key in found[rows[0].name]]
    lines = [line("complete input", [names[k] for k in shown]), "|---" * (len(shown) + 1) + "|"]
    for name, values in found.items():
        cells = [cell(values[k] if k in ("mae", "corr") else 100 * values[k]) for k in shown]
        lines.append(line(name, cells))
    return "\n".join(lines)


def curve_table(rows: Sequence[Row], truth: Truth) -> str:
    """Weighted F1 x 100 against the share of frames missing, mean over seeds."""
    lines = [line("frames missing", [f"{r:.1f}" for r in RATIOS]), "|---" * 12 + "|"]
    for row in rows:
        values = 100 * headline_f1(row.curve, truth).mean(axis=(0, -1))
        lines.append(line(row.name, [f"{v:.1f}" for v in values]))
    for constant, value in enumerate(floors(truth).mean(axis=0)):
        name = f"*always {class_name(truth, constant)}*"
        lines.append(line(name, [f"{100 * value:.1f}"] * len(RATIOS)))
    return "\n".join(lines)


def differences(rows: Sequence[Row], truth: Truth) -> str:
    """Paired differences of Avg against the baseline, seed by seed."""
    # where the arms asked for leave the baseline out, the zero-filled teacher stands in
    base_row = next((row for row in rows if row.name == corrkd.BASELINE), rows[0])
    base = average(base_row, truth)
    lines = [
        line(f"Avg minus {base_row.name}", ["mean ± std", "least seed", "seeds"]),
        "|---" * 4 + "|",
    ]
    for row in rows:
        if row is base_row:
            continue
        d = paired(average(row, truth), base)
        lines.append(
            line(
                row.name,
                [f"{d['mean']:+.2f} ± {d['std']:.2f}", f"{d['least']:+.2f}", str(len(d["each"]))],
            )
        )
    return "\n".join(lines)


def planted_margins(rows: Sequence[Row], truth: Truth) -> str:
    """What the planted task was built to show, and whether it did; empty if arms are missing."""
    avg = {row.name: average(row, truth) for row in rows}
    needed = (corrkd.TEACHER_ROW, corrkd.BASELINE, corrkd.METHOD)
    if not all(name in avg for name in needed):
        return ""
    teacher, base, method = (avg[name] for name in needed)
    claims = [
        (f"{corrkd.METHOD} - {corrkd.BASELINE}", paired(method, base), 3.0),
        (f"{corrkd.BASELINE} - {corrkd.TEACHER_ROW}", paired(base, teacher), 6.0),
        (f"{corrkd.METHOD} - {corrkd.TEACHER_ROW}", paired(method, teacher), 0.0),
    ]
    lines = [line("Avg", ["measured", "least seed", "required", ""]), "|---" * 5 + "|"]
    for name, d, least in claims:
        verdict = "holds" if d["mean"] >= least else "MISSED"
        cells = [f"{d['mean']:+.2f} ± {d['std']:.2f}", f"{d['least']:+.2f}", f">= {least:g}"]
        lines.append(line(name, [*cells, verdict]))
    if corrkd.CONTROL in avg:
        d, gain = paired(avg[corrkd.CONTROL], base), paired(method, base)["mean"]
        verdict = "holds" if d["mean"] < gain / 2 else "MISSED"
        cells = [f"{d['mean']:+.2f} ± {d['std']:.2f}", f"{d['least']:+.2f}", "gain gone"]
        lines.append(line(f"control: {corrkd.CONTROL}, - {corrkd.BASELINE}", [*cells, verdict]))
    return "\n".join(lines)


def write(
    folder: Path,
    rows: Sequence[Row],
    truth: Truth,
    *,
    title: str,
    preset: str,
    facts: Sequence[str],
    metrics: Sequence[dict[str, Any]] = (),
) -> str:
    """Write `report.md` and its figures into a run's folder.

    Args:
        folder: of the run.
        rows: test results, the zero-filled teacher first.
        truth: of the test split.
        title: heading.
        preset: for the paper's table beside the measured one.
        facts: lines on data, seeds and machine.
        metrics: rows of `metrics.jsonl`, for the training curves.

    Returns:
        The report's text.
    """

    paper = paper_tables.rows_for(preset)
    parts = [f"# {title}", "\n".join(f"* {fact}" for fact in facts)]
    parts.append(
        "## Missing modalities\nWeighted F1 x 100 on the test split; columns are the modalities "
        "that are there (l text, a audio, v vision); Avg is the mean of the six incomplete "
        "subsets. *always ...* is a constant prediction: a row that equals it has collapsed."
    )
    if paper:
        parts[-1] += (
            " Rows marked *paper* are the authors', on their features and split: a direction, "
            "not a target."
        )
    parts.append(table(rows, truth, paper))
    if preset == "planted" and (margins := planted_margins(rows, truth)):
        parts.append("## What was planted\n" + margins)
    parts.append("## Against the baseline, seed by seed\n" + differences(rows, truth))
    if truth.scores is not None:
        parts.append("## Other metrics\n" + sentiment_table(rows, truth))
    parts.append("## Missing frames\n" + curve_table(rows, truth))
    try:
        _curve_figure(folder / "figures" / "missing_frames.png", rows, truth)
        parts.append("![F1 against missing frames](figures/missing_frames.png)")
        if metrics:
            _training_figure(folder / "figures" / "training.png", metrics)
            parts.append("## Training\n![validation score and loss](figures/training.png)")
    except OSError as error:
        raise InputError(f"{folder / 'figures'}: cannot be written: {error.strerror}") from error
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "report.md", text)
    return text


def _curve_figure(path: Path, rows: Sequence[Row], truth: Truth) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        f1 = 100 * headline_f1(row.curve, truth).mean(axis=-1)
        mean, std = f1.mean(axis=0), f1.std(axis=0)
        (drawn,) = axes.plot(RATIOS, mean, marker="o", markersize=3, label=row.name)
        axes.fill_between(RATIOS, mean - std, mean + std, color=drawn.get_color(), alpha=0.12)
    axes.axhline(100 * floors(truth).max(axis=1).mean(), color="0.6", linestyle=":", lw=1)
    axes.set(xlabel="share of frames missing in every modality", ylabel="weighted F1 x 100")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)


def _training_figure(path: Path, metrics: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    scores, losses = figure.subplots(1, 2)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in metrics:
        groups.setdefault(row.get("arm", row["stage"]), []).append(row)
    for name, points in groups.items():
        for axes, key in ((scores, "valid_score"), (losses, "train_total")):
            shown = [p for p in points if key in p]
            epochs = [p["epoch"] + 1 for p in shown]
            axes.plot(epochs, [np.mean(p[key]) for p in shown], label=name, lw=1)
    scores.set(xlabel="epoch", ylabel="validation F1 (teacher: complete input)")
    losses.set(xlabel="epoch", ylabel="training loss, total")
    scores.legend(fontsize=6)
    figure.savefig(path, dpi=130)
