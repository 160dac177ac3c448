"""Refining a head: from features, targets and the head before to the head after and its certificate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine import derivatives, leave_one_out, penalty, ridge, solvers
from nlptrain.refine.certificate import Certificate, measure
from nlptrain.refine.derivatives import Data
from nlptrain.refine.head import Head
from nlptrain.refine.losses import LOSSES
from nlptrain.refine.objective import Limits, Objective
from nlptrain.refine.reduction import Ask, add, lead, refuse_together
from nlptrain.refine.space import Space

Array = NDArray[np.float64]

# the sums over rows that a fit may ask all processes for
OPERATIONS: dict[str, Callable[[Data, Array], Array]] = {
    "loss": derivatives.loss,
    "gradient": derivatives.gradient,
    "gauss_newton": derivatives.gauss_newton,
    "hessian": derivatives.hessian,
    "product": derivatives.product,
    "gram": ridge.gram,
    "press": ridge.press,
    "left_out": leave_one_out.left_out_loss,
}


def over(data: Data) -> Ask:
    """Each of the sums over the rows of this process."""
    return lambda name, at: OPERATIONS[name](data, at)


@dataclass(frozen=True)
class Problem:
    """The rows of this process, standardised, and the map back.

    Attributes:
        space: raw and fitted head.
        data: rows of this process.
        rows: number of rows of all processes.
        before: (P,) raw head before the fit.
        proximal: whether the penalty pulls towards it.
    """

    space: Space
    data: Data
    rows: int
    before: Array
    proximal: bool

    def objective(self, ask: Ask, l2: float) -> Objective:
        """What is minimised, from the sums of all processes.

        The penalty spares the biases when it pulls towards 0. A proximal one pulls at every parameter, so that it
        leaves the head as it was where it is strong.
        """
        start = self.space.enter(self.before)
        marks = np.where(self.space.inside.biases() & (not self.proximal), 0.0, 1.0)
        return Objective(ask, self.rows, l2, start if self.proximal else np.zeros_like(start), marks)


@dataclass(frozen=True)
class Refined:
    """A refined head; the same bits on every process.

    Attributes:
        parameters: (P,) of the raw head: `head.unpack(parameters)` gives its arrays.
        certificate: what was measured.
        space: raw and fitted head.
        point: (P',) parameters of the fitted head, of which the certificate speaks.
        loss: key of `LOSSES`.
    """

    parameters: Array
    certificate: Certificate
    space: Space
    point: Array
    loss: str

    @property
    def head(self) -> Head:
        """The raw head."""
        return self.space.head

    def outputs(self, features: Array) -> Array:
        """(m, outputs) logits or scores of (m, d) raw features."""
        return self.head(self.parameters, features)


def refine(
    features: Array,
    targets: NDArray[Any],
    head: Head,
    before: Array,
    *,
    loss: Literal["cross_entropy", "mse"],
    proximal: bool,
    method: str = solvers.AUTO,
    l2: float | Literal["auto"] = "auto",
    l2_by: ridge.Choice = "leave_one_out",
    grid: Sequence[float] = penalty.GRID,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
) -> Refined:
    """Minimise ``mean loss + l2/2 |w - anchor|^2`` over the head, on standardised features; called by all processes.

    Args:
        features: (n, d) of this process, without dropout; n may differ between processes and be 0 on some.
        targets: (n,) class ids of a cross entropy, (n,) or (n, outputs) scores of mse.
        head: shape of the head. One output and cross entropy: the logit of class 1 against class 0.
        before: (P,) the head before the fit, as `head.pack` gives it; a head with hidden units is fitted from there.
        loss: cross entropy in nats, or squared error summed over the outputs.
        proximal: True: anchor is `before`. False: anchor is 0, and biases are free.
        method: key of `SOLVERS`, or auto.
        l2: > 0; auto: the best of `grid` by leave-one-out, for linear heads.
        l2_by: what estimates the loss on a new row, of ridge regression.
        grid: candidates, each > 0.
        tolerance: largest absolute entry of the gradient that counts as zero.
        max_iterations: of the solver.

    Returns:
        The refined head, also where it did not converge: `certificate.converged` tells.

    Raises:
        ValueError: an argument is out of range, or rows of this process cannot be fitted.
        ResourceError: the matrices of `method` do not fit into memory.
        ProcessError: another process refused its rows, or process 0 failed.
    """
    _check(head, l2, grid, Limits(tolerance, max_iterations))
    problem = prepare(features, targets, head, before, loss=loss, proximal=proximal)

    def solve(ask: Ask) -> dict[str, Any]:
        name, why = solvers.choose(method, problem.space.inside, loss)
        objective = problem.objective(ask, 1.0 if l2 == "auto" else l2)
        start, chosen = _start(objective, problem), penalty.Choice(objective.l2, [], "given")
        if l2 == "auto":
            values = np.asarray(grid, dtype=np.float64)
            chosen = penalty.choose(objective, problem.space.inside, loss, values, l2_by, start)
        return _solve(replace(objective, l2=chosen.l2), problem, start, name, Limits(tolerance, max_iterations)) | {
            "solver": name,
            "why": why,
            "l2": chosen.l2,
            "l2_curve": chosen.curve,
            "l2_by": chosen.by,
        }

    found = lead(list(OPERATIONS), over(problem.data), solve)
    point, parameters = (np.array(found.pop(key), dtype=np.float64) for key in ("point", "parameters_after"))
    return Refined(parameters, Certificate.read(found), problem.space, point, loss)


def prepare(features: Array, targets: NDArray[Any], head: Head, before: Array, *, loss: str, proximal: bool) -> Problem:
    """The problem of `refine`, whose arguments these are; called by all processes.

    Raises:
        ValueError: an argument is out of range, or rows of this process cannot be fitted.
        ProcessError: another process refused its rows.
    """
    if loss not in LOSSES:
        near = (get_close_matches(loss, LOSSES, 1) or list(LOSSES))[0]
        raise ValueError(f"loss: no {loss!r}; the nearest valid name is {near!r}")
    before = np.asarray(before, dtype=np.float64)
    head.split(before)
    fault = _fault(features, targets, head, before, loss)
    refuse_together(ValueError(fault) if fault else None)
    rows = int(add(np.array([float(len(features))]))[0])
    if not rows:
        raise ValueError("a head is refined on 1 row or more, found none")
    made = LOSSES[loss].of(head.outputs)
    space = Space.fit(head, made.basis, np.asarray(features, dtype=np.float64))
    wanted = targets if loss == "cross_entropy" else np.asarray(targets, dtype=np.float64).reshape(-1, head.outputs)
    data = Data(space.design(np.asarray(features, dtype=np.float64)), wanted, space.inside, made)
    return Problem(space, data, rows, before, proximal)


def _start(objective: Objective, problem: Problem) -> Array:
    """The head before, or the anchor where the problem is convex and that is nearer to the minimum."""
    start = problem.space.enter(problem.before)
    if not problem.space.head.is_linear:
        return start
    return min((start, objective.anchor), key=objective.value)


def _solve(objective: Objective, problem: Problem, start: Array, name: str, limits: Limits) -> dict[str, Any]:
    solver, linear = solvers.SOLVERS[name], problem.space.head.is_linear
    # for a linear head the two matrices are one, and a solver's last can be measured without taking it again
    objective = replace(objective, exact=solver.exact and not linear)
    solution = solver.run(objective, start, limits)
    measured = measure(
        objective if linear else replace(objective, exact=True),
        problem.space.enter(problem.before),
        solution,
        limits.tolerance,
    )
    anchor = problem.before if problem.proximal else np.zeros(problem.space.head.size)
    return measured | {
        "rows": problem.rows,
        "parameters": len(start),
        "proximal": problem.proximal,
        "point": solution.point.tolist(),
        "parameters_after": problem.space.leave(solution.point, anchor).tolist(),
    }


def _check(head: Head, l2: float | Literal["auto"], grid: Sequence[float], limits: Limits) -> None:
    if l2 == "auto" and not head.is_linear:
        raise ValueError("l2: auto needs a linear head; give a number > 0 for a head with hidden units")
    values = list(grid) if l2 == "auto" else [l2]
    if not values or not all(0 < float(value) < math.inf for value in values):
        raise ValueError(f"l2: must be a finite number > 0, found {values}; the nearest valid value is a small one")
    if not 0 < limits.tolerance < math.inf or limits.max_iterations < 1:
        raise ValueError(
            "tolerance must be a finite number > 0 and max_iterations 1 or more, found "
            f"{limits.tolerance} and {limits.max_iterations}"
        )


def _fault(features: Array, targets: NDArray[Any], head: Head, before: Array, loss: str) -> str | None:
    """What is wrong with the rows of this process."""
    if features.ndim != 2 or features.shape[1] != head.features:
        return f"features: expected (n, {head.features}), found {features.shape}"
    shapes = [(len(features),)] + ([(len(features), head.outputs)] if loss == "mse" else [])
    if targets.shape not in shapes or (loss == "mse" and targets.size != len(features) * head.outputs):
        return f"targets: expected {' or '.join(map(str, shapes))}, found {targets.shape}"
    for name, values in (("features", features), ("targets", targets), ("the head before", before)):
        if len(broken := np.argwhere(~np.isfinite(values))):
            return f"{name}: not finite at {tuple(map(int, broken[0]))}"
    classes = max(head.outputs, 2)
    if loss == "cross_entropy" and len(targets):
        if not np.issubdtype(targets.dtype, np.integer):
            return f"targets: class ids must be integers, found {targets.dtype}"
        if targets.min() < 0 or targets.max() >= classes:
            return f"targets: class ids must be 0 to {classes - 1}, found {targets.min()} to {targets.max()}"
    return None
