"""Laws of reading and writing, on whatever hypothesis finds."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlptrain.config.load import load, parse, plain
from nlptrain.data.labels import LabelMap
from nlptrain.data.read import Where
from nlptrain.errors import ConfigError
from nlptrain.predict import _FORMULA_STARTS, _write_csv
from nlptrain.tasks import TaskSpec

FEW = settings(max_examples=100, deadline=None, database=None, derandomize=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SCALAR = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("ab -:#'é", max_size=8)
TREE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@FEW
@given(st.lists(TEXT, min_size=1, max_size=5), st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_csv_gives_back_texts_and_numbers_and_no_formula(texts: list[str], number: float) -> None:
    buffer = io.StringIO(newline="")
    _write_csv(buffer, iter([{"text": text, "score": number} for text in texts]))
    header, *rows = csv.reader(io.StringIO(buffer.getvalue(), newline=""))
    assert header == ["text", "score"]
    for (cell, score), text in zip(rows, texts, strict=True):
        assert not cell.startswith(_FORMULA_STARTS)
        assert cell in (text, f"'{text}")
        assert float(score) == number


@FEW
@given(st.dictionaries(st.text("abc", min_size=1), TREE, min_size=1, max_size=4))
def test_json_is_read_as_the_yaml_it_is(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
        assert plain(parse(path)) == tree


@FEW
@given(st.binary(max_size=80) | st.text(":-[]{}&*!|>%?'\"#, \nab1", max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(content)
        outcomes = []
        for _ in range(2):
            try:
                outcomes.append(load(path).model_dump_json())
            except ConfigError as error:
                outcomes.append(str(error))
    assert outcomes[0]
    assert outcomes[0] == outcomes[1]


@FEW
@given(st.lists(st.text("abcdé", min_size=1, max_size=3), min_size=2, max_size=20))
def test_labels_become_ids_and_come_back(values: list[str]) -> None:
    labels = LabelMap.fit(values, TaskSpec("own", "classification", ("text",)))
    ids = labels.encode(values, Where("rows", range(len(values))))
    assert [labels.names[number] for number in ids] == values
    assert len(set(labels.names)) == len(labels.names) == len(set(values))
    assert labels == LabelMap.fit(list(reversed(values)), TaskSpec("own", "classification", ("text",)))


def test_what_the_yaml_library_cannot_hold_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("{{a: 1}: 2}", "{[a]: {b: 1}, ? {c: 1} : 2}", "a: 2001-99-99", "a: " + "9" * 5000, "a: " + "[" * 3000):
        path.write_text(text)
        with pytest.raises(ConfigError, match="config.yaml"):
            load(path)
