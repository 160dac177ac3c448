"""The rows of one split between reading and training: texts, labels, targets, where they stood."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from nlptrain.config.schema import DataConfig
from nlptrain.data import checks, cleaning
from nlptrain.data.columnar import LINE
from nlptrain.data.labels import LabelMap
from nlptrain.data.read import Where, read_table
from nlptrain.data.sources import Source
from nlptrain.data.targets import COLUMNS
from nlptrain.tasks import TaskSpec


@dataclass(frozen=True)
class Part:
    """Rows of one split; every sequence has one entry per row.

    Attributes:
        source: where the rows were read.
        origin: what to call them in messages.
        unit: what `lines` counts.
        texts: the task's texts as they were written, "" where there is none.
        keys: what makes rows the same once their texts are cleaned, see `nlptrain.data.checks.row_key`.
        values: labels or scores as they were written.
        lines: where each row stood.
        targets: class ids, tuples of them, or scores; None: not known, or unlabelled.
        cleaned: the steps of `data.clean` that change a text of the row, each once for every such text.
    """

    source: Source
    origin: str
    unit: str
    texts: Sequence[tuple[str, ...]]
    keys: Sequence[str]
    values: Sequence[str]
    lines: Sequence[int]
    targets: Sequence[Any] | None = None
    cleaned: Sequence[Sequence[str]] = ()

    @property
    def where(self) -> Where:
        """Names the rows in messages."""
        return Where(self.origin, self.lines, self.unit)

    def only(self, rows: Sequence[int]) -> "Part":
        """The rows with these indices."""
        return replace(
            self,
            texts=[self.texts[row] for row in rows],
            keys=[self.keys[row] for row in rows],
            values=[self.values[row] for row in rows],
            lines=[self.lines[row] for row in rows],
            targets=None if self.targets is None else [self.targets[row] for row in rows],
            cleaned=[self.cleaned[row] for row in rows],
        )

    def without(self, rows: Sequence[int]) -> "Part":
        """The rows with other indices than these."""
        left_out = set(rows)
        return self.only([row for row in range(len(self.keys)) if row not in left_out]) if rows else self

    def found(self) -> dict[str, Any]:
        """Rows that repeat an earlier one, texts with more than one target, rows without text, texts a step changes."""
        return {
            "duplicates": len(checks.repeats(self.keys, self.targets)),
            "conflicting": checks.contradictions(self.keys, self.targets),
            "empty": len(checks.blank(self.keys)),
            "cleaned": dict(Counter(chain.from_iterable(self.cleaned))),
        }

    def facts(self, labels: LabelMap | None) -> dict[str, Any]:
        """Source, size, characters per row and the spread of the targets (``std`` with divisor n), JSON-ready."""
        lengths = [sum(map(len, texts)) for texts in self.texts]
        facts: dict[str, Any] = {
            "source": str(self.source),
            "rows": len(self.keys),
            "unlabelled": self.targets is None,
            "sha256": _sha256(self.source),
            "characters": {"median": float(statistics.median(lengths)), "max": max(lengths)},
        }
        if self.targets is None:
            return facts
        if labels is not None:
            return facts | labels.facts(self.targets)
        found = np.asarray(self.targets)
        return facts | {"score": {name: float(getattr(found, name)()) for name in ("min", "max", "mean", "std")}}

    def dataset(self, task: TaskSpec) -> datasets.Dataset:
        """The rows as `nlptrain.data.load.Splits.rows` has them."""
        texts = zip(*self.texts, strict=True)
        columns = {name: pa.array(column, pa.string()) for name, column in zip(task.text, texts, strict=True)}
        if self.targets is not None:
            columns["label"] = pa.array(self.targets, COLUMNS[task.kind].arrow)
        return datasets.Dataset(pa.table(columns | {"line": pa.array(self.lines, pa.int64())}))


def read_part(source: Source, split: str, task: TaskSpec, data: DataConfig) -> Part:
    """Read one source and pick the task's columns; DataError if they are not there."""
    table = read_table(source, encoding=data.encoding, delimiter=data.delimiter)
    checks.check_texts(table, task)
    column = COLUMNS[task.kind]
    values = column.values(table, checks.label_column(table, task))
    texts = list(zip(*(column.texts(table, name) for name in task.text), strict=True))
    traced = [[cleaning.traced(text, data.clean) for text in row] for row in texts]
    keys = [checks.row_key([text for text, _ in row]) for row in traced]
    cleaned = [[step for _, changed in row for step in changed] for row in traced]
    lines = table.rows[LINE][:]
    part = Part(source, f"{table.origin} ({split})", table.unit, texts, keys, values, lines, cleaned=cleaned)
    if column.agree:
        column.agree([text for (text,) in texts], values, part.where)
    return part


def _sha256(source: Source) -> str | None:
    if source.kind == "hub":
        return None
    with Path(source.location).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
