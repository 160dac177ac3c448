"""Whether one way of training is better than another: paired over the same rows and the same seeds.

A score differs from one set of test rows to another, and from one seed to another. Both are counted: the variance of
the mean difference is that over rows (paired bootstrap, the same resamples for all runs, seeds averaged) plus that over
seeds (sample variance of the differences of the seeds, over their number), and the interval is Student's t with the
degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2, 110-114). Resampling a handful
of seeds instead covers far less than it says, and a t test over seeds alone takes the test rows for granted.
With one seed the interval is of these rows alone and says nothing of other seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from nlptrain.errors import DataError
from nlptrain.metrics.bootstrap import LEVEL, SEED, TOLERATED, Interval, distribution, intervals
from nlptrain.metrics.registry import spec
from nlptrain.metrics.weighted import KINDS, RANKED, Array, Statistics
from nlptrain.predictions import Predictions

RESAMPLES = 2000
ROWS = "paired bootstrap over rows, one seed"
ROWS_AND_SEEDS = "paired bootstrap over rows plus variance over seeds, t"
Seeds = Mapping[int, Predictions]
Ends = tuple[float, float] | str


@dataclass(frozen=True)
class Difference:
    """A metric of B minus that of A, on the same rows.

    Attributes:
        metric: its name.
        a: mean over the seeds of A's values, None where one is undefined.
        b: the same of B.
        value: mean over seeds of b - a, None where one is undefined.
        low: lower end of the 95 % interval.
        high: upper end.
        seeds: the paired seeds.
        by_seed: b - a of every seed.
        rows: of the split.
        method: of the interval.
        reason: why there is no value or no interval; empty otherwise.
    """

    metric: str
    a: float | None
    b: float | None
    value: float | None
    low: float | None
    high: float | None
    seeds: list[int]
    by_seed: list[float | None]
    rows: int
    method: str
    reason: str = ""

    @property
    def shown_better(self) -> str | None:
        """The side, a or b, that is better where the interval excludes 0, else None."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return None
        return "b" if (self.low > 0) == spec(self.metric).greater_is_better else "a"


def differences(
    kind: str, a: Seeds, b: Seeds, *, metrics: Sequence[str] | None = None, resamples: int = RESAMPLES
) -> list[Difference]:
    """The difference of every metric.

    Args:
        kind: of the task.
        a: seed to the predictions of its run.
        b: of the same seeds and rows, see `check_same_rows`.
        metrics: names; None: all that are reported.
        resamples: of the rows.
    """
    ranked = metrics is None or any(name in RANKED for name in metrics)
    pairs = {seed: [KINDS[kind](r.outputs, r.labels, ranked=ranked) for r in (a[seed], b[seed])] for seed in a}
    points = {seed: [_point(one, len(a[seed])) for one in pair] for seed, pair in pairs.items()}
    names = [name for name in next(iter(points.values()))[0] if metrics is None or name in metrics]
    ends = _one_seed if len(a) == 1 else _many_seeds
    found = ends(pairs, a, resamples)
    return [_difference(name, points, found[name], {seed: len(rows) for seed, rows in a.items()}) for name in names]


def check_same_rows(a: Predictions, b: Predictions, names: tuple[str, str]) -> None:
    """Raise `DataError` unless the rows are the same in the same order, with the first one that differs."""
    problem = None
    if len(a) != len(b):
        problem = f"{names[0]} has {len(a)} rows, {names[1]} has {len(b)}"
    elif a.texts != b.texts:
        row = next(row for row in range(len(a)) if a.texts[row] != b.texts[row])
        problem = f"row {row + 1} is line {a.lines[row]} of {names[0]}'s source and line {b.lines[row]} of {names[1]}'s"
        problem += ", and their texts differ"
    elif not np.array_equal(a.labels, b.labels):
        row = int(np.flatnonzero(a.labels != b.labels)[0])
        problem = f"line {a.lines[row]} has the label {a.labels[row]} in {names[0]} and {b.labels[row]} in {names[1]}"
    elif a.outputs.shape != b.outputs.shape:
        problem = f"{names[0]} has {a.outputs.shape[1]} outputs, {names[1]} has {b.outputs.shape[1]}"
    if problem:
        remedy = "score both on one file, with a validation file of its own or the same training.seed"
        raise DataError("COMPARE", f"not the same rows: {problem}; {remedy}")


def mcnemar(a: Predictions, b: Predictions) -> dict[str, Any]:
    """McNemar's exact test (1947) of two classifications: rows that only one has right, and the two-sided p."""
    right_a, right_b = (rows.outputs.argmax(axis=1) == rows.labels for rows in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a_right": only_a, "only_b_right": only_b, "p": p}


def seed_test(by_seed: Sequence[float | None]) -> dict[str, Any] | None:
    """Student's paired t test over seeds, the test rows taken for granted; None where it has no value."""
    values = [value for value in by_seed if value is not None]
    if len(values) < 2 or len(values) < len(by_seed) or np.ptp(values) == 0:
        return None
    found = stats.ttest_1samp(values, 0.0)
    return {"t": float(found.statistic), "df": len(values) - 1, "p": float(found.pvalue)}


def _point(statistics: Statistics, rows: int) -> dict[str, float | None]:
    found = {name: float(values[0]) for name, values in statistics(np.ones((1, rows))).items()}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _one_seed(pairs: dict[int, list[Statistics]], rows: Seeds, resamples: int) -> dict[str, Ends]:
    (seed,) = pairs
    found = intervals(_minus(*pairs[seed]), len(rows[seed]), resamples)
    return {name: (one.low, one.high) if isinstance(one, Interval) else one for name, one in found.items()}


def _many_seeds(pairs: dict[int, list[Statistics]], rows: Seeds, resamples: int) -> dict[str, Ends]:
    shared = len({found.texts for found in rows.values()}) == 1
    minus = {seed: _minus(*pair) for seed, pair in pairs.items()}
    ones = [{n: float(v[0]) for n, v in minus[s](np.ones((1, len(rows[s])))).items()} for s in minus]
    # of rows that all seeds share the same are drawn for all; of others each seed draws its own
    drawn = [
        distribution(minus[seed], len(rows[seed]), resamples, SEED if shared else SEED + number)
        for number, seed in enumerate(minus)
    ]
    count = min(map(len, rows.values()))
    return {n: _t_interval([one[n] for one in ones], np.stack([d[n] for d in drawn]), count) for n in ones[0]}


def _t_interval(values: list[float], drawn: Array, rows: int) -> Ends:
    """About the mean of the differences of S seeds, from their resamples (S, B) of so many rows."""
    seeds, mean = len(values), float(np.mean(values))
    averaged = drawn.mean(axis=0)
    defined = averaged[~np.isnan(averaged)]
    if np.isnan(mean) or len(defined) < (1 - TOLERATED) * len(averaged):
        return f"undefined in {len(averaged) - len(defined)} of {len(averaged)} resamples"
    over_rows, over_seeds = float(np.var(defined, ddof=1)), float(np.var(values, ddof=1)) / seeds
    variance = over_rows + over_seeds
    if variance == 0:
        return mean, mean
    freedom = variance**2 / (over_seeds**2 / (seeds - 1) + over_rows**2 / (rows - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return mean - half, mean + half


def _minus(a: Statistics, b: Statistics) -> Statistics:
    def statistics(weights: Array) -> dict[str, Array]:
        theirs = a(weights)
        return {name: values - theirs[name] for name, values in b(weights).items()}

    return statistics


def _difference(
    name: str, points: dict[int, list[dict[str, float | None]]], ends: Ends, rows: dict[int, int]
) -> Difference:
    sides = [[point[side][name] for point in points.values()] for side in (0, 1)]
    by_seed = [None if x is None or y is None else y - x for x, y in zip(*sides, strict=True)]
    a, b, value = (_mean(column) for column in (*sides, by_seed))
    method = ROWS if len(points) == 1 else ROWS_AND_SEEDS
    low, high, reason = None, None, ""
    if value is None:
        bad = [seed for seed, one in zip(points, by_seed, strict=True) if one is None]
        reason = f"undefined for seed {', '.join(map(str, bad))}"
    elif isinstance(ends, str):
        reason = ends
    else:
        low, high = ends
    return Difference(name, a, b, value, low, high, list(points), by_seed, max(rows.values()), method, reason)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None
