"""The solvers by name, which heads they can fit, and the one that is chosen when none is named."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from nlptrain.refine import ridge
from nlptrain.refine.descent import bfgs_armijo, newton
from nlptrain.refine.head import Head
from nlptrain.refine.matrices import available, needed, require, shown
from nlptrain.refine.objective import Limits, Objective, Solution

Array = NDArray[np.float64]
Solve = Callable[[Objective, Array, Limits], Solution]


class Solver(NamedTuple):
    """One way to the minimum.

    Attributes:
        run: from an objective, a start and limits to a solution.
        matrices: that it holds at once, with the temporaries of its updates; P x P, of ridge d x d.
        exact: whether it wants the exact Hessian rather than the Gauss-Newton matrix.
        description: one line for listings.
    """

    run: Solve
    matrices: int
    exact: bool
    description: str


def bfgs(objective: Objective, start: Array, limits: Limits) -> Solution:
    """BFGS with a search for the Wolfe conditions."""
    return _run("BFGS", objective, start, _options(limits))


def lbfgs(objective: Objective, start: Array, limits: Limits) -> Solution:
    """L-BFGS-B with 20 pairs; no matrix is stored."""
    # ftol would stop it long before the gradient is small
    settings = {"maxcor": 20, "ftol": 0.0, "maxls": 40, "maxfun": 100 * limits.max_iterations}
    return _run("L-BFGS-B", objective, start, {**_options(limits), **settings})


def newton_cg(objective: Objective, start: Array, limits: Limits) -> Solution:
    """Newton whose equations are solved by conjugate gradients; no matrix is stored."""
    # it has no limit on the gradient, only one on the mean size of a step, which is that of the error
    settings = {"xtol": limits.tolerance / len(start), "maxiter": limits.max_iterations}
    return _run("Newton-CG", objective, start, settings, hessp=objective.product)


def trust_exact(objective: Objective, start: Array, limits: Limits) -> Solution:
    """Newton in a trust region with nearly exact steps."""
    return _run("trust-exact", objective, start, _options(limits), hess=lambda w: objective.second(w)[2].copy())


def _options(limits: Limits) -> dict[str, Any]:
    return {"gtol": limits.tolerance, "maxiter": limits.max_iterations}


def _run(
    method: str,
    objective: Objective,
    start: Array,
    options: dict[str, Any],
    hess: Callable[[Array], Array] | None = None,
    hessp: Callable[[Array, Array], Array] | None = None,
) -> Solution:
    history = [objective.value(start)]

    def note(intermediate_result: Any) -> None:
        history.append(float(intermediate_result.fun))

    done = minimize(
        objective.gradient,
        start,
        jac=True,
        method=method,
        hess=hess,
        hessp=hessp,
        callback=note,
        options=options,
    )
    return Solution(np.asarray(done.x, dtype=np.float64), history, max(int(done.nfev) - int(done.nit) - 1, 0))


def _ridge(objective: Objective, _start: Array, _limits: Limits) -> Solution:
    point = ridge.solve(objective, ridge.spectrum(objective))
    return Solution(point, [objective.value(objective.anchor), objective.value(point)], 0)


SOLVERS: dict[str, Solver] = {
    "ridge": Solver(_ridge, 4, False, "closed form; squared error and a linear head"),
    "newton": Solver(newton, 4, False, "damped Newton with Cholesky; Gauss-Newton where the head has hidden units"),
    "newton-exact": Solver(newton, 4, True, "damped Newton with the exact Hessian"),
    "bfgs": Solver(bfgs, 5, False, "scipy's BFGS, Wolfe line search"),
    "bfgs-armijo": Solver(bfgs_armijo, 1, False, "BFGS with Armijo backtracking, updated in place"),
    "lbfgs": Solver(lbfgs, 0, False, "scipy's L-BFGS-B; no matrix"),
    "newton-cg": Solver(newton_cg, 0, False, "scipy's Newton by conjugate gradients; no matrix"),
    "trust-exact": Solver(trust_exact, 4, True, "scipy's Newton in a trust region, exact Hessian"),
}
AUTO = "auto"
SMOOTH = ("gelu", "sigmoid", "tanh")
# beyond it a factorisation takes tens of seconds
MAX_NEWTON = 5000


def choose(method: str, head: Head, loss: str) -> tuple[str, str]:
    """Name of the solver, and one sentence why.

    Args:
        method: key of `SOLVERS`, or `AUTO`.
        head: the head that is fitted.
        loss: key of `LOSSES`.

    Raises:
        ValueError: an unknown name, or ridge where there is no closed form.
        ResourceError: the solver's matrices do not fit into memory.
    """
    closed = head.is_linear and loss == "mse"
    if method == AUTO:
        return _best(head, closed)
    if method not in SOLVERS:
        near = (get_close_matches(method, (*SOLVERS, AUTO), 1) or [AUTO])[0]
        raise ValueError(f"method: no {method!r}; the nearest valid name is {near!r}")
    if method == "ridge" and not closed:
        kind = "linear" if head.is_linear else "MLP"
        raise ValueError(f"method: ridge needs a linear head and mse, found a {kind} head and {loss}; use newton")
    require(method, _side(method, head), SOLVERS[method].matrices, "use lbfgs, which stores none")
    return method, "asked for by name"


def _side(method: str, head: Head) -> int:
    return head.features if method == "ridge" else head.size


def _best(head: Head, closed: bool) -> tuple[str, str]:
    # across the kinks of the others second derivatives tell nothing, and Gauss-Newton does better
    bends = not head.is_linear and head.activation in SMOOTH
    name, parameters = "ridge" if closed else "trust-exact" if bends else "newton", head.size
    need, free = needed(_side(name, head), SOLVERS[name].matrices), available()
    sizes = f"{parameters} parameters take {shown(need)} of the {shown(free)} available"
    if need > free:
        return "lbfgs", f"{name} would not fit: {sizes}"
    if closed:
        return name, f"squared error and a linear head have a closed form, and {sizes}"
    if parameters > MAX_NEWTON:
        return "lbfgs", f"{parameters} parameters are more than the {MAX_NEWTON} that Newton is used for"
    why = "a trust region leaves saddles behind" if bends else "it converges in the fewest passes over the rows"
    return name, f"{why}, and {sizes}"
