"""Where embeddings enter the head of any model that ends in a linear layer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Place(NamedTuple):
    """Where embeddings enter the head.

    Attributes:
        entry: the module they enter by.
        call: in which of its calls during a forward pass of the model, from 1.
        linear: the layer that gives the logits.
    """

    entry: nn.Module
    call: int
    linear: nn.Linear


class Call(NamedTuple):
    """A linear layer in a forward pass.

    Attributes:
        layer: which.
        input: (..., in).
        output: (..., out).
    """

    layer: nn.Linear
    input: Tensor
    output: Tensor


def linear_calls(model: nn.Module, batch: Mapping[str, Tensor]) -> list[Call]:
    """What every linear layer is given and gives, in the order of their calls; `model` in evaluation mode."""
    return [Call(*call) for call in _calls(model, batch, nn.Linear)]


@torch.no_grad()
def _calls(model: nn.Module, batch: Mapping[str, Tensor], *kinds: type[nn.Module]) -> list[tuple[Any, Tensor, Tensor]]:
    calls: list[tuple[Any, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    try:
        model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def find_place(model: nn.Module, batch: Mapping[str, Tensor]) -> Place:
    """Follow one batch to the last linear layer, and to the dropout that feeds it where there is one.

    Args:
        model: in evaluation mode, where dropout hands on the tensor that it was given.
        batch: inputs of the model.

    Raises:
        ValueError: the last linear layer has no bias, or its input is not one embedding (B, H) per row.
    """
    calls = _calls(model, batch, nn.Linear, nn.Dropout)
    last = max((number for number, call in enumerate(calls) if isinstance(call[0], nn.Linear)), default=0)
    linear, features, _ = calls[last] if calls else (None, torch.empty(0), None)
    if not isinstance(linear, nn.Linear) or linear.bias is None or features.ndim != 2:
        raise ValueError(
            f"{type(model).__name__} does not end in a linear layer with a bias on one embedding per row, so its "
            "embeddings cannot be reached from outside: use architecture cross_encoder"
        )
    feeding = [number for number, call in enumerate(calls[:last]) if call[2] is features]
    number = feeding[-1] if feeding else last
    entry = calls[number][0]
    return Place(entry, sum(module is entry for module, _, _ in calls[: number + 1]), linear)
