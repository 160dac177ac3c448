"""Linear layers while nothing changes their weights, which oneDNN then lays out once instead of in every product."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from nlptrain.fast.products import ONEDNN

_KEPT: ContextVar["Layouts | None"] = ContextVar("kept", default=None)


class Layouts:
    """The products of layers by weights as they were at the first one; without gradients."""

    def __init__(self) -> None:
        self._found: dict[tuple[torch.dtype, tuple[nn.Linear, ...]], tuple[Tensor, Tensor]] = {}

    def linear(self, states: Tensor, *layers: nn.Linear, activation: str = "none") -> Tensor:
        """As `nlptrain.fast.linear.linear`, and the exact GELU of it where `activation` is gelu."""
        weight, bias = self._of(states.dtype, layers)
        flat = states.reshape(-1, states.shape[-1])
        found: Tensor = torch.ops.mkldnn._linear_pointwise(flat, weight, bias, activation, [], "none")
        return found.view(*states.shape[:-1], -1)

    def _of(self, dtype: torch.dtype, layers: tuple[nn.Linear, ...]) -> tuple[Tensor, Tensor]:
        if (dtype, layers) not in self._found:
            weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
            self._found[dtype, layers] = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype)), bias.to(dtype)
        return self._found[dtype, layers]


@contextmanager
def weights_at_rest() -> Iterator[None]:
    """Within the block, on this thread, weights do not change; the faster pass without gradients may keep layouts."""
    token = _KEPT.set(Layouts() if ONEDNN else None)
    try:
        yield
    finally:
        _KEPT.reset(token)


def layouts() -> Layouts | None:
    """What is kept, where something may be."""
    return None if torch.is_grad_enabled() else _KEPT.get()
