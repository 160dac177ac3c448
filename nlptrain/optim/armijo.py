"""AdamW without a learning rate: an Armijo line search on the mini-batch finds the size of every step.

The loss of the same mini-batch is evaluated along the direction of AdamW, and the first step size is taken that brings
a set share of the decrease which the slope promises (Armijo 1966; on mini-batches Vaswani et al. 2019, arXiv
1905.09997; along Adam's direction Vaswani et al. 2020, arXiv 2006.06835):

    L(w + step * d) <= L(w) + c * step * <g, d>,    d = -m_hat / (sqrt(v_hat) + eps) - weight_decay * w

Decoupled decay is part of `d`, so that the slope is the one of the path that is really taken. The search starts a
little above the step before. Where momentum points uphill, the gradient itself takes the place of `m_hat`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from nlptrain.errors import DivergedError

SEARCH = "line_search"
# a demanded decrease below so many times the noise of the loss cannot be told from it
_ABOVE_NOISE = 10
# share of a step along which the loss is as good as linear: what departs from the line is noise
_PROBE = 1e-4
_PROBES, _PROBE_EVERY = 8, 10
# setting -> low, high, both ends excluded, usual value
_RANGES: dict[str, tuple[float, float, bool, float]] = {
    "lr": (0.0, 1.0, False, 1.0),
    "c": (0.0, 1.0, True, 0.5),
    "initial_step": (0.0, math.inf, True, 1e-3),
    "growth": (1.0, math.inf, False, 1.1),
    "cut": (0.0, 1.0, True, 0.5),
    "max_trials": (1, math.inf, False, 10),
    "min_step": (0.0, math.inf, True, 1e-8),
    "max_step": (0.0, math.inf, True, 1.0),
    "eps": (0.0, math.inf, True, 1e-8),
    "weight_decay": (0.0, math.inf, False, 0.01),
}


class ArmijoAdamW(Optimizer):
    """AdamW with a step size from an Armijo line search.

    A step needs the gradients of the mini-batch in ``p.grad`` and a `closure` that evaluates the loss they belong to,
    on the same rows with the same random numbers, at whatever the weights are then, and without touching gradients.
    It comes as the argument of `step` or, where the caller of `step` has none to give, as the attribute `closure`;
    with the attribute `loss` the loss at the present weights is not evaluated again. Both are forgotten after a step.

    A group's ``lr`` is no learning rate, but the share of the found step size that is taken: what a scheduler makes of
    1. The search itself is made at share 1; a smaller share of a step that decreases a convex loss decreases it too.

    The search is left out, and the step size kept, where the demanded decrease is below ten times the noise of the
    loss, so that rounding (of bfloat16 above all) decides nothing; and where `d` is no descent direction, as with a
    gradient of zero. The noise is the root mean square departure of the loss from its tangent at a tiny step; it is
    measured in each of the first 8 steps and then in every tenth. During a step the memory has two more copies of the
    weights.

    The found step size and all counts are in ``state["line_search"]``, and with the moments in a checkpoint:
    ``step_size``, ``steps``, ``trials`` and ``probes`` (evaluations of the closure to search and to measure noise),
    ``failures`` (steps without an acceptable size: weights as before, bit for bit), ``unsearched`` and ``noise``; and
    ``logged``, the steps and evaluations at the last log entry.

    Args:
        params: float32 or float64 parameters or groups.
        lr: share of the found step size in [0, 1].
        c: share of the promised decrease that is demanded, in (0, 1). On a quadratic 0.5 allows the minimum along the
            direction and no more; with the 0.1 of textbooks the steps are up to 1.8 times that long, too long for an
            encoder.
        initial_step: step size before the first search, above 0.
        growth: factor of at least 1 from the last step size to the first trial.
        cut: factor in (0, 1) from a refused trial to the next.
        max_trials: trials of a step, at least 1.
        min_step: least size that a failed search leaves to start from.
        max_step: largest size that is tried.
        betas: decay of the moments, each in [0, 1).
        eps: added to the root of the second moment, above 0.
        weight_decay: decoupled, >= 0.

    Raises:
        ValueError: an argument is out of range, or a parameter is in half precision.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        c: float = 0.5,
        initial_step: float = 1e-3,
        growth: float = 1.1,
        cut: float = 0.5,
        max_trials: int = 10,
        min_step: float = 1e-8,
        max_step: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        search = {"c": c, "initial_step": initial_step, "growth": growth, "cut": cut, "max_trials": max_trials}
        search |= {"min_step": min_step, "max_step": max_step}
        for name, value in search.items():
            _check(name, value)
        self.c, self.growth, self.cut, self.max_trials = c, growth, cut, max_trials
        self.min_step, self.max_step = min_step, max_step
        self.closure: Callable[[], float] | None = None
        self.loss: float | None = None
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})
        counts = dict.fromkeys(("steps", "trials", "probes", "failures", "unsearched"), 0)
        cast("dict[str, Any]", self.state)[SEARCH] = {
            "step_size": initial_step,
            **counts,
            "noise": [],
            "logged": [0, 0],
        }

    @property
    def search(self) -> dict[str, Any]:
        """What the line search remembers; part of the optimizer's state."""
        found: dict[str, Any] = cast("dict[str, Any]", self.state)[SEARCH]
        return found

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, with the group's values checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ("lr", "eps", "weight_decay"):
            _check(name, group[name])
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must be in [0, 1), found {group['betas']}; the usual ones are (0.9, 0.999)")
        if half := {p.dtype for p in group["params"]} - {torch.float32, torch.float64}:
            raise ValueError(
                f"parameters must be float32 or float64, found {half.pop()}: such steps would be rounded away"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float:  # type: ignore[override]
        """Update the moments, search along their direction, and move.

        Returns:
            The loss at the weights before the step.

        Raises:
            ValueError: there is no closure.
            DivergedError: the loss or the slope is not finite; the weights are those before the step.
        """
        evaluate, loss = closure or self.closure, None if closure else self.loss
        self.closure = self.loss = None
        if evaluate is None:
            raise ValueError("ArmijoAdamW needs a closure that evaluates the loss; in a Trainer, add ArmijoLineSearch")
        if loss is None:
            loss = evaluate()
        self._update_moments()
        path = self._path(momentum=True)
        if not path.parameters:
            return loss
        if (slope := path.fall()) <= 0:
            path = self._path(momentum=False)
            slope = path.fall()
        if not (math.isfinite(loss) and math.isfinite(slope)):
            raise DivergedError(
                "NON_FINITE", f"the loss is {loss} and its slope {slope} before a step; weights are kept"
            )
        size = self._size(_Objective(evaluate, loss, slope), path)
        torch._foreach_mul_(path.direction, path.shares)
        path.go(size)
        self.search["steps"] += 1
        return loss

    def _size(self, objective: "_Objective", path: "_Path") -> float:
        """The size of this step; 0 where none was accepted."""
        found = self.search
        start: float = min(self.growth * found["step_size"], self.max_step)
        if objective.slope <= 0 or self.c * start * objective.slope < _ABOVE_NOISE * self._noise(objective, path):
            found["unsearched"] += 1
            return float(found["step_size"])
        size = start
        for _ in range(self.max_trials):
            path.go(size)
            found["trials"] += 1
            loss = objective.evaluate()
            if math.isfinite(loss) and loss <= objective.loss - self.c * size * objective.slope:
                found["step_size"] = size
                return size
            size *= self.cut
        found["failures"] += 1
        found["step_size"] = max(size, self.min_step)
        return 0.0

    def _noise(self, objective: "_Objective", path: "_Path") -> float:
        """Root mean square of the newest departures of the loss from its tangent."""
        found = self.search
        if found["steps"] < _PROBES or found["steps"] % _PROBE_EVERY == 0:
            tiny = _PROBE * found["step_size"]
            path.go(tiny)
            found["probes"] += 1
            departure = objective.evaluate() - (objective.loss - tiny * objective.slope)
            if math.isfinite(departure):
                found["noise"] = [*found["noise"], departure][-_PROBES:]
        return math.sqrt(sum(d * d for d in found["noise"]) / max(1, len(found["noise"])))

    def _update_moments(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                if not self.state[parameter]:
                    zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                    self.state[parameter] = {"step": 0, **zeros}
                self.state[parameter]["step"] += 1
            if parameters:
                (beta1, beta2), gradients = group["betas"], _gradients(parameters)
                torch._foreach_lerp_(self._moments(parameters, "exp_avg"), gradients, 1 - beta1)
                second = self._moments(parameters, "exp_avg_sq")
                torch._foreach_mul_(second, beta2)
                torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)

    def _path(self, *, momentum: bool) -> "_Path":
        path = _Path([], [], [], [])
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            (beta1, beta2), steps = group["betas"], [self.state[p]["step"] for p in parameters]
            scale = torch._foreach_div(self._moments(parameters, "exp_avg_sq"), [1 - beta2**step for step in steps])
            torch._foreach_sqrt_(scale)
            torch._foreach_add_(scale, group["eps"])
            towards = self._moments(parameters, "exp_avg") if momentum else _gradients(parameters)
            direction = torch._foreach_div(towards, scale)
            torch._foreach_div_(direction, [beta1**step - 1 if momentum else -1.0 for step in steps])
            if group["weight_decay"]:
                torch._foreach_add_(direction, parameters, alpha=-group["weight_decay"])
            path.parameters.extend(parameters)
            path.start.extend(p.clone() for p in parameters)
            path.direction.extend(direction)
            path.shares.extend([group["lr"]] * len(parameters))
        return path

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        return [self.state[p][name] for p in parameters]


@dataclass(frozen=True)
class _Objective:
    """The loss of a mini-batch: how to evaluate it, its value at the start, and how steeply it falls there."""

    evaluate: Callable[[], float]
    loss: float
    slope: float


@dataclass(frozen=True)
class _Path:
    """A line through the weights: where it starts, where it leads, and what share of it each parameter takes."""

    parameters: list[Tensor]
    start: list[Tensor]
    direction: list[Tensor]
    shares: list[float]

    def go(self, size: float) -> None:
        """Put the weights at `size` along the line, always from its start; 0 is the start, bit for bit."""
        torch._foreach_copy_(self.parameters, self.start)
        if size:
            torch._foreach_add_(self.parameters, self.direction, alpha=size)

    def fall(self) -> float:
        """How steeply the loss falls along the line at its start: -<gradient, direction>, summed in float64."""
        pairs = zip(_gradients(self.parameters), self.direction, strict=True)
        return -sum(torch.sum(gradient * along, dtype=torch.float64).item() for gradient, along in pairs)


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _check(name: str, value: float) -> None:
    low, high, open_ends, usual = _RANGES[name]
    inside = low < value < high if open_ends else low <= value <= high
    if not inside or not math.isfinite(value):
        ends = "()" if open_ends else "[]"
        raise ValueError(f"{name} must be in {ends[0]}{low:g}, {high:g}{ends[1]}, found {value!r}; usual is {usual:g}")
