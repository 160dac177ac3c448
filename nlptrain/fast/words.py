"""Word embeddings whose gradient is a table kept from step to step, in which only rows of the batch are touched.

The stock gradient is a new table of zeros every step: 47 MB for the vocabulary of BERT, of which a batch uses some 2 %.
Several processes exchange the rows of their batches instead of the table.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import pad


class WordLookup:
    """``embedding(ids)`` with that gradient, equal to the stock one bit for bit.

    The gradient is written to ``weight.grad`` during the backward pass; where it is wanted in another way
    (`torch.autograd.grad`), call the module itself. Rows that no batch touched have to stay zero: not for optimizers
    that add to gradients in place. Of several processes it is the mean over all, and `DistributedDataParallel` is to
    leave the weight alone (`speed_up` tells it so); all have to look up and go back equally often.

    Args:
        embedding: its weight is looked up; its padding row gets no gradient.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        # a gradient that comes another way, from a pass that is the library's
        embedding.weight.register_hook(_mean)  # type: ignore[no-untyped-call]
        self._table: Tensor | None = None
        self._touched: list[Tensor] = []

    def __call__(self, ids: Tensor) -> Tensor:
        """Rows (..., H) of `ids` (...)."""
        found: Tensor = _Lookup.apply(self.embedding.weight, ids, self)  # type: ignore[no-untyped-call]
        return found

    def accumulate(self, ids: Tensor, gradient: Tensor) -> None:
        """Add the gradient (n, H) of the rows `ids` (n,) to that of the table."""
        ids, gradient = _of_all(ids, gradient)
        weight = self.embedding.weight
        if weight.grad is None:
            weight.grad = self._cleared(weight)
            self._touched = []
        weight.grad.index_add_(0, ids, gradient)
        if self.embedding.padding_idx is not None:
            weight.grad[self.embedding.padding_idx] = 0
        self._touched.append(ids)

    @contextmanager
    def shortened(self, gradients: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """`gradients` by name, the kept table being those rows (n, H) of it that are not zero.

        What the block does to them in place is written back.
        """
        table = self.embedding.weight.grad
        name = next((name for name, gradient in gradients.items() if gradient is table), None)
        if table is None or table is not self._table or name is None:
            yield gradients
            return
        rows = torch.cat(self._touched).unique()  # type: ignore[no-untyped-call]
        short = table[rows]
        yield {**gradients, name: short}
        table[rows] = short

    def _cleared(self, weight: Tensor) -> Tensor:
        if self._table is None:
            self._table = torch.zeros_like(weight)
        for ids in self._touched:
            self._table.index_fill_(0, ids, 0.0)
        return self._table


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, lookup: WordLookup) -> Tensor:
        ctx.ids, ctx.lookup = ids, lookup
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        if ctx.needs_input_grad[0]:
            ctx.lookup.accumulate(ctx.ids.flatten(), gradients[0].flatten(0, -2))
        return None, None, None


def _several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _mean(gradient: Tensor | None) -> Tensor | None:
    """Of a whole table over all processes; None where the rows came through a lookup."""
    if gradient is None or not _several():
        return gradient
    gradient = gradient / distributed.get_world_size()
    distributed.all_reduce(gradient)
    return gradient


def _of_all(ids: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes, in the order of their ranks, and their shares of the mean."""
    if not _several():
        return ids, gradient
    most = torch.tensor(len(ids))
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    missing = int(most) - len(ids)  # made up by zeros for the row 0
    rows = _gathered(pad(gradient, (0, 0, 0, missing)))
    return _gathered(pad(ids, (0, missing))), rows / distributed.get_world_size()


def _gathered(x: Tensor) -> Tensor:
    found = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, x.contiguous())
    return torch.cat(found)
