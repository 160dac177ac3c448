"""From the token states of a sequence to one embedding; padding never counts."""

from collections.abc import Callable

import torch
from torch import Tensor


def cls_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """State of the first real token.

    Args:
        states: (B, T, H) token states.
        mask: (B, T), non-zero at real tokens; every row has at least one, on either side of its padding.

    Returns:
        (B, H).
    """
    first = mask.bool().int().argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), first]


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Mean state of the real tokens; shapes as `cls_pooling` (Reimers and Gurevych 2019, arXiv:1908.10084)."""
    weights = mask.bool().unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def max_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Largest value of each dimension over the real tokens; shapes as `cls_pooling`."""
    return states.masked_fill(~mask.bool().unsqueeze(-1), float("-inf")).amax(dim=1)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": cls_pooling,
    "mean": mean_pooling,
    "max": max_pooling,
}
