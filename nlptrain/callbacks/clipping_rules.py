"""The maths of gradient clipping on plain tensors; nothing in here waits for a device except what reads a `Tally`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_


@dataclass(frozen=True)
class Clipped:
    """A rule changed `hit` units (0-dim integer or bool tensor) of `of`; the units are steps, elements or rows."""

    hit: Tensor
    of: int


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Gradients of the parameters that have one; of a sharded gradient, this process's shard."""
    found = (p.grad for p in parameters if p.grad is not None)
    return [g.to_local() if hasattr(g, "to_local") else g for g in found]


def by_norm(parameters: Sequence[nn.Parameter], threshold: float, norm: Tensor) -> Clipped:
    """Scale all by min(1, threshold / (norm + 1e-6)) in place, `norm` being that of all gradients together."""
    clip_grads_with_norm_(parameters, threshold, norm)
    return Clipped(norm > threshold, 1)


def by_value(parameters: Sequence[nn.Parameter], threshold: float) -> Clipped:
    """Every element to [-threshold, threshold] in place, which changes the direction of the gradient."""
    found = gradients(parameters)
    hit = _sum([(g.abs() > threshold).sum() for g in found])
    clip_grad_value_(parameters, threshold)
    return Clipped(hit, sum(g.numel() for g in found))


def by_row(parameters: Sequence[nn.Parameter], ratio: float, floor: float) -> Clipped:
    """Adaptive clipping in place: g_i <- g_i * min(1, ratio * max(||w_i||, floor) / ||g_i||) for every row i.

    A row is what leads to one output: an index of the first dimension; a vector such as a bias is one row.

    Source: Brock et al. 2021, arXiv 2102.06171, equation 3.
    """
    hits, rows = [], 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        norms = _row_norms(parameter.grad)
        bounds = _row_norms(parameter.detach()).clamp_(min=floor).mul_(ratio)
        # exactly 1, and so not a rounding away, for a row within its bound
        parameter.grad.mul_((bounds / norms).clamp_(max=1.0))
        hits.append((norms > bounds).sum())
        rows += norms.numel()
    return Clipped(_sum(hits), rows)


def remember(norms: Sequence[float], norm: float, window: int) -> list[float]:
    """The newest `window` norms, oldest first; a norm that is not finite is left out."""
    return ([*norms, norm] if math.isfinite(norm) else [*norms])[-window:]


def percentile(norms: Sequence[float], percent: float) -> float:
    """The `percent` percentile (0, 100] of `norms`, linear between two; infinite while there are none.

    Source: AutoClip, Seetharaman et al. 2020, arXiv 2007.14469, where `norms` already holds that of this step.
    """
    return float(np.percentile(norms, percent)) if norms else math.inf


@dataclass
class Tally:
    """What happened since the last log, kept on the device; a step with a norm that is not finite does not count."""

    steps: int = 0
    norm: Tensor | float = 0.0
    finite: Tensor | float = 0
    hit: Tensor | float = 0
    of: Tensor | float = 0

    def add(self, norm: Tensor, clipped: Clipped) -> None:
        """One optimizer step with global gradient norm `norm` (0-dim) before clipping."""
        counts = norm.isfinite()
        self.steps += 1
        self.norm = self.norm + norm.float().where(counts, 0.0)
        self.finite = self.finite + counts
        self.hit = self.hit + counts * clipped.hit
        self.of = self.of + counts * clipped.of

    def values(self) -> list[Any]:
        """The fields as plain numbers, in their order."""
        fields = (self.steps, self.norm, self.finite, self.hit, self.of)
        return [field.item() if isinstance(field, Tensor) else field for field in fields]

    def report(self) -> dict[str, float]:
        """Mean norm before clipping, and clipped units over all units in [0, 1]; NaN where no step counts."""
        return {
            "grad_norm_before_clipping": float(self.norm / self.finite),
            "clipped_share": float(self.hit / self.of),
        }


def _row_norms(tensor: Tensor) -> Tensor:
    """Norms in a shape that broadcasts over `tensor`: (rows, 1, ...), or () of a vector or scalar."""
    inside = tuple(range(1, tensor.ndim)) or None
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=inside, keepdim=inside is not None)
    return norms


def _sum(counts: Sequence[Tensor]) -> Tensor:
    # a model may be spread over several devices
    return torch.stack([count.to(counts[0].device) for count in counts]).sum() if counts else torch.zeros(())
