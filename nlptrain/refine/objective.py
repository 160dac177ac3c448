"""What every solver minimises, mean loss over all rows of all processes plus the penalty; and its limits and result."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine.reduction import Ask

Array = NDArray[np.float64]


@dataclass
class Objective:
    """``mean loss + l2/2 * sum over penalised parameters of (w - anchor)^2``.

    Args:
        ask: sums over all rows of all processes, by name.
        rows: number of those rows.
        l2: > 0, strength of the penalty.
        anchor: (P,), where the penalty is 0.
        penalised: (P,) of 1 and 0.
        exact: whether `second` gives the exact Hessian; False: the Gauss-Newton matrix, the same for a linear head.
    """

    ask: Ask
    rows: int
    l2: float
    anchor: Array
    penalised: Array
    exact: bool = False
    _known: tuple[bool, Array, tuple[float, Array, Array]] | None = field(default=None, init=False, repr=False)

    def value(self, w: Array) -> float:
        """f(w)."""
        return float(self.ask("loss", w)[0] / self.rows) + self._penalty(w)

    def gradient(self, w: Array) -> tuple[float, Array]:
        """f(w) and its gradient (P,)."""
        sums = self.ask("gradient", w) / self.rows
        return float(sums[0]) + self._penalty(w), sums[1:] + self._pull(w)

    def second(self, w: Array) -> tuple[float, Array, Array]:
        """f(w), its gradient (P,) and its matrix of second derivatives (P, P), to be read only."""
        if self._known and self._known[0] == self.exact and np.array_equal(self._known[1], w):
            return self._known[2]
        sums = self.ask("hessian" if self.exact else "gauss_newton", w)
        sums /= self.rows
        size = len(w)
        matrix = sums[1 + size :].reshape(size, size)
        matrix[np.diag_indices(size)] += self.l2 * self.penalised
        found = float(sums[0]) + self._penalty(w), sums[1 : 1 + size] + self._pull(w), matrix
        self._known = self.exact, w.copy(), found
        return found

    def product(self, w: Array, direction: Array) -> Array:
        """Exact Hessian at w times a (P,) direction."""
        sums = self.ask("product", np.concatenate([w, direction])) / self.rows
        return np.asarray(sums + self.l2 * self.penalised * direction)

    def _penalty(self, w: Array) -> float:
        return float(self.l2 / 2 * np.sum(self.penalised * (w - self.anchor) ** 2))

    def _pull(self, w: Array) -> Array:
        return np.asarray(self.l2 * self.penalised * (w - self.anchor))


class Limits(NamedTuple):
    """When to stop.

    Attributes:
        tolerance: largest absolute entry of the gradient that counts as zero.
        max_iterations: at least 1.
    """

    tolerance: float = 1e-8
    max_iterations: int = 500


class Solution(NamedTuple):
    """Where a solver ended.

    Attributes:
        point: (P,).
        history: objective at the start and after each iteration.
        trials: evaluations of the line search beyond one for each iteration.
    """

    point: Array
    history: list[float]
    trials: int
