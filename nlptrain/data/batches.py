"""Which rows are trained on in which step: a pure function of seed and epoch, the same for any number of processes.

An epoch is cut into *windows*, the global batches of one optimizer step each. A window is divided into micro-batches
and those among the processes, so that its rows do not depend on how many processes or accumulation steps there are.
Deriving every epoch from (seed, epoch) alone makes a resumed run see exactly the rows an uninterrupted one sees; the
library's length-grouped sampler draws from the global random state instead and does not.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from nlptrain.data.balance import epoch_rows, oversampled

Strategy = Literal["random", "sequential", "group_by_length"]
WINDOWS_PER_BUCKET = 50


def token_batches(lengths: Sequence[int] | NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Rows of similar length together, the longest first, for a model that learns nothing from them.

    Args:
        lengths: tokens of each row.
        budget: tokens of a batch, padded to its longest row; a longer row is a batch of its own.

    Returns:
        The rows (indices) of every batch.
    """
    widths = np.maximum(lengths, 1)
    order = np.argsort(-widths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(budget // int(widths[order[start]]), 1)
        batches.append(order[start : start + size])
        start += size
    return batches


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one process, in order.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a micro-batch on one process.
        accumulation: micro-batches of an optimizer step.
        processes: number of processes.
        rank: this process.
        seed: seed of the order.
        strategy: random, sequential, or group_by_length (random among rows of similar length).
        classes: class id of each row, to draw the classes equally often; None: every row once.
        padding_index: row given to a process for which a window has no row left; its label must be ignored.
        multiple: lengths of padded batches are multiples of it.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        accumulation: int = 1,
        processes: int = 1,
        rank: int = 0,
        seed: int = 42,
        strategy: Strategy = "group_by_length",
        classes: Sequence[int] | None = None,
        padding_index: int | None = None,
        multiple: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.classes = None if classes is None else np.asarray(classes)
        self.rows = len(lengths) if self.classes is None else epoch_rows(self.classes)
        self.per_slot = batch_size * processes
        self.window = self.per_slot * accumulation
        self.accumulation = accumulation
        self.processes = processes
        self.rank = rank
        self.seed = seed
        self.strategy = strategy
        self.padding_index = padding_index
        self.multiple = multiple
        self.epoch = 0

    @property
    def batch_sampler(self) -> "RankBatches":
        """Itself: Trainer looks for `set_epoch` one level below the loader's batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.rows, self.window)
        return full * self.accumulation + ceil(rest / self.per_slot)

    def __iter__(self) -> Iterator[list[int]]:
        for window in self.windows():
            slots = ceil(len(window) / self.per_slot)
            parts = np.array_split(window, slots * self.processes)
            for part in parts[self.rank :: self.processes]:
                yield part.tolist() or self._padding()

    @property
    def padding_share(self) -> float:
        """Share of padding among the tokens of this process's batches of the chosen epoch, in [0, 1)."""
        batches = [self.lengths[batch] for batch in self if batch != [self.padding_index]]
        widths = [ceil(int(batch.max()) / self.multiple) * self.multiple for batch in batches]
        padded = sum(len(batch) * width for batch, width in zip(batches, widths, strict=True))
        return 1 - sum(int(batch.sum()) for batch in batches) / padded

    def windows(self) -> list[NDArray[np.int64]]:
        """The rows of every optimizer step of this epoch, over all processes."""
        order = self._order()
        full = len(order) // self.window * self.window
        windows = [order[start : start + self.window] for start in range(0, full, self.window)]
        if self.strategy == "group_by_length":
            windows = [windows[i] for i in self._generator(1).permutation(len(windows))]
        return windows if full == len(order) else [*windows, order[full:]]

    def _order(self) -> NDArray[np.int64]:
        order = np.arange(self.rows) if self.classes is None else oversampled(self.classes, self._generator(2))
        if self.strategy == "sequential":
            return order
        order = self._generator(0).permutation(order)
        if self.strategy == "random":
            return order
        bucket = self.window * WINDOWS_PER_BUCKET
        buckets = [order[start : start + bucket] for start in range(0, len(order), bucket)]
        return np.concatenate([rows[np.argsort(-self.lengths[rows], kind="stable")] for rows in buckets])

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, purpose])

    def _padding(self) -> list[int]:
        if self.padding_index is None:
            raise ValueError(f"a window has fewer rows than {self.processes} processes and there is no padding row")
        return [self.padding_index]
