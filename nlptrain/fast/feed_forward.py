"""The two linear layers of a transformer block with the exact GELU between them (Hendrycks & Gimpel 2016).

The activations between the layers are the widest tensors of a block. Of them one is kept for the backward pass, and the
other computed again in memory that is at hand: writing to memory that was not is several times slower than GELU.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

from nlptrain.fast.at_rest import layouts
from nlptrain.fast.linear import of_layer
from nlptrain.fast.products import affine


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, weight_out: Tensor, bias_out: Tensor) -> Tensor:
        dtype, ctx.wanted = states.dtype, weight.dtype
        flat, first, second = states.reshape(-1, states.shape[-1]), weight.to(dtype), weight_out.to(dtype)
        inner = affine(flat, first, bias.to(dtype))
        ctx.save_for_backward(flat, inner, first, second)
        return affine(gelu(inner), second, bias_out.to(dtype)).view(*states.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # what is kept is not connected to the parameters
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, first, second = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(second))
        found: list[Tensor | None] = [None] * 5
        if any(ctx.needs_input_grad[3:]):
            found[3:] = of_layer(gradient, gelu(inner), ctx.wanted)
        gradient = affine(gradient, second.t())
        torch.ops.aten.gelu_backward.grad_input(gradient, inner, grad_input=gradient)  # in its place
        if any(ctx.needs_input_grad[1:3]):
            found[1:3] = of_layer(gradient, flat, ctx.wanted)
        if ctx.needs_input_grad[0]:
            found[0] = affine(gradient, first.t()).view(*gradients[0].shape[:-1], -1)
        return tuple(found)


def feed_forward(states: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """``second(gelu(first(states)))`` of `states` (..., H), in their dtype."""
    if kept := layouts():
        return kept.linear(kept.linear(states, first, activation="gelu"), second)
    found: Tensor = _FeedForward.apply(states, first.weight, first.bias, second.weight, second.bias)  # type: ignore[no-untyped-call]
    return found
