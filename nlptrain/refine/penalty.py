"""The strength of the penalty chosen on the rows themselves, by leave-one-out."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine import ridge
from nlptrain.refine.descent import newton
from nlptrain.refine.head import Head
from nlptrain.refine.matrices import inverse, require
from nlptrain.refine.objective import Limits, Objective

Array = NDArray[np.float64]

# standardised features: the eigenvalues of their correlation have the mean 1
GRID = tuple(float(value) for value in np.logspace(-6, 3, 19))
# held at once while a strength is judged
_MATRICES = 5


class Choice(NamedTuple):
    """A strength of the penalty and why.

    Attributes:
        l2: the chosen one.
        curve: (l2, estimated loss on a new row) of each in the grid, ascending.
        by: how the loss was estimated.
    """

    l2: float
    curve: list[tuple[float, float]]
    by: str


def choose(objective: Objective, head: Head, loss: str, grid: Array, by: ridge.Choice, start: Array) -> Choice:
    """The l2 of `grid` with the lowest estimated loss on a new row; for linear heads.

    Squared error: exactly by leave-one-out, or by GCV. Cross entropy: a Newton fit for each l2, each from the one
    before, and the one-step approximation of leave-one-out.

    Raises:
        ResourceError: the matrices do not fit into memory.
    """
    grid = np.sort(grid)
    require("l2: auto", head.features if loss == "mse" else head.size, _MATRICES, "give l2 a number")
    if loss == "mse":
        scores = ridge.curve(objective, ridge.spectrum(objective), grid, by)
    else:
        scores = _approximate(objective, grid, start)
    names = {"leave_one_out": "exact leave-one-out", "gcv": "generalised cross-validation"}
    return Choice(
        float(grid[int(np.argmin(scores))]),
        [(float(l2), float(score)) for l2, score in zip(grid, scores, strict=True)],
        names[by] if loss == "mse" else "leave-one-out, one Newton step a row",
    )


def _approximate(objective: Objective, grid: Array, start: Array) -> Array:
    """(G,); from the strongest penalty down, since its fit is the easiest to find."""
    found, w = [], start
    for l2 in grid[::-1]:
        current = replace(objective, l2=float(l2))
        w = newton(current, w, Limits(tolerance=1e-7)).point
        covariance = inverse(current.second(w)[2]) / objective.rows
        found.append(objective.ask("left_out", np.concatenate([w, covariance.ravel()]))[0] / objective.rows)
    return np.array(found[::-1])
