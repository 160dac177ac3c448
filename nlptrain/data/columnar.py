"""Sources that know the types of their columns, Parquet and the Hub, as chunks of string columns."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nlptrain.data.sources import Source
from nlptrain.errors import DataError

LINE = "__line__"
_BUFFER = 1 << 20

Types = dict[str, dict[str, int]]
Columns = tuple[datasets.Dataset, Types]


def check_names(origin: object, names: Sequence[str]) -> None:
    """Column names are present, distinct and not `LINE`."""
    problems = []
    if empty := [str(number) for number, name in enumerate(names, 1) if not name.strip()]:
        problems.append(f"{origin}: column {', '.join(empty)} of the header has no name; name every column")
    if twice := [name for name, count in Counter(names).items() if count > 1 and name.strip()]:
        problems.append(f"{origin}: column names stand twice in the header: {', '.join(map(repr, twice))}; rename one")
    if LINE in names:
        problems.append(f"{origin}: the column name {LINE!r} is used by the program; rename the column")
    if problems:
        raise DataError("DATA_HEADER", problems)


def read_parquet(path: Path, size: int) -> Iterator[Columns]:
    """The columns of a Parquet file, `size` rows at a time; DataError if it is damaged or no such file."""
    try:
        # without a buffer the whole of a row group, often all rows, is read at once
        with pq.ParquetFile(path, buffer_size=_BUFFER) as file:
            first = 1
            for batch in file.iter_batches(size):
                batch.validate(full=True)
                yield _from_arrow(pa.Table.from_batches([batch]), str(path), first)
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError("DATA_PARQUET", f"{path}: not a readable Parquet file ({error}); write it again") from error


def read_hub(source: Source, size: int) -> Iterator[Columns]:
    """The columns of a split on the Hub, class ids as class names; DataError if it cannot be had."""
    try:
        rows = datasets.load_dataset(source.location, source.config, split=source.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        remedy = (
            "check its id, configuration, split and the connection, or give files in data.train and data.validation"
        )
        raise DataError("DATA_HUB", f"{source}: cannot be loaded from the Hub ({error}); {remedy}") from error
    for first in range(0, len(rows), size):
        chunk = rows.with_format("arrow")[first : first + size]
        yield _from_arrow(_with_names(chunk, rows.features), str(source), first + 1)


def _with_names(table: pa.Table, features: datasets.Features) -> pa.Table:
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, datasets.List) else feature
        if isinstance(inner, datasets.ClassLabel):
            kind = pa.string() if inner is feature else pa.list_(pa.string())
            named = pa.array([_named(value, inner.names) for value in table.column(name).to_pylist()], kind)
            table = table.set_column(table.column_names.index(name), name, named)
    return table


def _named(value: Any, classes: Sequence[str]) -> Any:
    """Class ids, alone or in a list, as class names; -1 and null as they are."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if value is not None and value >= 0 else value if value is None else str(value)


def _from_arrow(table: pa.Table, origin: str, first: int) -> Columns:
    check_names(origin, table.column_names)
    columns = {name: _as_strings(table.column(name)) for name in table.column_names}
    types = {name: {_arrow_type(table.schema.field(name).type): first} for name in table.column_names}
    lines = pa.array(np.arange(first, first + table.num_rows))
    return datasets.Dataset(pa.table({LINE: lines, **columns})), types


def _arrow_type(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "number": (pa.types.is_floating,),
        "boolean": (pa.types.is_boolean,),
    }
    return next((name for name, checks in tests.items() if any(check(kind) for check in checks)), "object")


def _as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if _arrow_type(column.type) != "object":
        return column.cast(pa.string())
    return pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string())
