"""What a target column holds and how its rows are read: one entry per kind of task."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from nlptrain.data.labels import LabelMap
from nlptrain.data.read import Table
from nlptrain.data.splits import stratified, tagged
from nlptrain.data.tags import TagMap, joined, refuse_unequal
from nlptrain.tasks import Kind


def strings(table: Table, column: str) -> pa.ChunkedArray:
    """The values of a column, "" where there is none."""
    found = table.arrow.column(column)
    return found.fill_null("") if found.null_count else found


@dataclass(frozen=True)
class TargetColumn:
    """How the rows of one kind are read.

    Attributes:
        labels: turns label texts into class ids; None: the targets are scores.
        arrow: type of one target.
        types: what texts may be in a source that has types, see `nlptrain.data.read.Table`.
        texts: the values of a text column as one string per row.
        values: those of the label column.
        agree: raises DataError where texts and label texts of a row do not belong together.
        hold_out: divides training rows into training and validation.
    """

    labels: type[LabelMap] | None
    arrow: pa.DataType
    types: tuple[str, ...] = ("text",)
    texts: Callable[[Table, str], pa.ChunkedArray] = strings
    values: Callable[[Table, str], pa.ChunkedArray] = strings
    agree: Callable[..., None] | None = None
    hold_out: Callable[..., tuple[list[int], list[int]]] = stratified


COLUMNS: dict[Kind, TargetColumn] = {
    "classification": TargetColumn(LabelMap, pa.int64()),
    "regression": TargetColumn(None, pa.float64()),
    "token_classification": TargetColumn(
        TagMap,
        pa.list_(pa.int64()),
        types=("text", "object"),
        texts=joined,
        values=partial(joined, numbers=True),
        agree=refuse_unequal,
        hold_out=tagged,
    ),
}
