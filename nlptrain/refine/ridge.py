"""Ridge regression in closed form, for every strength of the penalty from one eigendecomposition."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from nlptrain.refine.derivatives import Data
from nlptrain.refine.objective import Objective

Array = NDArray[np.float64]
Choice = Literal["leave_one_out", "gcv"]


class Spectrum(NamedTuple):
    """The standardised features and the targets of all rows, as far as ridge regression sees them.

    Attributes:
        values: (d,) eigenvalues of ``X'X / n``.
        vectors: (d, d), their eigenvectors as columns.
        cross: (d, K), ``vectors' X' t / n``.
        mean: (K,), mean of t, which are the targets without what the anchor already says.
    """

    values: Array
    vectors: Array
    cross: Array
    mean: Array


def gram(data: Data, at: Array) -> Array:
    """``X'X`` (d, d) and ``[X 1]' t`` (d + 1, K), flat; t are the targets minus the outputs at `at`."""
    x = data.x[:, :-1]
    rest = data.targets - data.head.forward(at, data.x).outputs
    return np.concatenate([(x.T @ x).ravel(), (data.x.T @ rest).ravel()])


def press(data: Data, at: Array) -> Array:
    """(2 G,): the sums of squared errors, and of squared leave-one-out errors, for each of G strengths.

    `at` holds the anchor, the eigenvectors, and of each strength the inverse of n times the shifted eigenvalues (d),
    the coefficients in eigenvectors (d, K), the intercepts (K), and the intercept's share of every leverage.
    """
    d, k, size = data.head.features, data.head.outputs, data.head.size
    anchor, vectors, rest = np.split(at, [size, size + d * d])
    count = len(rest) // (d + d * k + k + 1)
    inverse, coefficients, intercepts, base = np.split(rest, np.cumsum([d * count, d * k * count, k * count]))
    total = np.zeros((2, count))
    for x, targets, done in data.batches(anchor, d + k * count):
        turned = x[:, :-1] @ vectors.reshape(d, d)
        leverages = base + np.square(turned) @ inverse.reshape(d, count)
        fitted = (turned @ coefficients.reshape(d, k * count) + intercepts).reshape(-1, k, count)
        errors = (targets - done.outputs)[:, :, None] - fitted
        squares = np.square(errors).sum(axis=1)
        total += np.stack([squares.sum(axis=0), (squares / np.square(1 - leverages)).sum(axis=0)])
    return total.ravel()


def spectrum(objective: Objective) -> Spectrum:
    """One pass over the rows and one eigendecomposition; neither depends on the strength of the penalty."""
    sums = objective.ask("gram", objective.anchor) / objective.rows
    # d * d numbers and (d + 1) * K, which are as many as the parameters
    border = len(sums) - len(objective.anchor)
    features = math.isqrt(border)
    cross = sums[border:].reshape(features + 1, -1)
    values, vectors = eigh(sums[:border].reshape(features, features))
    return Spectrum(np.maximum(values, 0), vectors, vectors.T @ cross[:-1], cross[-1])


def solve(objective: Objective, found: Spectrum) -> Array:
    """The minimiser (P,) for the objective's own l2; features must be standardised over all rows."""
    half = objective.l2 / 2
    weights = found.vectors @ (found.cross / (found.values + half)[:, None])
    intercept = found.mean / (1 + half * objective.penalised[-1])
    return np.asarray(objective.anchor + np.hstack([weights.T, intercept[:, None]]).ravel())


def curve(objective: Objective, found: Spectrum, grid: Array, choice: Choice) -> Array:
    """(G,): estimated mean squared error on a new row, for each l2 of `grid`.

    leave_one_out: exactly the mean over n refits without one row, where the penalty of the sum, ``n l2 / 2``, stays
    as it is (Allen 1974, PRESS). gcv: the same with every leverage replaced by their mean (Golub, Heath, Wahba 1979).
    """
    rows, half, d = objective.rows, grid / 2, len(found.values)
    shifted = found.values[:, None] + half
    coefficients = found.cross[:, :, None] / shifted[:, None, :]
    shrink = 1 + half * objective.penalised[-1]
    intercepts, base = found.mean[:, None] / shrink, 1 / (rows * shrink)
    parts = (objective.anchor, found.vectors, 1 / (rows * shifted), coefficients, intercepts, base)
    sums = objective.ask("press", np.concatenate([part.ravel() for part in parts])).reshape(2, -1)
    if choice == "leave_one_out":
        return np.asarray(sums[1] / rows)
    freedom = base * rows + (np.broadcast_to(found.values[:, None], (d, len(grid))) / shifted).sum(axis=0)
    return np.asarray(sums[0] / rows / np.square(1 - freedom / rows))
