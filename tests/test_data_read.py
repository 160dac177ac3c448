"""The reader gives back exactly the cells that were written, or refuses the file and says where."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlptrain.data.read import LINE, MAX_CELL, Table, read_table
from nlptrain.data.sources import Source
from nlptrain.errors import ConfigError, DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


def read(path: Path, encoding: str = "utf-8", delimiter: str | None = None) -> Table:
    return read_table(Source("file", str(path), None, "train"), encoding=encoding, delimiter=delimiter)


def read_bytes(folder: Path, content: bytes, name: str = "rows.csv", **options: str) -> Table:
    path = folder / name
    path.write_bytes(content)
    return read(path, **options)


def cells(table: Table) -> list[tuple[str | None, ...]]:
    names = [name for name in table.rows.column_names if name != LINE]
    return list(zip(*(table.rows[name][:] for name in names), strict=True))


@settings(max_examples=60, deadline=None, database=None)
@given(ROWS)
def test_csv_gives_back_what_the_csv_module_wrote(rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        assert cells(read_bytes(Path(folder), buffer.getvalue().encode())) == rows


@settings(max_examples=60, deadline=None, database=None)
@given(ROWS, st.booleans())
def test_jsonl_gives_back_what_the_json_module_wrote(rows: list[tuple[str, str]], escape: bool) -> None:
    lines = [json.dumps({"a": a, "b": b}, ensure_ascii=escape) for a, b in rows]
    with tempfile.TemporaryDirectory() as folder:
        assert cells(read_bytes(Path(folder), "\n".join(lines).encode(), "rows.jsonl")) == rows


def test_words_for_missing_values_are_text_and_an_empty_cell_is_empty(tmp_path: Path) -> None:
    words = ["NA", "None", "null", "nan", "N/A", "007", "True", ""]
    table = read_bytes(tmp_path, b"text,label\n" + b"".join(f"{word},x\n".encode() for word in words))
    assert [text for text, _ in cells(table)] == words


def test_lines_are_those_on_which_rows_begin(tmp_path: Path) -> None:
    table = read_bytes(tmp_path, b'text,label\r\n"one\r\ntwo",x\r\nthree,y\r\n\r\n')
    assert table.rows[LINE][:] == [2, 4]


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    table = read_bytes(tmp_path, b'text\tlabel\n"open\tx\nin "the" middle\ty\n', "rows.tsv")
    assert cells(table) == [('"open', "x"), ('in "the" middle', "y")]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, mark: bytes) -> None:
    table = read_bytes(tmp_path, mark + "text,label\né,x\n".encode())
    assert table.rows.column_names == [LINE, "text", "label"]
    assert cells(table) == [("é", "x")]


def test_another_encoding_is_read_only_when_it_is_named(tmp_path: Path) -> None:
    content = "text,label\nok,x\ncafé,x\n".encode("latin-1")
    with pytest.raises(DataError, match=r"rows\.csv:3: byte 0xe9 at byte offset 19 .* data\.encoding: latin-1"):
        read_bytes(tmp_path, content)
    assert cells(read_bytes(tmp_path, content, encoding="latin-1"))[1] == ("café", "x")
    with pytest.raises(ConfigError, match="'latin-one' is not a text encoding"):
        read_bytes(tmp_path, content, encoding="latin-one")


def test_a_cell_beyond_the_csv_module_limit_is_read_and_the_limit_put_back(tmp_path: Path) -> None:
    before = 131_072  # the module's own
    csv.field_size_limit(before)
    table = read_bytes(tmp_path, b"text,label\n" + b"a" * 200_000 + b",x\n")
    assert len(cells(table)[0][0] or "") == 200_000
    with pytest.raises(DataError, match=r"rows\.csv:2: a cell of more than"):
        read_bytes(tmp_path, b'text,label\n"' + b"a" * (MAX_CELL + 1) + b'",x\n')
    assert csv.field_size_limit() == before


REFUSED = {
    "utf-16": ("text,label\na,x\n".encode("utf-16"), r"byte order mark of utf-16 .*data\.encoding: utf-16"),
    "nul": (b"text,label\na,x\nb\0,y\n", r"rows\.csv:3: a NUL"),
    "long first row": (b"text,label\na,b,x\n", r"rows\.csv:2: expected 2 fields \(text, label\), found 3"),
    "short later row": (b"text,label\na,x\nb\n", r"rows\.csv:3: expected 2 fields .* found 1"),
    "blank line": (b"text,label\na,x\n\nb,y\n", r"rows\.csv:3: .* a blank line"),
    "open quote": (b'text,label\na,x\n"b,y\nc,z\n', r"rows\.csv:3: a quote that opens in this row is never closed"),
    "stray quote": (b'text,label\n"a"b,x\n', r"rows\.csv:2: wrong quoting"),
    "column twice": (b"text,text\na,x\n", r"twice .*'text'"),
    "column without name": (b"text,\na,x\n", r"column 2 of the header has no name"),
    "empty": (b"", r"empty file"),
    "blank": (b"\n\n", r"empty file"),
    "header only": (b"text,label\n", r"only a header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_csv_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        read_bytes(tmp_path, content)


def test_many_ragged_rows_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_bytes(tmp_path, b"text,label\n" + b"a\n" * 25)
    assert len(caught.value.problems) == 11
    assert "25 rows in all" in caught.value.problems[-1]


REFUSED_JSON = {
    "duplicate key": ('{"text": "a", "text": "b"}', "key 'text' stands twice"),
    "nan": ('{"text": "a", "label": NaN}', "NaN is not JSON"),
    "infinity": ('{"text": "a", "label": -Infinity}', "-Infinity is not JSON"),
    "no object": ('["a", "b"]', "expected an object"),
    "cut off": ('{"text": "a", "label', r"Unterminated string"),
    "blank": ("", "a blank line"),
    "other keys": ('{"text": "a", "lable": 1}', "expected the keys text, label, found text, lable"),
    "half a surrogate pair": (r'{"text": "\ud800", "label": 1}', "surrogates not allowed"),
    "escaped nul": (r'{"text": "\u0000", "label": 1}', "NUL"),
    "bottomless": ("[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("case", REFUSED_JSON)
def test_malformed_jsonl_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    line, message = REFUSED_JSON[case]
    good = '{"text": "a", "label": 1}'
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{message}"):
        read_bytes(tmp_path, f"{good}\n{line}\n{good}\n".encode(), "rows.jsonl")


def test_jsonl_scalars_become_their_json_text_and_their_types_are_kept(tmp_path: Path) -> None:
    values = ["pos", 1, 1.5, True, None]
    lines = [json.dumps({"text": "a", "label": value}) for value in values]
    table = read_bytes(tmp_path, "\n".join(lines).encode(), "rows.jsonl")
    assert table.rows["label"][:] == ["pos", "1", "1.5", "true", None]
    assert table.types["label"] == {"text": 1, "integer": 2, "number": 3, "boolean": 4, "null": 5}


def test_parquet_columns_become_strings_and_rows_are_numbered(tmp_path: Path) -> None:
    columns = {
        "text": ["a", None],
        "label": pa.array([0, 1], pa.int8()),
        "cat": pa.array(["x", "y"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    table = read(tmp_path / "rows.parquet")
    assert cells(table) == [("a", "0", "x"), (None, "1", "y")]
    assert (table.rows[LINE][:], table.unit) == ([1, 2], "row")
    assert table.types["label"] == {"integer": 1}


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_bytes(tmp_path, b"PAR1 and nothing", "rows.parquet")


def test_a_hub_data_set_that_cannot_be_reached_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"nyu-mll/glue:sst2 split train: cannot be loaded .* data\.train"):
        read_table(Source("hub", "nyu-mll/glue", "sst2", "train"), encoding="utf-8", delimiter=None)


def test_class_ids_of_the_hub_become_names_and_minus_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    table = read_table(Source("hub", "owner/name", None, "test"), encoding="utf-8", delimiter=None)
    assert table.rows["label"][:] == ["pos", "neg", "-1"]
