"""Word embeddings whose gradient is a table kept from step to step, in which only rows of the batch are touched.

The stock gradient is a new table of zeros every step: 47 MB for the vocabulary of BERT, of which a batch uses some 2 %.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WordLookup:
    """``embedding(ids)`` with that gradient, equal to the stock one bit for bit.

    The gradient is written to ``weight.grad`` during the backward pass; where it is wanted in another way (hooks of
    distributed training, `torch.autograd.grad`), call the module itself. Rows that no batch touched have to stay
    zero: not for optimizers that add to gradients in place.

    Args:
        embedding: its weight is looked up; its padding row gets no gradient.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        self._table: Tensor | None = None
        self._touched: list[Tensor] = []

    def __call__(self, ids: Tensor) -> Tensor:
        """Rows (..., H) of `ids` (...)."""
        found: Tensor = _Lookup.apply(self.embedding.weight, ids, self)  # type: ignore[no-untyped-call]
        return found

    def accumulate(self, ids: Tensor, gradient: Tensor) -> None:
        """Add the gradient (n, H) of the rows `ids` (n,) to that of the table."""
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
