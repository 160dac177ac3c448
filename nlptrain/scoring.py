"""What is said about the predictions of one split: values, intervals, classes, and whether the model collapsed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from nlptrain.metrics import probabilities
from nlptrain.metrics.bootstrap import Interval, intervals
from nlptrain.metrics.entities import matched
from nlptrain.metrics.registry import METRICS, PROBABILITY_METRICS, REPORTED
from nlptrain.metrics.scores import Scores, score
from nlptrain.metrics.undefined import Undefined
from nlptrain.metrics.weighted import KINDS
from nlptrain.predictions import Predictions
from nlptrain.results import Ends
from nlptrain.tasks import Kind, TaskSpec

# of the spread of the right scores: a model whose scores spread less has learned their mean
COLLAPSED_SPREAD = 0.01
PerClass = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class SplitScores:
    """Scores of one split.

    Attributes:
        values: metric to value, None where undefined; the task's metrics, then those reported of every run.
        undefined: metric to reason, for exactly those.
        intervals: metric to ``low``, ``high``, ``method`` and ``reason``; empty without resamples.
        per_class: class name to its ``rows``, ``precision``, ``recall`` and ``f1``, None where 0/0; of a token
            classification type to the same, where ``rows`` are the entities of the type.
        collapsed: why the model is no better than a constant, or None.
    """

    values: dict[str, float | None]
    undefined: dict[str, str]
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    per_class: PerClass = field(default_factory=dict)
    collapsed: str | None = None


def score_split(task: TaskSpec, found: Predictions, names: Sequence[str] | None, *, resamples: int) -> SplitScores:
    """Score the predictions of one split.

    Args:
        task: names the metrics.
        found: labelled predictions.
        names: of the classes in the order of the logits; None for a regression.
        resamples: of the bootstrap; 0: no intervals.
    """
    kind = _SCORING[task.kind]
    answers = kind.answers(found.outputs)
    plain = [name for name in (*task.metrics, *REPORTED[task.kind]) if name in METRICS]
    scores = score(list(dict.fromkeys(plain)), answers, found.labels)
    if kind.has_probabilities:
        scores = _with_probabilities(scores, found)
    statistics = KINDS[task.kind](found.outputs, found.labels) if resamples else None
    ends = intervals(statistics, len(found), resamples) if statistics else {}
    return SplitScores(
        scores.values,
        scores.undefined,
        {name: _ends(ends[name], scores.undefined.get(name)) for name in scores.values if name in ends},
        kind.per_class(answers, found.labels, names or ()),
        kind.collapsed(answers, found.labels, names or ()),
    )


def fields(scores: Mapping[str, SplitScores]) -> dict[str, Any]:
    """What `nlptrain.results.RunResult` says of the scored splits."""
    return {
        "metrics": {split: found.values for split, found in scores.items()},
        "undefined": {split: found.undefined for split, found in scores.items() if found.undefined},
        "intervals": {split: {n: Ends(**e) for n, e in found.intervals.items()} for split, found in scores.items()},
        "per_class": {split: found.per_class for split, found in scores.items()},
        "collapsed": {split: found.collapsed for split, found in scores.items() if found.collapsed},
    }


def _with_probabilities(scores: Scores, found: Predictions) -> Scores:
    values, undefined = dict(scores.values), dict(scores.undefined)
    for name in PROBABILITY_METRICS:
        try:
            values[name] = probabilities.compute(name, found.outputs, found.labels)
        except Undefined as reason:
            values[name], undefined[name] = None, str(reason)
    return Scores(values, undefined)


def _ends(found: Interval | str, undefined: str | None) -> dict[str, Any]:
    if isinstance(found, Interval) and not undefined:
        return asdict(found)
    return {"low": None, "high": None, "method": None, "reason": undefined or str(found)}


def _per_class(ids: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> PerClass:
    classes = range(len(names))
    found = precision_recall_fscore_support(labels, ids, labels=classes, zero_division=np.nan)
    columns = zip(names, *(column.tolist() for column in found), strict=True)
    return {
        name: {"rows": rows, "precision": _defined(precision), "recall": _defined(recall), "f1": _defined(f1)}
        for name, precision, recall, f1, rows in columns
    }


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _collapsed_ids(ids: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> str | None:
    if np.ptp(ids) or not np.ptp(labels):
        return None
    return f"every row is predicted {names[ids[0]]!r}, which {(labels == ids[0]).mean():.1%} of the rows are"


def _collapsed_scores(scores: NDArray[Any], labels: NDArray[Any], _: Sequence[str]) -> str | None:
    spread, right = float(scores.std()), float(labels.std())
    if spread >= COLLAPSED_SPREAD * right:
        return None
    return f"all scores are about {scores.mean():.4g}: they spread by {spread:.2g}, the right ones by {right:.2g}"


def _per_type(tags: NDArray[Any], labels: NDArray[Any], _: Sequence[str]) -> PerClass:
    sides = zip(*matched(tags, labels), strict=True)
    right, predicted, wanted = (Counter(kind for row in side for kind, *_ in row) for side in sides)
    return {
        kind: {
            "rows": wanted[kind],
            "precision": _share(right[kind], predicted[kind]),
            "recall": _share(right[kind], wanted[kind]),
            "f1": _share(2 * right[kind], predicted[kind] + wanted[kind]),
        }
        for kind in sorted(predicted | wanted)
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _collapsed_tags(tags: NDArray[Any], labels: NDArray[Any], _: Sequence[str]) -> str | None:
    found, right = ({tag for row in side for tag in row} for side in (tags, labels))
    return f"every token is predicted {found.pop()!r}" if len(found) == 1 < len(right) else None


@dataclass(frozen=True)
class _Scoring:
    """What is said of the predictions of one kind.

    Attributes:
        answers: from the outputs that are kept to what metrics compare with the labels.
        per_class: of answers, labels and class names.
        collapsed: of the same.
        has_probabilities: whether the outputs are logits of classes.
    """

    answers: Callable[[NDArray[Any]], NDArray[Any]]
    per_class: Callable[[NDArray[Any], NDArray[Any], Sequence[str]], PerClass]
    collapsed: Callable[[NDArray[Any], NDArray[Any], Sequence[str]], str | None]
    has_probabilities: bool = False


_SCORING: dict[Kind, _Scoring] = {
    "classification": _Scoring(
        lambda logits: logits.argmax(axis=1), _per_class, _collapsed_ids, has_probabilities=True
    ),
    "regression": _Scoring(lambda scores: scores[:, 0], lambda *_: {}, _collapsed_scores),
    "token_classification": _Scoring(lambda tags: tags, _per_type, _collapsed_tags),
}
