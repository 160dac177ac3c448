"""What a refined head was measured to be at the point where its solver stopped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from nlptrain.refine.matrices import available, inverse, needed, solve
from nlptrain.refine.objective import Objective, Solution

Array = NDArray[np.float64]

# eigenvalues of a larger matrix take minutes
MAX_DENSE = 5000


@dataclass(frozen=True)
class Certificate:
    """Numbers about one fit, JSON-able by `as_dict`; gradients and eigenvalues are those of the standardised space.

    Attributes:
        solver: its name.
        why: one sentence: why this solver.
        rows: of all processes.
        parameters: number of fitted parameters P.
        l2: strength of the penalty.
        l2_by: how it was chosen, or "given".
        l2_curve: (l2, estimated loss on a new row) pairs; empty where it was given.
        proximal: whether the penalty pulls towards the head before the fit instead of 0.
        objective_before: mean loss plus penalty of the head before the fit.
        objective_after: of the refined head.
        gradient_inf: largest absolute entry of the gradient at the refined head.
        gradient_norm: its Euclidean length.
        converged: whether `gradient_inf` is within the tolerance.
        iterations: of the solver; 1 for a closed form.
        line_search_steps: evaluations beyond one for each iteration.
        history: objective at the solver's start and after each iteration.
        eigenvalue_max: largest eigenvalue of the exact Hessian; None where it could not be found.
        eigenvalue_min: smallest; negative: the head stands on a saddle; None for more than 5,000 parameters.
        condition: their ratio; None where the Hessian is not positive definite, or not known.
        effective_dimension: trace of ``H^-1`` times the Hessian without the penalty: how many parameters are
            determined by the rows rather than by the penalty; None as above.
        newton_decrement: ``g' H^-1 g / 2``, by how much the objective could still fall; None as above.
    """

    solver: str
    why: str
    rows: int
    parameters: int
    l2: float
    l2_by: str
    l2_curve: tuple[tuple[float, float], ...]
    proximal: bool
    objective_before: float
    objective_after: float
    gradient_inf: float
    gradient_norm: float
    converged: bool
    iterations: int
    line_search_steps: int
    history: tuple[float, ...]
    eigenvalue_max: float | None
    eigenvalue_min: float | None
    condition: float | None
    effective_dimension: float | None
    newton_decrement: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers, strings, None, and sequences of them."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Certificate":
        """The inverse of `as_dict`, also after JSON has made lists of tuples."""
        curve = tuple((float(l2), float(loss)) for l2, loss in values["l2_curve"])
        return cls(**{**values, "l2_curve": curve, "history": tuple(values["history"])})


def measure(objective: Objective, before: Array, solution: Solution, tolerance: float) -> dict[str, Any]:
    """The fields of a certificate that are measured; the gradient and curvature are taken anew at the end."""
    w = solution.point
    # H itself, an eigenvalue routine's copy of it, a factor and an inverse
    if len(w) <= MAX_DENSE and needed(len(w), 4) < available():
        value, gradient, matrix = objective.second(w)
        curvature = _dense(objective, gradient, matrix)
    else:
        value, gradient = objective.gradient(w)
        curvature = _largest(objective, w)
    steep = float(np.abs(gradient).max())
    return {
        "objective_before": objective.value(before),
        "objective_after": value,
        "gradient_inf": steep,
        "gradient_norm": float(np.linalg.norm(gradient)),
        "converged": steep <= tolerance,
        "iterations": len(solution.history) - 1,
        "line_search_steps": solution.trials,
        "history": solution.history,
        **curvature,
    }


def _dense(objective: Objective, gradient: Array, matrix: Array) -> dict[str, float | None]:
    values = eigvalsh(matrix)
    found: dict[str, float | None] = {"eigenvalue_max": float(values[-1]), "eigenvalue_min": float(values[0])}
    # what Cholesky takes for positive definite
    if values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]:
        return found | dict.fromkeys(("condition", "effective_dimension", "newton_decrement"))
    pulled = float(np.sum(objective.penalised * np.diag(inverse(matrix))))
    return found | {
        "condition": float(values[-1] / values[0]),
        "effective_dimension": len(values) - objective.l2 * pulled,
        "newton_decrement": float(gradient @ solve(matrix, gradient)) / 2,
    }


def _largest(objective: Objective, w: Array) -> dict[str, float | None]:
    """By Lanczos, from products with the Hessian only."""
    operator = LinearOperator((len(w), len(w)), matvec=lambda v: objective.product(w, v.ravel()), dtype=np.float64)
    names = ("eigenvalue_min", "condition", "effective_dimension", "newton_decrement")
    try:
        # a start of our own, for scipy's is random
        largest = float(eigsh(operator, 1, which="LA", v0=np.ones(len(w)), return_eigenvectors=False)[0])
    except ArpackNoConvergence:
        return dict.fromkeys(("eigenvalue_max", *names))
    return {"eigenvalue_max": largest, **dict.fromkeys(names)}
