"""Dropout (Srivastava et al. 2014) whose masks cost two bytes an element.

The stock kernel draws a 32-bit number for each element from a serial generator. Here one number of the global
generator seeds SFC64 for the whole mask, so that seeding, checkpoints and replays work as ever, and 15 bits decide
about an element: it is kept with probability k / 32768, k the nearest integer from 1 to 32767, and scaled by 32768 / k.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_SHADES = 2**15
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


class Mask:
    """A drawn mask.

    Args:
        like: shape and dtype of what is going to be masked, contiguous; float32, bfloat16 or float16.
        p: probability of dropping, in (0, 1).
    """

    def __init__(self, like: Tensor, p: float) -> None:
        kept = min(max(round((1 - p) * _SHADES), 1), _SHADES - 1)
        seed = int(torch.randint(2**63 - 1, ()))
        drawn = np.random.SFC64(seed).random_raw(-(-like.numel() // 4)).view(np.int16)[: like.numel()]
        bits = torch.from_numpy(drawn).bitwise_and_(_SHADES - 1).sub_(kept).bitwise_right_shift_(15)
        # all ones where kept, zero where dropped
        self.bits = bits.to(_BITS[like.dtype]).view(like.shape)
        self.scale = _SHADES / kept

    def cut(self, x: Tensor) -> Tensor:
        """`x` with zeros where it is dropped, not scaled."""
        return x.contiguous().view(self.bits.dtype).bitwise_and(self.bits).view(x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """`x` dropped and scaled."""
        return self.cut(x).mul_(self.scale)


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, p: float) -> Tensor:
        ctx.mask = Mask(x, p)
        return torch.add(residual, ctx.mask.cut(x), alpha=ctx.mask.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        return ctx.mask(gradients[0]), gradients[0], None


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.mask = Mask(x, p)
        dropped: Tensor = ctx.mask(x)
        return dropped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.mask(gradients[0]), None


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout of `x`; nothing for p = 0."""
    return _Dropout.apply(x, p) if p else x  # type: ignore[no-untyped-call]


def dropout_add(x: Tensor, residual: Tensor, p: float) -> Tensor:
    """``residual + dropout(x)`` in one pass."""
    return _DropoutAdd.apply(x, residual, p) if p else residual + x  # type: ignore[no-untyped-call]
