"""One pass over the training rows in evaluation mode that fits an embedding normaliser."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, IterableDataset

from nlptrain.models.modes import evaluating
from nlptrain.models.normalizer import EmbeddingNormalizer

LABELS = ("labels", "label", "label_ids")
IGNORED = -100


@torch.no_grad()
def fit(normalizer: EmbeddingNormalizer, model: nn.Module, loader: DataLoader[Any], size: int) -> None:
    """Fit `normalizer`, a part of `model`, on the rows of all processes, each once.

    The batches are those of one process, divided among all: the last bits of an embedding depend on the batch it is
    computed in. No random number is drawn.

    Args:
        normalizer: not fitted.
        model: its inputs are the loader's batches without labels.
        loader: of the training rows; its own order and batches are not used, only its rows and how it collates them.
        size: rows of a batch.

    Raises:
        ValueError: the rows cannot be read by number, or `EmbeddingNormalizer.fit` refuses them.
    """
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    device = next(model.parameters()).device
    with evaluating(model), normalizer.observing() as moments:
        for batch in batches(loader, size, range(rank, ceil(_count(loader) / size), processes), device):
            model(**batch)
    normalizer.fit(moments.over_processes(device))


def batches(
    loader: DataLoader[Any], size: int, numbers: Iterable[int], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """The batches of these numbers, cut in the order of the rows, without rows whose label does not count."""
    rows, count = cast(Any, loader.dataset), _count(loader)
    for number in numbers:
        found = [rows[index] for index in range(number * size, min((number + 1) * size, count))]
        if counted := [row for row in found if _counts(row)]:
            batch = cast("Mapping[str, Tensor]", loader.collate_fn(counted))
            yield {name: values.to(device) for name, values in batch.items() if name not in LABELS}


def _count(loader: DataLoader[Any]) -> int:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        raise ValueError("embeddings are normalised by all training rows, found a stream: use a data set with a length")
    return len(loader.dataset)


def _counts(row: Any) -> bool:
    """Whether it is a training row, and not one that fills up a process's batch."""
    label = next((row[name] for name in LABELS if name in row), None)
    value = label.item() if isinstance(label, Tensor) and label.numel() == 1 else label
    return not (value != value or (isinstance(value, int) and value == IGNORED))
