"""Metrics: pure functions of arrays, split into counts to sum and ratios of the sums."""

from corrkd_jax.metrics.sentiment import (
    ConstantFloors,
    accuracy,
    accuracy_at,
    binary_sentiment,
    confusion,
    constant_floors,
    macro_f1,
    mae,
    pearson,
    sentiment_report,
    weighted_f1,
)

__all__ = [
    "ConstantFloors",
    "accuracy",
    "accuracy_at",
    "binary_sentiment",
    "confusion",
    "constant_floors",
    "macro_f1",
    "mae",
    "pearson",
    "sentiment_report",
    "weighted_f1",
]
