"""Decoupled weight decay for optimizers whose own `weight_decay` is added to the gradient.

Loshchilov & Hutter 2019 (arXiv 1711.05101), with the step size of torch's AdamW: ``p <- (1 - lr * weight_decay) * p``
and then the plain update. Added to the gradient instead, the decay is divided by the optimizer's own scale: one step
of RMSprop at zero gradient moves a weight of 1 by the whole learning rate times 10, however small the decay.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Optimizer, RMSprop


@torch.no_grad()
def decay_(parameters: Iterable[Tensor], rate: float, strength: float) -> None:
    """``p <- (1 - rate * strength) * p`` for every parameter that has a gradient, be it zero."""
    touched = [parameter for parameter in parameters if parameter.grad is not None]
    if touched and strength:
        torch._foreach_mul_(touched, 1 - rate * strength)


@torch.no_grad()
def add_l2_(parameters: Iterable[Tensor], strength: float) -> None:
    """``gradient <- gradient + strength * p`` for every parameter that has a gradient: the classic, coupled L2."""
    for parameter in parameters:
        if parameter.grad is not None:
            # not in place: a gradient may be a table whose untouched rows have to stay zero
            parameter.grad = parameter.grad.add(parameter, alpha=strength)


class DecoupledDecay(Optimizer):
    """Put before an optimizer class, makes its groups' `weight_decay` decoupled.

    Groups, state and checkpoints are those of the optimizer itself. A parameter without gradient does not decay.

    Raises:
        ValueError: `fused` is asked for. With a gradient scaler a fused kernel decides by itself whether the step is
            skipped, and the decay could not follow.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch."""
        if param_group.get("fused", self.defaults.get("fused")):
            raise ValueError(f"{type(self).__name__}: fused must be left out or False, found True")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Decay, then update.

        Args:
            closure: evaluates the loss and its gradient, at the weights before the decay.

        Returns:
            The loss of `closure`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decay_(group["params"], group["lr"], group["weight_decay"])
        update: Any = super().step
        with self._no_l2():
            # the first instance of a class makes its `step` call the hooks, which our own `step` has done already
            if getattr(update, "hooked", False):
                update.__wrapped__(self)
            else:
                update()
        return loss

    @contextmanager
    def _no_l2(self) -> Iterator[None]:
        strengths = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            yield
        finally:
            for group, strength in zip(self.param_groups, strengths, strict=True):
                group["weight_decay"] = strength


class RMSpropW(DecoupledDecay, RMSprop):
    """`torch.optim.RMSprop` with decoupled `weight_decay` (0 where it is left out, as there)."""


class AdagradW(DecoupledDecay, Adagrad):
    """`torch.optim.Adagrad` with decoupled `weight_decay`, which follows the group's rate, not Adagrad's `lr_decay`."""


class SGDW(DecoupledDecay, SGD):
    """`torch.optim.SGD` with decoupled `weight_decay`, which does not pass through the momentum."""
