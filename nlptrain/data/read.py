"""Reading a file or a Hub data set strictly into string columns; nothing is guessed and nothing is written.

A source is read chunk by chunk, in memory that does not grow with its rows; `read_table` joins the chunks on disk.

An empty cell is the only missing value: ``NA``, ``null`` and ``nan`` are text.
"""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nlptrain.data.columnar import LINE, Types, check_names, read_hub, read_parquet
from nlptrain.data.mapped import written
from nlptrain.data.sources import Source, existing
from nlptrain.data.text import text_file
from nlptrain.errors import DataError

CHUNK = 8192
MAX_CELL = 10 * 1024 * 1024
SHOWN = 10
_JSON_TYPES = {str: "text", bool: "boolean", int: "integer", float: "number", type(None): "null"}

Row = tuple[int, Sequence[str | None]]


@dataclass(frozen=True)
class Table:
    """Rows of one source: all of them, or one chunk.

    Attributes:
        rows: string columns, null where there is no value, and `LINE` (int64): the line of the file on which the row
            begins, the header being line 1; for Parquet and the Hub the row number from 1.
        origin: what to call the source in messages.
        unit: what `LINE` counts, ``line`` or ``row``.
        types: per column the types its values had before they became strings, each with its first `LINE`;
            left out for CSV and TSV, where every value is text.
    """

    rows: datasets.Dataset
    origin: str
    unit: str = "line"
    types: Types = field(default_factory=dict)

    @property
    def arrow(self) -> pa.Table:
        """The rows as they lie in memory or in their file."""
        return self.rows.with_format("arrow")[:]


@dataclass(frozen=True)
class Where:
    """Names rows in messages: `lines` holds what to call each row, in `unit`, of the source `origin`."""

    origin: str
    lines: Sequence[int] | NDArray[np.int64]
    unit: str = "line"

    def at(self, rows: Sequence[int] | NDArray[np.int64]) -> str:
        """How many rows (indices) and where the first `SHOWN` are: ``2 rows (lines 3, 17)``."""
        shown = ", ".join(str(self.lines[row]) for row in rows[:SHOWN])
        plural = "" if len(rows) == 1 else "s"
        return f"{len(rows)} row{plural} ({self.unit}{plural} {shown}{', ...' if len(rows) > SHOWN else ''})"


def read_table(source: Source, *, encoding: str, delimiter: str | None) -> Table:
    """Read a whole source into a mapped file; otherwise as `read_chunks`."""
    chunks = read_chunks(source, encoding=encoding, delimiter=delimiter)
    first = next(chunks)
    types: Types = {}

    def tables() -> Iterator[pa.Table]:
        for chunk in itertools.chain([first], chunks):
            for name, kind, line in ((n, k, at) for n, found in chunk.types.items() for k, at in found.items()):
                types.setdefault(name, {}).setdefault(kind, line)
            yield chunk.arrow

    return replace(first, rows=written(tables()), types=types)


def read_chunks(source: Source, *, encoding: str, delimiter: str | None) -> Iterator[Table]:
    """Read a source as tables of `CHUNK` rows, the last of fewer.

    Malformed rows are left out, and named at the end of the source.

    Args:
        source: what to read.
        encoding: of CSV, TSV and JSONL files; utf-8 may begin with a byte order mark.
        delimiter: of CSV and TSV files; None: a comma or a tab by the file's name.

    Raises:
        DataError: missing, unreadable, empty or malformed; the message names file and line.
        ConfigError: unknown encoding.
    """
    chunk = None
    for chunk in _read(source, encoding, delimiter):
        yield chunk
    if chunk is None:
        raise DataError("DATA_EMPTY", f"{source}: expected rows, found only a header; give a source with rows")


def _read(source: Source, encoding: str, delimiter: str | None) -> Iterator[Table]:
    if source.kind == "hub":
        return (Table(rows, str(source), "row", types) for rows, types in read_hub(source, CHUNK))
    path = existing(Path(source.location))
    match path.suffix.lower():
        case ".parquet":
            return (Table(rows, str(path), "row", types) for rows, types in read_parquet(path, CHUNK))
        case ".jsonl":
            return _read_jsonl(path, encoding)
        case ".tsv":
            return _read_csv(path, encoding, delimiter or "\t", quoted=False)
        case _:
            return _read_csv(path, encoding, delimiter or ",", quoted=True)


class _Malformed:
    """The first malformed rows, and how many there are.

    Args:
        code: of the error.
        remedy: what to do about all of them.
    """

    def __init__(self, code: str, remedy: str) -> None:
        self.code, self.remedy = code, remedy
        self.shown: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        self.count += 1
        self.shown += [problem] if self.count <= SHOWN else []

    def refuse(self) -> None:
        """Raise `DataError` if there are any."""
        if self.count == 1:
            raise DataError(self.code, f"{self.shown[0]}; {self.remedy}")
        if self.count:
            raise DataError(self.code, [*self.shown, f"{self.count} rows in all are malformed; {self.remedy}"])


def _dataset(names: Sequence[str], rows: Sequence[Row]) -> datasets.Dataset:
    lines, cells = zip(*rows, strict=True)
    columns = {
        name: pa.array(column, pa.string()) for name, column in zip(names, zip(*cells, strict=True), strict=True)
    }
    return datasets.Dataset(pa.table({LINE: pa.array(lines, pa.int64()), **columns}))


# ---- CSV and TSV ----


def _read_csv(path: Path, encoding: str, delimiter: str, *, quoted: bool) -> Iterator[Table]:
    """TSV files of the GLUE kind hold bare quotes, so only `quoted` files give quotes a meaning."""
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    remedy = "quote cells that hold a delimiter or line break" if quoted else "remove tabs and line breaks from texts"
    with text_file(path, encoding, newline="") as file, _cell_limit():
        rows = _csv_rows(path, csv.reader(file, delimiter=delimiter, quoting=style, strict=True))
        _, header = next(rows)
        check_names(path, header or [""])
        whole = _of_width(path, header, rows, remedy)
        while chunk := list(itertools.islice(whole, CHUNK)):
            yield Table(_dataset(header, chunk), str(path))


@contextmanager
def _cell_limit() -> Iterator[None]:
    before = csv.field_size_limit(MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line on which it begins."""
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError("DATA_CSV", f"{path}:{line}: {_csv_fault(str(error))}") from error


def _csv_fault(fault: str) -> str:
    if "field limit" in fault:
        return f"a cell of more than {MAX_CELL} characters begins in this row; shorten it, or close its quote"
    if "unexpected end of data" in fault:
        return "a quote that opens in this row is never closed; close it, and write a quote inside a text as two"
    return f"wrong quoting ({fault}); quote the whole cell, and write a quote inside a text as two"


def _of_width(path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]], remedy: str) -> Iterator[Row]:
    """The rows that are as wide as the header; all have to be, but for blank lines at the end."""
    malformed = _Malformed("DATA_RAGGED", remedy)
    expected = f"expected {len(header)} fields ({', '.join(header)})"
    blank: list[int] = []
    for line, row in rows:
        if not row:
            blank.append(line)
            continue
        for at in blank:
            malformed.add(f"{path}:{at}: {expected}, found a blank line")
        blank = []
        if len(row) == len(header):
            yield line, row
        else:
            malformed.add(f"{path}:{line}: {expected}, found {len(row)}")
    malformed.refuse()


# ---- JSON Lines ----


def _read_jsonl(path: Path, encoding: str) -> Iterator[Table]:
    with text_file(path, encoding, newline="\n") as file:
        rows = _json_rows(path, file)
        while chunk := list(itertools.islice(rows, CHUNK)):
            names, types = list(chunk[0][1]), _json_types(chunk)
            cells = [(line, [_json_cell(row[name]) for name in names]) for line, row in chunk]
            yield Table(_dataset(names, cells), str(path), "line", types)


def _json_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines that are objects with the keys of the first; all have to be, but for blank ones at the end."""
    decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
    malformed = _Malformed("DATA_JSON", "every line must be one JSON object with the same keys")
    names: list[str] = []
    blank: list[int] = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            blank.append(line)
            continue
        for at in blank:
            malformed.add(f"{path}:{at}: a blank line")
        blank = []
        try:
            row = _json_row(decoder, text.removesuffix("\n"), names)
        except (ValueError, RecursionError) as error:
            malformed.add(f"{path}:{line}: {error}")
            continue
        if not names:
            names = list(row)
            check_names(path, names)
        yield line, {name: row[name] for name in names}
    malformed.refuse()


def _json_types(rows: Iterable[tuple[int, dict[str, Any]]]) -> Types:
    types: Types = {}
    for line, row in rows:
        for name, value in row.items():
            types.setdefault(name, {}).setdefault(_JSON_TYPES.get(type(value), "object"), line)
    return types


def _json_row(decoder: json.JSONDecoder, text: str, names: list[str]) -> dict[str, Any]:
    """One line as an object with the keys `names` (any keys while there are none yet); ValueError if it is not."""
    row = decoder.decode(text)
    if not isinstance(row, dict) or not row:
        raise ValueError(f"expected an object with keys, found {text.strip()[:40]}")
    if names and row.keys() != set(names):
        raise ValueError(f"expected the keys {', '.join(names)}, found {', '.join(row)}")
    if "\\u" in text:  # escapes are the only way to a NUL or half a surrogate pair, which no other file format can hold
        strings = [*row, *(_json_cell(value) or "" for value in row.values())]
        "".join(strings).encode()
        if any("\0" in string for string in strings):
            raise ValueError("an escaped NUL character")
    return row


def _json_cell(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
