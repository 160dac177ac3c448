"""Attention of short sequences: the softmax in float32, its gradient in one formula, the masks of `Mask`.

Vaswani et al. 2017 (arXiv 1706.03762), equation 1. The library's bfloat16 softmax is several times slower than a
float32 one on rows shorter than a vector register, and its dropout draws a number for every pair of tokens.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlptrain.fast.dropout import Mask


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
        ctx.scale = query.shape[-1] ** -0.5
        scores = torch.bmm(query, key.transpose(1, 2)).float().mul_(ctx.scale)
        if bias is not None:
            scores.view(len(bias), -1, *scores.shape[1:]).add_(bias[:, None, None])
        shares = torch.softmax(scores, -1).to(query.dtype)
        ctx.mask = Mask(shares, p) if p else None
        ctx.save_for_backward(query, key, value, shares)
        return torch.bmm(ctx.mask(shares) if ctx.mask else shares, value)

    @staticmethod
    @once_differentiable  # what is kept is not connected to the parameters
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, shares = ctx.saved_tensors
        gradient = gradients[0]
        dropped = ctx.mask(shares) if ctx.mask else shares  # again, rather than kept: memory costs more than this
        of_value = torch.bmm(dropped.transpose(1, 2), gradient)
        of_shares = torch.bmm(gradient, value.transpose(1, 2))
        if ctx.mask:
            of_shares = ctx.mask(of_shares)
        weighted = of_shares.mul_(shares).float()
        of_scores = weighted.sub_(weighted.sum(-1, keepdim=True).mul(shares)).mul_(ctx.scale).to(query.dtype)
        return torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query), of_value, None, None


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """``dropout(softmax(query key^T / sqrt(d) + bias)) value``.

    Args:
        query: (B * heads, M, d).
        key: (B * heads, T, d).
        value: (B * heads, T, d).
        bias: (B, T) float32, 0 at real tokens and very negative at padding; None: no padding.
        p: dropout probability of the attention shares.

    Returns:
        (B * heads, M, d) in the dtype of `query`.
    """
    found: Tensor = _Attention.apply(query, key, value, bias, p)  # type: ignore[no-untyped-call]
    return found
