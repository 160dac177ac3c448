"""The scores of one split: every metric of a task on all of its rows, undefined ones named with their reason."""

from collections.abc import Sequence
from dataclasses import dataclass

import evaluate
import numpy as np

from nlptrain.metrics.functions import Vector, require_vectors
from nlptrain.metrics.modules import load
from nlptrain.metrics.registry import METRICS, MetricSpec


@dataclass(frozen=True)
class Scores:
    """Metric values of one split.

    Attributes:
        values: metric name to a finite number, or None where the metric is undefined.
        undefined: metric name to the reason, for exactly the names whose value is None.
    """

    values: dict[str, float | None]
    undefined: dict[str, str]


def score(names: Sequence[str], predictions: Vector, references: Vector) -> Scores:
    """Every metric of `names` on all rows of a split.

    Args:
        names: keys of `METRICS`; a repeated name is one score.
        predictions: shape (n,); integer class ids for classification metrics, real scores for regression ones.
        references: shape (n,), the rows in the same order.

    Raises:
        ConfigError: a name is not a metric.
        ValueError: the shapes differ or are not one-dimensional, or class ids are not integers.
    """
    require_vectors(predictions, references)
    bundle = {name: load(name) for name in names}
    for name in bundle:
        _require_ids(METRICS[name], predictions, references)
    results = evaluate.combine(bundle).compute(predictions=predictions, references=references)
    values = {name: results[name] for name in bundle}
    return Scores(values, {name: results[f"{name}_undefined"] for name in bundle if values[name] is None})


def selection_value(spec: MetricSpec, scores: Scores) -> float:
    """The finite number that compares checkpoints: the score, or the metric's worst value where it is undefined."""
    value = scores.values[spec.name]
    return spec.worst if value is None else value


def _require_ids(spec: MetricSpec, predictions: Vector, references: Vector) -> None:
    # evaluate would truncate 0.9 to class 0.
    wrong = [str(v.dtype) for v in (predictions, references) if not np.issubdtype(v.dtype, np.integer)]
    if spec.kind == "classification" and wrong:
        raise ValueError(f"{spec.name} compares integer class ids, found an array of {wrong[0]}: take the argmax first")
