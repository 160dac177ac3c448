"""Reading a file or a Hub data set strictly into string columns in memory; nothing is guessed and nothing is written.

An empty cell is the only missing value: ``NA``, ``null`` and ``nan`` are text.
"""

import codecs
import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa

from nlptrain.data.columnar import LINE, Types, check_names, read_hub, read_parquet
from nlptrain.data.sources import Source, existing
from nlptrain.errors import ConfigError, DataError

MAX_CELL = 10 * 1024 * 1024
SHOWN = 10
_CHUNK = 10_000
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_JSON_TYPES = {str: "text", bool: "boolean", int: "integer", float: "number", type(None): "null"}

Row = tuple[int, Sequence[str | None]]


@dataclass(frozen=True)
class Table:
    """All rows of one source.

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


@dataclass(frozen=True)
class Where:
    """Names rows in messages: `lines` holds what to call each row, in `unit`, of the source `origin`."""

    origin: str
    lines: Sequence[int]
    unit: str = "line"

    def at(self, rows: Sequence[int]) -> str:
        """How many rows (indices) and where the first `SHOWN` are: ``2 rows (lines 3, 17)``."""
        shown = ", ".join(str(self.lines[row]) for row in rows[:SHOWN])
        plural = "" if len(rows) == 1 else "s"
        return f"{len(rows)} row{plural} ({self.unit}{plural} {shown}{', ...' if len(rows) > SHOWN else ''})"


def read_table(source: Source, *, encoding: str, delimiter: str | None) -> Table:
    """Read a whole source.

    Args:
        source: what to read.
        encoding: of CSV, TSV and JSONL files; utf-8 may begin with a byte order mark.
        delimiter: of CSV and TSV files; None: a comma or a tab by the file's name.

    Raises:
        DataError: missing, unreadable, empty or malformed; the message names file and line.
        ConfigError: unknown encoding.
    """
    table = _read(source, encoding, delimiter)
    if table.rows.num_rows == 0:
        raise DataError("DATA_EMPTY", f"{table.origin}: expected rows, found only a header; give a source with rows")
    return table


def _read(source: Source, encoding: str, delimiter: str | None) -> Table:
    if source.kind == "hub":
        rows, types = read_hub(source)
        return Table(rows, str(source), "row", types)
    path = existing(Path(source.location))
    match path.suffix.lower():
        case ".parquet":
            rows, types = read_parquet(path)
            return Table(rows, str(path), "row", types)
        case ".jsonl":
            return _read_jsonl(path, encoding)
        case ".tsv":
            return _read_csv(path, encoding, delimiter or "\t", quoted=False)
        case _:
            return _read_csv(path, encoding, delimiter or ",", quoted=True)


def _decoded(path: Path, encoding: str) -> str:
    """The whole text of a file that is not empty."""
    try:
        codec = codecs.lookup(encoding).name.replace("utf-8-sig", "utf-8")
        raw = path.read_bytes()
        _refuse_mark(path, raw, codec)
        text = raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError("DATA_ENCODING", _undecodable(path, raw, error.start, codec)) from error
    except LookupError as error:
        raise ConfigError("DATA_ENCODING", f"data.encoding: {encoding!r} is not a text encoding; use utf-8") from error
    except OSError as error:
        raise DataError("DATA_FILE", f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if (nul := text.find("\0")) >= 0:
        line = text.count("\n", 0, nul) + 1
        raise DataError("DATA_NUL", f"{path}:{line}: a NUL character, so not a text file; save it as plain UTF-8 text")
    if not text.strip():
        raise DataError("DATA_EMPTY", f"{path}: expected rows, found an empty file; give a file with rows")
    return text


def _refuse_mark(path: Path, raw: bytes, codec: str) -> None:
    """A byte order mark of another encoding than `codec` is an error."""
    name = next((name for mark, name in _MARKS if raw.startswith(mark)), codec)
    if not codec.startswith(name):
        problem = f"{path}:1: expected {codec}, found the byte order mark of {name} at byte offset 0"
        raise DataError("DATA_ENCODING", f"{problem}; convert the file to UTF-8 or set data.encoding: {name}")


def _undecodable(path: Path, raw: bytes, offset: int, codec: str) -> str:
    line = raw.count(b"\n", 0, offset) + 1
    problem = f"{path}:{line}: byte 0x{raw[offset]:02x} at byte offset {offset} is not {codec}"
    hint = "latin-1" if codec == "utf-8" else "utf-8"
    return f"{problem}; convert the file to UTF-8, or say what it is, for example data.encoding: {hint}"


def _refuse(code: str, problems: list[str], remedy: str) -> None:
    """Raise the first of the problems and their number, if there are any."""
    if len(problems) == 1:
        raise DataError(code, f"{problems[0]}; {remedy}")
    if problems:
        raise DataError(code, [*problems[:SHOWN], f"{len(problems)} rows in all are malformed; {remedy}"])


def _dataset(names: Sequence[str], rows: Iterator[Row]) -> datasets.Dataset:
    schema = pa.schema([(LINE, pa.int64()), *((name, pa.string()) for name in names)])
    batches = []
    while chunk := list(itertools.islice(rows, _CHUNK)):
        lines, cells = zip(*chunk, strict=True)
        columns = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
        batches.append(pa.record_batch([pa.array(lines, pa.int64()), *columns], schema=schema))
    return datasets.Dataset(pa.Table.from_batches(batches, schema=schema))


# ---- CSV and TSV ----


def _read_csv(path: Path, encoding: str, delimiter: str, *, quoted: bool) -> Table:
    """TSV files of the GLUE kind hold bare quotes, so only `quoted` files give quotes a meaning."""
    text = _decoded(path, encoding).rstrip("\r\n")
    style: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with _cell_limit():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=style, strict=True)
        rows = _csv_rows(path, reader)
        _, header = next(rows)
        check_names(path, header or [""])
        remedy = (
            "quote cells that hold a delimiter or line break" if quoted else "remove tabs and line breaks from texts"
        )
        return Table(_dataset(header, _of_width(path, header, rows, remedy)), str(path))


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
    """The rows, every one as wide as the header."""
    problems = []
    expected = f"expected {len(header)} fields ({', '.join(header)})"
    for line, row in rows:
        if len(row) == len(header):
            yield line, row
        else:
            problems.append(f"{path}:{line}: {expected}, found {len(row) or 'a blank line'}")
    _refuse("DATA_RAGGED", problems, remedy)


# ---- JSON Lines ----


def _read_jsonl(path: Path, encoding: str) -> Table:
    decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_no_constant)
    names: list[str] = []
    types: Types = {}
    rows: list[Row] = []
    problems = []
    for line, text in enumerate(_decoded(path, encoding).rstrip().split("\n"), 1):
        try:
            row = _json_row(decoder, text, names)
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}:{line}: {error}")
            continue
        names = names or list(row)
        rows.append((line, [_json_cell(row[name]) for name in names]))
        for name, value in row.items():
            types.setdefault(name, {}).setdefault(_JSON_TYPES.get(type(value), "object"), line)
    _refuse("DATA_JSON", problems, "every line must be one JSON object with the same keys")
    check_names(path, names)
    return Table(_dataset(names, iter(rows)), str(path), "line", types)


def _json_row(decoder: json.JSONDecoder, text: str, names: list[str]) -> dict[str, Any]:
    """One line as an object with the keys `names` (any keys while there are none yet); ValueError if it is not."""
    if not text.strip():
        raise ValueError("a blank line")
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
