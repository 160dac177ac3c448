"""Bootstrap distributions and intervals of metrics, all metrics of a split from the same resamples.

What `scipy.stats.bootstrap(paired=True)` does for one statistic at a time, number for number; drawing the rows once for
all metrics is what makes it fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from nlptrain.metrics.weighted import Array, Statistics

LEVEL = 0.95
SEED = 0
# 64-bit floats of a chunk of weights
CHUNK = 1_000_000
# rows above which the correction of BCa is far below the width of the interval, and its cost is not
MOST_ROWS_FOR_BCA = 5_000
# share of resamples in which a metric may be undefined
TOLERATED = 0.05


@dataclass(frozen=True)
class Interval:
    """A 95 % bootstrap interval.

    Attributes:
        low: lower end.
        high: upper end.
        method: BCa (Efron 1987, "Better bootstrap confidence intervals"), or percentile where that has no value.
        reason: why it is not BCa; empty otherwise.
    """

    low: float
    high: float
    method: Literal["bca", "percentile"]
    reason: str = ""


def draws(rows: int, count: int, seed: int = SEED) -> Iterator[Array]:
    """Weights (B, rows) of `count` resamples in chunks; the same for the same numbers, however they are chunked."""
    rng, size = np.random.default_rng(seed), max(1, CHUNK // rows)
    for start in range(0, count, size):
        chunk = min(size, count - start)
        index = rng.integers(0, rows, (chunk, rows)) + rows * np.arange(chunk)[:, None]
        yield np.bincount(index.ravel(), minlength=chunk * rows).reshape(chunk, rows).astype(np.float64)


def distribution(statistics: Statistics, rows: int, count: int, seed: int = SEED) -> dict[str, Array]:
    """Every metric of `count` resamples, each (count,), nan where undefined."""
    return _joined([statistics(weights) for weights in draws(rows, count, seed)])


def intervals(statistics: Statistics, rows: int, count: int, seed: int = SEED) -> dict[str, Interval | str]:
    """The interval of every metric, or the reason why there is none.

    Args:
        statistics: see `nlptrain.metrics.weighted`.
        rows: of the split.
        count: resamples.
        seed: of the resamples.
    """
    values = statistics(np.ones((1, rows)))
    resampled = distribution(statistics, rows, count, seed)
    bca = 2 < rows <= MOST_ROWS_FOR_BCA
    left_out = _joined([statistics(weights) for weights in _without_one(rows)]) if bca else {}
    return {name: _interval(values[name][0], resampled[name], left_out.get(name)) for name in values}


def _interval(value: float, resampled: Array, left_out: Array | None) -> Interval | str:
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or len(defined) < (1 - TOLERATED) * len(resampled):
        return f"undefined in {len(resampled) - len(defined)} of {len(resampled)} resamples"
    levels = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    corrected, reason = _bca(levels, value, defined, left_out)
    low, high = np.percentile(defined, 100 * (levels if reason else corrected))
    return Interval(float(low), float(high), "percentile" if reason else "bca", reason)


def _bca(levels: Array, value: float, resampled: Array, left_out: Array | None) -> tuple[Array, str]:
    """Levels corrected for bias and acceleration (Efron and Tibshirani 1993, eq. 14.10), or why there are none."""
    if left_out is None:
        return levels, f"not 3 to {MOST_ROWS_FOR_BCA} rows"
    if np.ptp(resampled) == 0:
        return levels, "every resample has the same value"
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    pull = left_out.mean() - left_out
    spread = (pull**2).sum()
    if not 0 < below < 1 or np.isnan(spread) or spread == 0:
        return levels, "its corrections have no value"
    bias, acceleration = ndtri(below), (pull**3).sum() / (6 * spread**1.5)
    shifted = bias + ndtri(levels)
    return ndtr(bias + shifted / (1 - acceleration * shifted)), ""


def _without_one(rows: int) -> Iterator[Array]:
    """Weights of the rows without each one in turn."""
    size = max(1, CHUNK // rows)
    for start in range(0, rows, size):
        chunk = np.ones((min(size, rows - start), rows))
        chunk[np.arange(len(chunk)), start + np.arange(len(chunk))] = 0
        yield chunk


def _joined(parts: list[dict[str, Array]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
