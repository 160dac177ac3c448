"""Gradient descent, BFGS and damped Newton side by side on the yearly sunspot numbers.

    python scripts/sunspot.py $NLPTRAIN_DATA/sunspot/sunspot.dat --picture sunspot.svg

A small network predicts a year from the ten before it: 5 leaky-ReLU units and a skip connection. All three minimise
the same squared error with the same penalty from the same starts, with the same Armijo backtracking. The years from
`--held-out` on take part in no fit, scale or choice. NMSE is SSE / SST of one-step-ahead predictions: 1 for their mean.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sunspot_picture import picture

from nlptrain.metrics.functions import nmse
from nlptrain.refine import SOLVERS, Head, Refined, refine
from nlptrain.refine.descent import armijo
from nlptrain.refine.fit import Problem, over, prepare
from nlptrain.refine.objective import Limits, Objective, Solution
from nlptrain.refine.solvers import Solver

Array = NDArray[np.float64]

LAGS, HIDDEN = 10, 5
HEAD = Head(LAGS, 1, HIDDEN, "leaky_relu", skip=True)


class Series(NamedTuple):
    """Rows of ten years and the one after them; scaled by the mean and deviation of the years before the held-out ones.

    Attributes:
        years: (n,) of the targets.
        lags: (n, 10).
        targets: (n,).
        held_out: (n,) of bool.
        mean: of the years that are fitted.
        deviation: of them.
    """

    years: NDArray[np.int64]
    lags: Array
    targets: Array
    held_out: NDArray[np.bool_]
    mean: float
    deviation: float


class Fit(NamedTuple):
    """One start of one method.

    Attributes:
        history: objective at the start and after each iteration.
        fitted: NMSE on the years that were fitted.
        held_out: NMSE on the others.
        predictions: (m,) sunspot numbers of the held-out years.
        slope: largest absolute entry of the gradient at the end.
        seconds: it took.
    """

    history: list[float]
    fitted: float
    held_out: float
    predictions: Array
    slope: float
    seconds: float


def gradient_descent(objective: Objective, start: Array, limits: Limits) -> Solution:
    """Steepest descent; each search starts from twice the step before."""
    w, size, trials = start, 1.0, 0
    value, gradient = objective.gradient(w)
    history = [value]
    for _ in range(limits.max_iterations):
        if np.abs(gradient).max() <= limits.tolerance:
            break
        step = armijo(objective.value, w, value, -size * gradient, -size * float(gradient @ gradient))
        trials += max(step.trials - 1, 0)
        if step.size == 0:
            break
        w, size = step.point, 2 * size * step.size
        value, gradient = objective.gradient(w)
        history.append(value)
    return Solution(w, history, trials)


METHODS: dict[str, Solver] = {
    "gradient descent": Solver(gradient_descent, 0, False, "steepest descent with Armijo backtracking"),
    "BFGS": SOLVERS["bfgs-armijo"],
    "damped Newton": SOLVERS["newton-exact"],
}


def main() -> None:
    """Parse the words, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="lines of a year and its sunspot number, in order")
    parser.add_argument("--held-out", type=int, default=1921, help="first year that is not fitted")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 12)))
    parser.add_argument("--iterations", type=int, default=500, help="at most, of each method")
    parser.add_argument("--picture", type=Path, help="SVG file to write")
    words = parser.parse_args()
    series = read(words.data, words.held_out)
    linear = regression(series)
    found = {
        name: [fit(solver, series, seed, linear.certificate.l2, words.iterations) for seed in words.seeds]
        for name, solver in METHODS.items()
    }
    print("\n".join(table(found, linear, series)))
    if words.picture:
        words.picture.write_text(drawn(found, series), encoding="utf-8")


def read(file: Path, held_out: int) -> Series:
    """The series of a file.

    Raises:
        SystemExit: years that are not consecutive, or too few on one side of `held_out`.
    """
    table = np.loadtxt(file, dtype=np.float64, ndmin=2)
    if table.ndim != 2 or table.shape[1] != 2 or (np.diff(table[:, 0]) != 1).any():
        raise SystemExit(f"{file}: expected lines of a year and a number, each year one after the last")
    years = table[:, 0].astype(np.int64)
    fitted = table[years < held_out, 1]
    if len(fitted) <= LAGS + 1 or (years >= held_out).sum() < 2:
        raise SystemExit(
            f"--held-out: {held_out} leaves {len(fitted)} years to fit and {len(years) - len(fitted)} to predict; "
            f"expected more than {LAGS + 1} and 2 or more, of {years[0]} to {years[-1]}"
        )
    mean, deviation = float(fitted.mean()), float(fitted.std())
    scaled = (table[:, 1] - mean) / deviation
    lags = np.lib.stride_tricks.sliding_window_view(scaled, LAGS)[:-1]
    return Series(years[LAGS:], lags, scaled[LAGS:], years[LAGS:] >= held_out, mean, deviation)


def regression(series: Series) -> Refined:
    """The linear model of the same lags; leave-one-out on the fitted years chooses the penalty of all the models."""
    head, fitted = Head(LAGS, 1), ~series.held_out
    return refine(
        series.lags[fitted], series.targets[fitted], head, np.zeros(head.size), loss="mse", proximal=False, l2="auto"
    )


def fit(solver: Solver, series: Series, seed: int, l2: float, iterations: int) -> Fit:
    """One method from the start that belongs to a seed."""
    problem = posed(series, seed)
    objective = replace(problem.objective(over(problem.data), l2), exact=solver.exact)
    began = time.perf_counter()
    solution = solver.run(objective, problem.space.enter(problem.before), Limits(1e-8, iterations))
    seconds = time.perf_counter() - began
    parameters = problem.space.leave(solution.point, np.zeros(HEAD.size))
    outputs, out = HEAD(parameters, series.lags)[:, 0], series.held_out
    return Fit(
        solution.history,
        nmse(outputs[~out], series.targets[~out]),
        nmse(outputs[out], series.targets[out]),
        outputs[out] * series.deviation + series.mean,
        float(np.abs(objective.gradient(solution.point)[1]).max()),
        seconds,
    )


def posed(series: Series, seed: int) -> Problem:
    """The rows that are fitted, and a start: hidden weights as of Glorot and Bengio (2010), the others small."""
    rng, fitted = np.random.default_rng(seed), ~series.held_out
    arrays = {name: rng.normal(scale=0.1, size=shape) for name, shape in HEAD.shapes().items()}
    arrays["hidden_weight"] *= np.sqrt(2 / (LAGS + HIDDEN)) / 0.1
    return prepare(series.lags[fitted], series.targets[fitted], HEAD, HEAD.pack(arrays), loss="mse", proximal=False)


def table(found: Mapping[str, Sequence[Fit]], linear: Refined, series: Series) -> Iterator[str]:
    """Markdown: a row for each method with medians and ranges over the seeds, and one for a linear model."""
    out = series.held_out
    yield f"{(~out).sum()} years fitted, {out.sum()} from {series.years[out][0]} to {series.years[out][-1]} held out"
    yield f"l2 = {linear.certificate.l2:g}, by {linear.certificate.l2_by} of the linear model on the fitted years"
    yield ""
    yield "| method | objective | NMSE fitted | NMSE held out | iterations | gradient | ms | seeds |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, fits in found.items():
        columns = (
            spread([f.history[-1] for f in fits], ".4f"),
            spread([f.fitted for f in fits], ".3f"),
            spread([f.held_out for f in fits], ".3f"),
            spread([len(f.history) - 1.0 for f in fits], ".0f"),
            f"{median(f.slope for f in fits):.0e}",
            f"{1000 * median(f.seconds for f in fits):.0f}",
        )
        yield f"| {name} | {' | '.join(columns)} | {len(fits)} |"
    errors = (nmse(linear.outputs(series.lags[part])[:, 0], series.targets[part]) for part in (~out, out))
    scores = " | ".join(f"{error:.3f}" for error in errors)
    yield f"| linear, closed form | {linear.certificate.objective_after:.4f} | {scores} | 1 | | | |"


def spread(values: Sequence[float], digits: str) -> str:
    """Median and range."""
    return f"{median(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def drawn(found: Mapping[str, Sequence[Fit]], series: Series) -> str:
    """The picture: the objective as a median over the seeds, and each method's predictions from the middle seed."""
    curves, predictions = {}, {}
    for name, fits in found.items():
        longest = max(len(f.history) for f in fits)
        rows = [f.history + [f.history[-1]] * (longest - len(f.history)) for f in fits]
        curves[name] = [float(value) for value in np.median(rows, axis=0)]
        middle = sorted(fits, key=lambda f: f.held_out)[(len(fits) - 1) // 2]
        predictions[name] = [float(value) for value in middle.predictions]
    years = [int(year) for year in series.years[series.held_out]]
    numbers = [float(number) for number in series.targets[series.held_out] * series.deviation + series.mean]
    return picture(curves, years, numbers, predictions)


if __name__ == "__main__":
    main()
