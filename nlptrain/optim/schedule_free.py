"""Schedule-free optimizers: an average of the weights takes the place of a falling rate.

Defazio et al. 2024 (arXiv 2405.15682, Algorithm 1). Three points belong to every weight: gradients are taken at y, the
plain optimizer moves z, and x, the average of z, is the result; the parameter itself holds y in training mode and x
otherwise. The `schedulefree` library leaves it to the caller to change modes, and the Trainer evaluates in the right
one, but saves in whichever it finds: a checkpoint between two evaluations would hold y.

Here the parameters hold x except between `train()` and the end of the step, so that whatever is evaluated, saved or
exported is the average. Every step passes through x, which is what a checkpoint holds: a resumed run is bitwise the
uninterrupted one, whatever else was saved or evaluated. `train()` is due before the gradient of every step; the
Trainer calls it.
"""

from collections.abc import Iterable
from typing import Any

import schedulefree
from torch.optim import Optimizer


class AveragedOutsideSteps(Optimizer):
    """Put before a class of `schedulefree`, ends every step in evaluation mode.

    A step that an fp16 gradient scaler skips ends in training mode; use bf16.

    Args:
        params: parameters, or groups.
        settings: of the class.

    Raises:
        ValueError: betas or eps are out of range.
    """

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, **settings)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            _check(beta1, beta2, group["eps"])
        self.register_step_post_hook(lambda optimizer, *_: optimizer.eval())


class AdamWScheduleFree(AveragedOutsideSteps, schedulefree.AdamWScheduleFree):  # type: ignore[misc]
    """`schedulefree.AdamWScheduleFree`; its decay is decoupled, and taken at y."""


class RAdamScheduleFree(AveragedOutsideSteps, schedulefree.RAdamScheduleFree):  # type: ignore[misc]
    """`schedulefree.RAdamScheduleFree`, which needs no warm-up; its decay is decoupled, and taken at y."""


def _check(beta1: float, beta2: float, eps: float) -> None:
    if not (0 < beta1 < 1 and 0 <= beta2 < 1 and eps > 0):
        raise ValueError(f"expected betas in (0, 1) and [0, 1) and eps > 0, found {[beta1, beta2]} and {eps}")
