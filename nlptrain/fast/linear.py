"""Linear layers under reduced precision whose gradients arrive in the parameters' own precision and layout.

The stock gradient of a weight is the transpose of a matrix, which is then cast and brought into the weight's layout.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nlptrain.fast.at_rest import layouts
from nlptrain.fast.products import affine


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        joint = weights[0].to(states.dtype) if len(weights) == 1 else torch.cat([w.to(states.dtype) for w in weights])
        flat = states.reshape(-1, states.shape[-1])
        ctx.save_for_backward(flat, joint)
        ctx.widths, ctx.wanted = [len(weight) for weight in weights], weights[0].dtype
        bias = torch.cat(biases).to(states.dtype)
        return affine(flat, joint, bias).view(*states.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # what is kept is not connected to the parameters
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, joint = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(joint))
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        if ctx.needs_input_grad[0]:
            found[0] = affine(gradient, joint.t()).view(*gradients[0].shape[:-1], -1)
        if any(ctx.needs_input_grad[1:]):
            of_weights, of_biases = of_layer(gradient, flat, ctx.wanted)
            found[1::2] = torch.split(of_weights, ctx.widths)
            found[2::2] = torch.split(of_biases, ctx.widths)
        return tuple(found)


def of_layer(gradient: Tensor, states: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The gradients of a layer's weight (O, I) and bias (O,), of those of its outputs (n, O) and its inputs (n, I)."""
    return affine(gradient.t(), states.t()).to(dtype), gradient.sum(0).to(dtype)


def linear(states: Tensor, *layers: nn.Linear) -> Tensor:
    """What `layers` make of `states` (..., I), side by side: (..., sum of their widths), in the dtype of `states`."""
    if kept := layouts():
        return kept.linear(states, *layers)
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    found: Tensor = _Linear.apply(states, *parameters)  # type: ignore[no-untyped-call]
    return found
