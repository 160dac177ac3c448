"""Our own minimisers: damped Newton and BFGS with the whole inverse Hessian, both with Armijo backtracking.

Sources: Armijo 1966; Nocedal and Wright, "Numerical Optimization", 2006, algorithms 3.1, 3.2 and 6.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, cho_factor, cho_solve

from nlptrain.refine.objective import Limits, Objective, Solution

Array = NDArray[np.float64]

MAX_TRIALS = 40
# a decrease below the rounding of the value cannot be seen; without this the last steps before the optimum fail
_ROUNDING = 8 * np.finfo(np.float64).eps


class Step(NamedTuple):
    """Outcome of a search.

    Attributes:
        size: accepted step length; 0: none was, and point and value are those of the start.
        point: (P,).
        value: f at `point`.
        trials: points that were tried.
    """

    size: float
    point: Array
    value: float
    trials: int


def armijo(
    f: Callable[[Array], float],
    point: Array,
    value: float,
    direction: Array,
    slope: float,
    *,
    decrease: float = 0.1,
    shrink: float = 0.5,
) -> Step:
    """The first of the steps 1, shrink, shrink^2, ... with ``f <= value + decrease * step * slope``.

    Args:
        f: function of a (P,) point.
        point: start.
        value: f at `point`.
        direction: (P,).
        slope: gradient times direction; at least 0: nothing is tried.
        decrease: share of the linear decrease that is demanded, in (0, 1/2).
        shrink: in (0, 1).
    """
    if not slope < 0:
        return Step(0.0, point, value, 0)
    size = 1.0
    for trial in range(1, MAX_TRIALS + 1):
        reached = point + size * direction
        found = f(reached)
        if np.isfinite(found) and found <= value + decrease * size * slope + _ROUNDING * abs(value):
            return Step(size, reached, found, trial)
        size *= shrink
    return Step(0.0, point, value, MAX_TRIALS)


# of the mean eigenvalue: the first damping that is tried, and the one below which it is dropped
_LEAST_DAMPING = 1e-6
_GROWTH = 10.0


def newton(objective: Objective, start: Array, limits: Limits) -> Solution:
    """Minimise by ``w -= t (H + damping I)^-1 g``, with H the objective's matrix of second derivatives.

    No damping where H is positive definite, so that a convex problem converges quadratically; otherwise damping grows
    tenfold until H + damping I is, and shrinks tenfold after each step.
    """
    w, damping, trials = start, 0.0, 0
    value, gradient, matrix = objective.second(w)
    history = [value]
    for _ in range(limits.max_iterations):
        if np.abs(gradient).max() <= limits.tolerance:
            break
        least = _LEAST_DAMPING * max(float(np.trace(matrix)) / len(w), np.finfo(np.float64).tiny)
        direction, damping = _direction(matrix, gradient, damping if damping >= least else 0.0, least)
        step = armijo(objective.value, w, value, direction, float(gradient @ direction))
        trials += max(step.trials - 1, 0)
        if step.size == 0:
            break
        damping /= _GROWTH
        w = step.point
        value, gradient, matrix = objective.second(w)
        history.append(value)
    return Solution(w, history, trials)


def _direction(matrix: Array, gradient: Array, damping: float, least: float) -> tuple[Array, float]:
    """The Newton direction, and the damping it took."""
    while True:
        damped = matrix.copy()
        damped[np.diag_indices(len(gradient))] += damping
        try:
            return -cho_solve(cho_factor(damped, overwrite_a=True), gradient), damping
        except LinAlgError:
            damping = max(_GROWTH * damping, least)


Search = Callable[[Callable[[Array], float], Array, float, Array, float], Step]

# of |s| |y|: curvature below this is rounding
_LEAST_CURVATURE = 1e-12


def update_inverse(inverse: Array, s: Array, y: Array) -> bool:
    """``H <- (I - r s y') H (I - r y s') + r s s'`` with ``r = 1 / y's``, in place, and afterwards ``H y = s``.

    Backtracking, unlike a search for the Wolfe conditions, does not ensure ``y's > 0``; without it H would lose its
    positive definiteness, and the update is left out.

    Args:
        inverse: (P, P), Fortran order; only its upper triangle is read and written.
        s: (P,) step.
        y: (P,) change of the gradient.

    Returns:
        Whether H was updated.
    """
    curvature = float(s @ y)
    if not curvature > _LEAST_CURVATURE * float(np.linalg.norm(s) * np.linalg.norm(y)):
        return False
    hy = blas.dsymv(1.0, inverse, y)
    blas.dsyr2(-1 / curvature, s, hy, a=inverse, overwrite_a=True)
    blas.dsyr((1 + float(y @ hy) / curvature) / curvature, s, a=inverse, overwrite_a=True)
    return True


def bfgs_armijo(objective: Objective, start: Array, limits: Limits, search: Search = armijo) -> Solution:
    """Minimise by ``w -= t H g``; H starts as a multiple of the identity (Nocedal and Wright 2006, equation 6.20)."""
    return minimise(objective.value, objective.gradient, start, limits, search)[0]


def minimise(
    f: Callable[[Array], float],
    gradient_of: Callable[[Array], tuple[float, Array]],
    start: Array,
    limits: Limits,
    search: Search = armijo,
) -> tuple[Solution, Array]:
    """As `bfgs_armijo` for any function; also returns the upper triangle of the inverse Hessian.

    Args:
        f: value at a (P,) point.
        gradient_of: value and gradient there.
        start: (P,).
        limits: when to stop.
        search: along a direction.
    """
    w, trials, inverse = start, 0, np.eye(len(start), order="F")
    value, gradient = gradient_of(w)
    history, updates = [value], 0
    for _ in range(limits.max_iterations):
        if np.abs(gradient).max() <= limits.tolerance:
            break
        direction = -blas.dsymv(1.0, inverse, gradient)
        step = search(f, w, value, direction, float(gradient @ direction))
        trials += max(step.trials - 1, 0)
        if step.size == 0:
            break
        previous, s = gradient, step.point - w
        w = step.point
        value, gradient = gradient_of(w)
        history.append(value)
        y = gradient - previous
        if not updates and float(s @ y) > 0:
            inverse *= float(s @ y) / float(y @ y)
        updates += update_inverse(inverse, s, y)
    return Solution(w, history, trials), inverse
