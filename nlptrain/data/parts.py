"""The rows of one split between reading and training: texts, labels, targets, where they stood."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nlptrain.config.schema import DataConfig
from nlptrain.data import checks
from nlptrain.data.columnar import LINE
from nlptrain.data.keys import numbered, row_keys
from nlptrain.data.labels import LabelMap
from nlptrain.data.mapped import written
from nlptrain.data.read import CHUNK, Where, read_table
from nlptrain.data.sources import Source
from nlptrain.data.targets import COLUMNS
from nlptrain.tasks import TaskSpec

_VALUE = "label"
_NO_KEYS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Part:
    """Rows of one split; every sequence has one entry per row.

    Attributes:
        source: where the rows were read.
        origin: what to call them in messages.
        unit: what `lines` counts.
        rows: the task's texts as they were written, "" where there is none, and ``label``, also as it was written.
        lines: where each row stood, (n,).
        keys: what makes rows the same once their texts are cleaned, (n,), see `nlptrain.data.keys.numbered`.
        clean: the steps of `data.clean`.
        changed: in how many texts of a row each of them changes something, (n, steps).
        targets: class ids, tuples of them, or scores; None: not known, or unlabelled.
    """

    source: Source
    origin: str
    unit: str
    rows: datasets.Dataset
    lines: NDArray[np.int64]
    keys: NDArray[np.int64] = field(default_factory=lambda: _NO_KEYS)
    clean: Sequence[str] = ()
    changed: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    targets: Sequence[Any] | None = None

    @property
    def where(self) -> Where:
        """Names the rows in messages."""
        return Where(self.origin, self.lines, self.unit)

    @property
    def values(self) -> list[str]:
        """Labels or scores as they were written; equal ones are one string."""
        batches = self.rows.select_columns([_VALUE]).iter(CHUNK)
        return [sys.intern(value) for batch in batches for value in batch[_VALUE]]

    def only(self, rows: Sequence[int] | NDArray[np.int64]) -> "Part":
        """The rows with these indices."""
        return replace(
            self,
            rows=self.rows.select(rows),
            lines=self.lines[rows],
            keys=self.keys[rows],
            changed=self.changed[rows],
            targets=None if self.targets is None else [self.targets[row] for row in rows],
        )

    def without(self, rows: NDArray[np.int64]) -> "Part":
        """The rows with other indices than these."""
        kept = np.ones(len(self.keys), bool)
        kept[rows] = False
        return self if kept.all() else self.only(np.flatnonzero(kept))

    def found(self) -> dict[str, Any]:
        """Rows that repeat an earlier one, texts with more than one target, rows without text, texts a step changes."""
        changed = zip(self.clean, self.changed.sum(axis=0).tolist(), strict=True)
        return {
            "duplicates": len(checks.repeats(self.keys, self.targets)),
            "conflicting": checks.contradictions(self.keys, self.targets),
            "empty": len(checks.blank(self.keys)),
            "cleaned": {step: count for step, count in changed if count},
        }

    def facts(self, labels: LabelMap | None) -> dict[str, Any]:
        """Source, size, characters per row and the spread of the targets (``std`` with divisor n), JSON-ready."""
        lengths = np.concatenate([sum(pc.utf8_length(column).to_numpy() for column in part) for part in self._texts()])
        facts: dict[str, Any] = {
            "source": str(self.source),
            "rows": len(self.keys),
            "unlabelled": self.targets is None,
            "sha256": _sha256(self.source),
            "characters": {"median": float(np.median(lengths)), "max": int(lengths.max())},
        }
        if self.targets is None:
            return facts
        if labels is not None:
            return facts | labels.facts(self.targets)
        found = np.asarray(self.targets)
        return facts | {"score": {name: float(getattr(found, name)()) for name in ("min", "max", "mean", "std")}}

    def dataset(self, task: TaskSpec) -> datasets.Dataset:
        """The rows as `nlptrain.data.load.Splits.rows` has them."""
        others = {} if self.targets is None else {"label": pa.array(self.targets, COLUMNS[task.kind].arrow)}
        others["line"] = pa.array(self.lines)

        def tables() -> Iterator[pa.Table]:
            start = 0
            for texts in self._texts():
                beside = {name: column.slice(start, texts.num_rows) for name, column in others.items()}
                yield pa.table({**dict(zip(texts.column_names, texts.columns, strict=True)), **beside})
                start += texts.num_rows

        return written(tables())

    def _texts(self) -> Iterator[pa.Table]:
        yield from self.rows.remove_columns([_VALUE]).with_format("arrow").iter(CHUNK)


def read_parts(sources: Mapping[str, Source], task: TaskSpec, data: DataConfig) -> dict[str, Part]:
    """Read the source of every split and pick the task's columns; DataError if they are not there."""
    parts = {split: _read(source, split, task, data) for split, source in sources.items()}
    keys, changed = zip(*(row_keys(part.rows, task.text, data.clean) for part in parts.values()), strict=True)
    return {
        split: replace(part, keys=numbers, clean=data.clean, changed=counts)
        for (split, part), numbers, counts in zip(parts.items(), numbered(*keys), changed, strict=True)
    }


def _read(source: Source, split: str, task: TaskSpec, data: DataConfig) -> Part:
    table = read_table(source, encoding=data.encoding, delimiter=data.delimiter)
    checks.check_texts(table, task)
    column = COLUMNS[task.kind]
    values = column.values(table, checks.label_column(table, task))
    texts = {name: column.texts(table, name) for name in task.text}
    rows = datasets.Dataset(pa.table({**texts, _VALUE: values}), fingerprint=split)
    lines = table.arrow.column(LINE).to_numpy()
    part = Part(source, f"{table.origin} ({split})", table.unit, rows, lines)
    if column.agree:
        column.agree(*(column.to_pylist() for column in (*texts.values(), values)), part.where)
    return part


def _sha256(source: Source) -> str | None:
    if source.kind == "hub":
        return None
    with Path(source.location).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
