"""How good each row is answered as one number, so that any group of rows has a mean and an interval."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nlptrain.predictions import Predictions

Array = NDArray[Any]
LEVEL = 0.95
NAMES: dict[str, str] = {
    "classification": "accuracy",
    "regression": "mean absolute error",
    "token_classification": "share of tokens right",
}


def row_values(kind: str, found: Predictions) -> Array:
    """(n,): whether the class is right, how far the score is off in its unit, or the share of right tags."""
    if kind == "classification":
        return np.asarray(found.outputs.argmax(axis=1) == found.labels, np.float64)
    if kind == "regression":
        return np.asarray(np.abs(found.outputs[:, 0] - found.labels))
    pairs = zip(found.labels, found.outputs, strict=True)
    return np.array([np.mean([a == b for a, b in zip(*pair, strict=True)]) if pair[0] else 1.0 for pair in pairs])


def mean_interval(values: Array) -> tuple[float, float]:
    """95 %: Wilson's of a share where all values are 0 or 1, else Student's of a mean; of one value, itself."""
    if np.isin(values, (0, 1)).all():
        ends = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
        return float(ends.low), float(ends.high)
    if len(values) < 2:
        return float(values[0]), float(values[0])
    mean, error = float(values.mean()), float(stats.sem(values))
    half = error * float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return mean - half, mean + half


def equal_parts(values: Array, count: int) -> list[Array]:
    """Indices in at most `count` groups of about equal size from low to high; equal values stay together."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    cuts = {int(np.searchsorted(ranked, ranked[at * len(order) // count])) for at in range(1, count)}
    return [part for part in np.split(order, sorted(cuts - {0})) if len(part)]
