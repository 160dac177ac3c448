"""What the head gets of every row, computed once, each process its own rows."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import IterableDataset, Subset

from nlptrain.fast import weights_at_rest
from nlptrain.head.place import HeadPlace
from nlptrain.models.modes import evaluating, without_autocast
from nlptrain.refine.reduction import add, ranks

Array = NDArray[Any]
Collate = Callable[[list[dict[str, Any]]], Mapping[str, Tensor]]
LABELS = ("labels", "label", "label_ids")
IGNORED = -100
# of a model's configuration: no feature depends on them
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "temperature")


@dataclass(frozen=True)
class Features:
    """Rows of this process, in no particular order.

    Attributes:
        values: (m, d), as the model computes them.
        places: (m,) where each stands among all rows.
        rows: number of rows of all processes together, n.
    """

    values: Array
    places: NDArray[np.int64]
    rows: int

    def of(self, column: NDArray[Any]) -> Array:
        """(m,) of this process out of a column (n,)."""
        return np.asarray(column[self.places])

    def whole(self, found: Array) -> Array:
        """(n, ...) of all processes, on all of them, from (m, ...) of each; called by all at once."""
        everything = np.zeros((self.rows, *found.shape[1:]))
        everything[self.places] = found
        return add(everything.ravel()).reshape(everything.shape)

    @property
    def x(self) -> NDArray[np.float64]:
        """`values` in float64."""
        return self.values.astype(np.float64)


def compute(model: nn.Module, place: HeadPlace, rows: Any, collate: Collate, size: int) -> Features:
    """Features of encoded rows, in evaluation mode and the precision of the weights; draws no random number.

    The batches are those of one process, divided among all, because the last bits of a feature depend on its batch.

    Args:
        model: its inputs are picked out of the rows by the names of its arguments.
        place: of its head.
        rows: a data set; ``length`` (int) of its rows, where it is there, keeps the padding short.
        collate: makes a batch of rows.
        size: rows of a batch.
    """
    rank, world = ranks()
    order = np.arange(len(rows))
    if "length" in (getattr(rows, "column_names", None) or ()):
        order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    chunks = [order[start : start + size] for start in range(0, len(order), size)][rank::world]
    found = [np.zeros((0, place.head.features), dtype=np.float32)]
    with evaluating(model), weights_at_rest(), without_autocast(model), _watching(place) as seen, torch.no_grad():
        for chunk in chunks:
            batch = collate([inputs(model, rows[int(number)]) for number in chunk])
            model(**{name: values.to(place.device) for name, values in batch.items()})
            found.append(seen())
    return Features(np.concatenate(found), np.concatenate([order[:0], *chunks]), len(rows))


def labelled(rows: Any) -> tuple[Any, Array]:
    """The rows whose label counts, and their labels (n,); others only fill up a process's batch.

    Raises:
        ValueError: the rows are a stream, have no labels, or more than one each.
    """
    if not hasattr(rows, "__len__") or isinstance(rows, IterableDataset):
        raise ValueError("a head is refined on all rows, found a stream: use a data set with a length")
    name = next((name for name in LABELS if len(rows) and name in rows[0]), None)
    if name is None:
        raise ValueError(f"a head is refined on labelled rows, found {len(rows)} rows without any of {LABELS}")
    columns = getattr(rows, "column_names", None)
    labels = np.asarray(rows[name][:] if columns else [rows[number][name] for number in range(len(rows))])
    if labels.ndim != 1:
        raise ValueError(f"a head is refined on one label a row, found labels of shape {labels.shape}")
    keep = np.flatnonzero(labels != IGNORED if labels.dtype.kind == "i" else ~np.isnan(labels))
    return (rows.select(keep) if columns else Subset(rows, keep.tolist())), labels[keep]


def inputs(model: nn.Module, row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row the model takes, without labels."""
    names = inspect.signature(type(model).forward).parameters.keys() - set(LABELS)
    return {name: value for name, value in row.items() if name in names}


def fingerprint(model: Any, place: HeadPlace, rows: str, size: int) -> str:
    """sha256 (hex) of all that features depend on, which the weights of the head are not.

    Args:
        model: a `PreTrainedModel`.
        place: of its head.
        rows: fingerprint of the rows.
        size: rows of a batch.
    """
    head = {id(parameter) for parts in place.weights.values() for parameter in parts}
    settings = {key: value for key, value in model.config.to_dict().items() if key not in VOLATILE}
    facts = [type(model).__name__, settings, place.description, rows, size, ranks()[1], torch.__version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in head:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _watching(place: HeadPlace) -> Iterator[Callable[[], Array]]:
    """Within the block, a function that gives the (B, d) features of the last forward pass."""
    seen: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen[module] = given[0]

    hooks = [module.register_forward_pre_hook(note) for module in place.inputs]
    try:
        yield lambda: torch.cat([seen[module] for module in place.inputs], dim=1).float().cpu().numpy()
    finally:
        for hook in hooks:
            hook.remove()
