"""Every reported metric of many resamples of the rows at once.

A resample of n rows is how often each row is drawn, so a metric of B resamples is a function of weights (B, n); most
are made of sums over rows, which are one matrix product. Nothing is averaged over parts of a resample.
"""

from collections.abc import Callable
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain.metrics.entities import matched
from nlptrain.metrics.probabilities import BINS, bins, rankings, row_nll

Array = NDArray[Any]
Statistics = Callable[[Array], dict[str, Array]]
"""From weights (B, n) to the values (B,) of every metric, nan where one is undefined."""
# of the spread of all rows: what is left by rounding where a resample is constant
_CONSTANT = 1e-13


def classification(logits: Array, labels: Array, *, ranked: bool = True) -> Statistics:
    """Metrics of class ids and probabilities.

    Args:
        logits: (n, classes).
        labels: class ids (n,).
        ranked: whether auroc, which costs more than all others, is among them.
    """
    classes = logits.shape[1]
    one_hot = np.eye(classes)
    predicted, true = one_hot[logits.argmax(axis=1)], one_hot[labels]
    bin_of_row, gaps = bins(logits, labels)
    columns = [
        predicted * true,
        predicted,
        true,
        np.eye(BINS)[bin_of_row] * gaps[:, None],
        row_nll(logits, labels)[:, None],
    ]
    sums, ends = np.hstack(columns), np.cumsum([column.shape[1] for column in columns])[:-1]
    areas = [_area(score, right) for score, right in rankings(logits, labels)]

    def statistics(weights: Array) -> dict[str, Array]:
        hits, chosen, of_class, gap, loss = np.split(weights @ sums, ends, axis=1)
        total = weights.sum(axis=1)
        values = _of_counts(hits, chosen, of_class, total)
        values |= {"ece": np.abs(gap).sum(axis=1) / total, "nll": loss[:, 0] / total}
        # a class that a resample lacks is left out, as one that the split lacks is
        if not ranked:
            return values
        each = np.stack([area(weights) for area in areas]) if areas else np.full((1, len(weights)), np.nan)
        return values | {"auroc": _mean(each, ~np.isnan(each), axis=0)}

    return statistics


def regression(outputs: Array, labels: Array, *, ranked: bool = True) -> Statistics:
    """Metrics of scores.

    Args:
        outputs: (n, 1).
        labels: (n,).
        ranked: whether spearman, which costs more than all others, is among them.
    """
    # moments about means of the split: those about 0 would cancel digits
    p, y = outputs[:, 0] - outputs[:, 0].mean(), labels - labels.mean()
    error = outputs[:, 0] - labels
    sums = np.stack([p, y, p * p, y * y, p * y, error**2, np.abs(error)], axis=1)
    rank_p, rank_y = _ranks(p), _ranks(y)

    def statistics(weights: Array) -> dict[str, Array]:
        total = weights.sum(axis=1)
        mp, my, pp, yy, py, squared, absolute = (weights @ sums).T / total
        vp, vy = _spread(pp - mp**2, pp), _spread(yy - my**2, yy)
        ranks = {"spearman": _correlation(rank_p(weights), rank_y(weights), weights)} if ranked else {}
        return ranks | {
            "pearson": (py - mp * my) / np.sqrt(vp * vy),
            "mse": squared,
            "rmse": np.sqrt(squared),
            "mae": absolute,
            "nmse": squared / vy,
            "r2": 1 - squared / vy,
        }

    return statistics


def token_classification(outputs: Array, labels: Array, *, ranked: bool = True) -> Statistics:
    """Metrics of entities and tokens; a resample is one of rows, so that what is in one row stays together.

    Args:
        outputs: (n,) lists of predicted tags.
        labels: (n,) lists of tags.
        ranked: makes no difference.
    """
    counts = [[len(side) for side in row] for row in matched(outputs, labels)]
    tokens = [[sum(map(eq, *row)), len(row[0])] for row in zip(outputs, labels, strict=True)]
    sums = np.hstack([counts, tokens])

    def statistics(weights: Array) -> dict[str, Array]:
        right, predicted, wanted, right_tokens, all_tokens = (weights @ sums).T
        exists = predicted + wanted > 0
        return {
            "entity_f1": np.where(exists, _ratio(2 * right, predicted + wanted), np.nan),
            "entity_precision": np.where(exists, _ratio(right, predicted), np.nan),
            "entity_recall": np.where(exists, _ratio(right, wanted), np.nan),
            "token_accuracy": np.where(all_tokens > 0, _ratio(right_tokens, all_tokens), np.nan),
        }

    return statistics


RANKED = ("auroc", "spearman")
KINDS: dict[str, Callable[..., Statistics]] = {
    "classification": classification,
    "regression": regression,
    "token_classification": token_classification,
}


def _of_counts(hits: Array, predicted: Array, true: Array, total: Array) -> dict[str, Array]:
    """From counts (B, classes) of right rows, predicted rows and rows of each class."""
    occurs = (predicted + true) > 0
    precision, recall = _ratio(hits, predicted), _ratio(hits, true)
    f1 = _ratio(2 * hits, predicted + true)
    accuracy = hits.sum(axis=1) / total
    by_chance = (predicted * true).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    values = {
        "accuracy": accuracy,
        "f1_macro": _mean(f1, occurs),
        "precision_macro": _mean(precision, occurs),
        "recall_macro": _mean(recall, occurs),
        "balanced_accuracy": _mean(recall, true > 0),
        # 0 where one side is a single class
        "matthews_correlation": _ratio(accuracy * total**2 - by_chance, np.sqrt(spread)),
    }
    if hits.shape[1] == 2:
        values["f1"] = np.where(occurs[:, 1], f1[:, 1], np.nan)
    return values


def _area(score: Array, right: NDArray[np.bool_]) -> Callable[[Array], Array]:
    """Area under the ROC curve: how often a row of the class stands above one of the rest, ties half (Mann-Whitney)."""
    ranks = _ranks(score)

    def area(weights: Array) -> Array:
        mine = weights @ right
        rest = weights.sum(axis=1) - mine
        above = np.einsum("bn,bn->b", weights[:, right], ranks(weights)[:, right]) - mine**2 / 2
        return np.where(mine * rest > 0, above, np.nan) / np.where(mine * rest > 0, mine * rest, 1)

    return area


def _ranks(values: Array) -> Callable[[Array], Array]:
    """Weight of the rows below each row plus half of that of its ties, (B, n): ranks within the resample, minus 1/2."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    first, last = starts[group], starts[group + 1]

    def ranks(weights: Array) -> Array:
        below = np.zeros((len(weights), len(values) + 1))
        np.cumsum(weights[:, order], axis=1, out=below[:, 1:])
        return (below[:, first] + below[:, last]) / 2

    return ranks


def _correlation(a: Array, b: Array, weights: Array) -> Array:
    """Weighted linear correlation of (B, n) and (B, n)."""
    total = weights.sum(axis=1, keepdims=True)
    a = a - (a * weights).sum(axis=1, keepdims=True) / total
    b = b - (b * weights).sum(axis=1, keepdims=True) / total
    products = [np.einsum("bn,bn,bn->b", weights, x, y) for x, y in ((a, b), (a, a), (b, b))]
    scale = np.sqrt(_spread(products[1], total[:, 0] ** 3) * _spread(products[2], total[:, 0] ** 3))
    found: Array = products[0] / scale
    return found


def _spread(variance: Array, scale: Array) -> Array:
    """The variance, nan where it is rounding."""
    found: Array = np.where(variance > _CONSTANT * scale, variance, np.nan)
    return found


def _ratio(above: Array, below: Array) -> Array:
    """0 where there is nothing below."""
    found: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


def _mean(values: Array, chosen: NDArray[np.bool_], axis: int = 1) -> Array:
    """Mean of the chosen values, nan where there are none."""
    count = chosen.sum(axis=axis)
    total = np.where(chosen, values, 0.0).sum(axis=axis)
    found: Array = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return found
