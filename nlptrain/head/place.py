"""Where the head of a model is, and its weights as one vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nlptrain.models.heads import LinearHead, MLPHead
from nlptrain.models.last_layer import find_place, linear_calls
from nlptrain.models.modeling import NlpTrainForSequenceClassification
from nlptrain.refine import ACTIVATIONS, Head

Array = NDArray[np.float64]
Part = Literal["head", "embedding", "last"]
# of an activation in float32
ROUNDING = 1e-5


@dataclass(frozen=True)
class HeadPlace:
    """The part of a model that is refined, a function of features that do not depend on it.

    Attributes:
        head: its shape.
        weights: for each name of `Head.shapes` the parameters of the model that make it up, from left to right.
        inputs: the modules whose inputs, side by side, are the features.
        description: for records.
    """

    head: Head
    weights: Mapping[str, tuple[Tensor, ...]]
    inputs: tuple[nn.Module, ...]
    description: str

    def read(self) -> Array:
        """(P,), as `Head.pack` orders it."""
        return self.head.pack(
            {
                name: np.hstack([p.detach().cpu().double().numpy() for p in parts])
                for name, parts in self.weights.items()
            }
        )

    @torch.no_grad()
    def write(self, vector: Array) -> None:
        """Put a (P,) vector into the model, rounded to its precision."""
        for name, array in self.head.unpack(vector).items():
            start = 0
            for part in self.weights[name]:
                width = part.shape[-1]
                part.copy_(torch.from_numpy(array[..., start : start + width]))
                start += width

    def rounded(self, vector: Array) -> Array:
        """What `read` gives after `write`."""
        dtype = next(iter(self.weights.values()))[0].dtype
        return torch.from_numpy(vector).to(dtype).double().numpy()

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(iter(self.weights.values()))[0].device


def find(model: nn.Module, batch: Mapping[str, Tensor], part: Part = "head") -> HeadPlace:
    """The head of ours without or with one hidden layer; of several layers, and of any other model, the last one.

    Args:
        model: in evaluation mode.
        batch: inputs of the model; a few rows do.
        part: last: the last linear map in any case; embedding: of a model that is not ours, the last two.

    Raises:
        ValueError: the model does not end in a linear map of one embedding a row, or not in one that has a least error
            to be found: a cosine, or a regression by sigmoid; or it has no layer that makes an embedding.
    """
    if part == "embedding":
        return _embedding(model, batch)
    if not isinstance(model, NlpTrainForSequenceClassification):
        layer = find_place(model, batch).linear
        return _linear(layer, "the last linear layer")
    if model.config.output == "sigmoid" and model.config.problem_type == "regression":
        raise ValueError("a regression by sigmoid is no linear function of the head: use output linear")
    if isinstance(model.head, LinearHead):
        return _linear(model.head.linear, "the linear head")
    if not isinstance(model.head, MLPHead):
        raise ValueError("a cosine has no weights on features: use output linear")
    return _last(model.head) if part == "last" or len(model.head.layers) > 1 else _whole(model.head)


def _embedding(model: nn.Module, batch: Mapping[str, Tensor]) -> HeadPlace:
    """``W2 phi(W1 x + b1) + b``, with the activation that lies between the last two layers."""
    made, last = linear_calls(model, batch)[-2:]
    name = None if isinstance(model, NlpTrainForSequenceClassification) else _activation(made.output, last.input)
    if name is None:
        raise ValueError(
            f"{type(model).__name__} has no layer with an activation that makes the embedding which its last layer "
            "reads: leave out refine.part"
        )
    first, output = made.layer, last.layer
    weights = {"hidden_weight": (first.weight,), "hidden_bias": (first.bias,)}
    weights |= {"weight": (output.weight,), "bias": (output.bias,)}
    shape = Head(first.in_features, output.out_features, first.out_features, name, skip=False)
    return HeadPlace(shape, weights, (first,), "the last linear layer and the one that makes its embedding")


def _activation(given: Tensor, made: Tensor) -> str | None:
    """Which one makes (B, H) of that; None: it is not one embedding a row, or none of those that are known."""
    if given.ndim != 2 or given.shape != made.shape:
        return None
    before, after = (values.cpu().double().numpy() for values in (given, made))
    errors = {name: np.abs(function(before)[0] - after).max() for name, function in ACTIVATIONS.items()}
    nearest = min(errors, key=lambda name: errors[name])
    return nearest if errors[nearest] < ROUNDING else None


def _linear(layer: nn.Linear, description: str) -> HeadPlace:
    head = Head(layer.in_features, layer.out_features)
    return HeadPlace(head, {"weight": (layer.weight,), "bias": (layer.bias,)}, (layer,), description)


def _last(head: MLPHead) -> HeadPlace:
    layers = [head.output, *([head.skip] if head.skip else [])]
    shape = Head(sum(layer.in_features for layer in layers), head.output.out_features)
    weights = {"weight": tuple(layer.weight for layer in layers), "bias": (head.output.bias,)}
    return HeadPlace(shape, weights, tuple(layers), "the last linear map of the head")


def _whole(head: MLPHead) -> HeadPlace:
    first, output = head.layers[0], head.output
    assert isinstance(first, nn.Linear)  # noqa: S101 - for the type checker
    skip = head.skip is not None
    shape = Head(first.in_features, output.out_features, first.out_features, head.activation, skip)
    weights = {"hidden_weight": (first.weight,), "hidden_bias": (first.bias,)}
    weights |= {"weight": (output.weight,), "bias": (output.bias,)}
    weights |= {"skip_weight": (head.skip.weight,)} if head.skip is not None else {}
    return HeadPlace(shape, weights, (first,), "the head with its hidden layer")
