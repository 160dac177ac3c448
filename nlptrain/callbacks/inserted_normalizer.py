"""An embedding normaliser in a model of the library, which stays stock to everyone who reads or writes its weights."""

from base64 import b64decode, b64encode
from functools import partial
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from nlptrain.models.last_layer import Place
from nlptrain.models.normalizer import EmbeddingNormalizer


class InsertedNormalizer:
    """Normalises what enters the head of a stock model.

    The model's `state_dict` holds the folded layer at all times, so that whatever is saved is purely stock. Loading
    weights into it, which are then folded ones, ends the normalisation.

    Args:
        model: the whole of it.
        place: see `find_place`.
        kind: an affine kind of `EmbeddingNormalizer`.
        components: as there.

    Raises:
        ValueError: components out of range, or l2.
    """

    def __init__(self, model: nn.Module, place: Place, kind: str, components: int | None) -> None:
        if kind == "l2":
            raise ValueError(
                "l2 is no linear map, so a stock model could not be saved with it: use architecture cross_encoder"
            )
        self.linear, self._call, self._calls = place.linear, place.call, 0
        self.normalizer = EmbeddingNormalizer(kind, place.linear.in_features, components)
        self.normalizer.to(place.linear.weight.device)
        self.is_active = True
        layer: Any = place.linear
        self._hooks = [
            model.register_forward_pre_hook(self._start),
            # before the dropout: a feature that is dropped after normalisation has its mean, not minus mean over std
            place.entry.register_forward_pre_hook(self._normalize),
            # torch marks these functions, which a method does not allow
            layer.register_state_dict_post_hook(partial(self._fold_saved)),
            layer.register_load_state_dict_pre_hook(partial(self._is_folded)),
        ]

    def fold(self) -> None:
        """Leave, with the layer folded in place; the model gives the logits it gave, up to rounding."""
        for hook in self._hooks:
            hook.remove()
        if self.is_active:
            folded = self.normalizer.fold_into_linear(self.linear)
            with torch.no_grad():
                self.linear.weight.copy_(folded.weight)
                self.linear.bias.copy_(folded.bias)
        self.is_active = False

    def dump(self) -> str | None:
        """Layer and normaliser as they are, bit by bit, as text; None once it has left."""
        if not self.is_active:
            return None
        tensors = {**self.normalizer.state_dict(), "weight": self.linear.weight, "bias": self.linear.bias}
        return b64encode(save({name: tensor.detach().cpu() for name, tensor in tensors.items()})).decode("ascii")

    @torch.no_grad()
    def restore(self, text: str) -> None:
        """Take up what `dump` wrote.

        Raises:
            ValueError: it was written for another model or kind.
        """
        tensors = load(b64decode(text))
        mine = {**dict(self.normalizer.named_buffers()), "weight": self.linear.weight, "bias": self.linear.bias}
        shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (mine, tensors)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the checkpoint has another normalisation: expected {shapes[0]}, found {shapes[1]}")
        for name, tensor in tensors.items():
            mine[name].copy_(tensor)

    def _start(self, *_: Any) -> None:
        self._calls = 0

    def _normalize(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self._calls += 1
        if not self.is_active or self._calls != self._call:
            return inputs
        found = self.normalizer(inputs[0])
        # fewer components leave the last inputs of the layer unused
        return (functional.pad(found, (0, self.linear.in_features - found.shape[-1])), *inputs[1:])

    def _fold_saved(self, _: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        if self.is_active and self.normalizer.is_fitted:
            folded = self.normalizer.fold_into_linear(self.linear)
            state |= {f"{prefix}weight": folded.weight.detach(), f"{prefix}bias": folded.bias.detach()}

    def _is_folded(self, *_: Any) -> None:
        self.is_active = False
