"""The scores of one split: every metric of a task on all of its rows, undefined ones named with their reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import evaluate

from nlptrain.metrics.modules import INPUTS, load
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


def score(names: Sequence[str], predictions: Any, references: Any) -> Scores:
    """Every metric of `names` on all rows of a split.

    Args:
        names: keys of `METRICS`; a repeated name is one score.
        predictions: shape (n,); integer class ids for classification metrics, real scores for regression ones; for
            those of token classification n lists of tags.
        references: the same, the rows in the same order.

    Raises:
        ConfigError: a name is not a metric.
        ValueError: the shapes differ or are not one-dimensional, class ids are not integers, or a row has not as many
            predicted tags as tags.
    """
    bundle = {name: load(name) for name in names}
    for name in bundle:
        INPUTS[METRICS[name].kind].check(predictions, references)
    results = evaluate.combine(bundle).compute(predictions=predictions, references=references)
    values = {name: results[name] for name in bundle}
    return Scores(values, {name: results[f"{name}_undefined"] for name in bundle if values[name] is None})


def selection_value(spec: MetricSpec, scores: Scores) -> float:
    """The finite number that compares checkpoints: the score, or the metric's worst value where it is undefined."""
    value = scores.values[spec.name]
    return spec.worst if value is None else value
