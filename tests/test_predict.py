"""Predictions of files of any size: every row once and in order, in memory that does not grow, whole or not at all."""

import csv
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from nlptrain import pipeline, training_arguments
from nlptrain.config.load import load
from nlptrain.data import read, text
from nlptrain.data.sources import Source
from nlptrain.inference import OpenRun
from tests.command_line import Done, sentences, write_card, write_csv

ROWS = [row for row, _ in sentences(60, 1)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    words = ("training.max_steps=3", "training.eval_strategy=no", "report={bootstrap: 0, baselines: []}")
    pipeline.run(load(write_card(folder), words))
    return folder / "run"


def source(folder: Path, kind: str, rows: list[str]) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "csv":
        return write_csv(path, [(row,) for row in rows], ("text",))
    if kind == "parquet":
        pq.write_table(pa.table({"text": rows}), path)
    else:
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def predicted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_chunks_of_any_size_give_the_same_rows(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    data = source(tmp_path, kind, ROWS)
    found = []
    for size in (len(ROWS), 7):
        monkeypatch.setattr(read, "CHUNK", size)
        output = tmp_path / f"{size}.jsonl"
        done = nlptrain("predict", run, "--data", data, "--output", output, "--json")
        assert (done.code, json.loads(done.out)["rows"]) == (0, len(ROWS)), done.err
        found.append(predicted(output))
    for whole, chunked, row in zip(*found, ROWS, strict=True):
        assert whole["text"] == chunked["text"] == row
        assert chunked["probability_positive"] == pytest.approx(whole["probability_positive"], abs=1e-6)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_probabilities_are_those_that_pipeline_serves(
    nlptrain: Callable[..., Done],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bf16: bool,
    tolerance: float,
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub(r"bf16: \w+", "bf16: true", config))
    monkeypatch.setattr(training_arguments, "has_bf16", lambda *, cpu: bf16)
    output = tmp_path / "out.jsonl"
    assert nlptrain("predict", copy, "--data", source(tmp_path, "csv", ROWS), "--output", output).code == 0
    ours = [row["probability_positive"] for row in predicted(output)]
    serve = transformers.pipeline("text-classification", model=str(run / "model"), device="cpu")
    answers = serve(ROWS, top_k=None, batch_size=32)
    theirs = [next(one["score"] for one in row if one["label"] == "positive") for row in answers]
    assert ours == pytest.approx(theirs, abs=tolerance)
    assert (ours == pytest.approx(theirs, abs=1e-6)) is not bf16


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_lines_and_types_of_joined_chunks_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = str(source(tmp_path, kind, ROWS))
    tables = []
    for size in (len(ROWS), 7):
        monkeypatch.setattr(read, "CHUNK", size)
        tables.append(read.read_table(Source("file", path, None, "test"), encoding="utf-8", delimiter=None))
    assert tables[0].rows.to_dict() == tables[1].rows.to_dict()
    assert tables[0].types == tables[1].types


def test_what_a_chunk_takes_is_given_back(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK", 20)
    data = source(tmp_path, "csv", [one for number in range(8) for one in (f"{row} {number}" for row in ROWS)])
    held, logits = [], OpenRun.logits

    def measured(opened: OpenRun, encoded: Any) -> Any:
        held.append(pa.total_allocated_bytes())
        return logits(opened, encoded)

    monkeypatch.setattr(OpenRun, "logits", measured)
    assert nlptrain("predict", run, "--data", data, "--output", tmp_path / "out.jsonl").code == 0
    assert len(held) == 24
    assert max(held[16:]) <= max(held[:8]) * 1.05


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_is_read_in_the_memory_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(read, "CHUNK", 50)
    monkeypatch.setattr(text, "_BLOCK", 1 << 16)
    path = source(tmp_path, kind, ["a row of text " * 8] * 10_000)
    tracemalloc.start()
    rows = sum(
        len(chunk.rows)
        for chunk in read.read_chunks(Source("file", str(path), None, "test"), encoding="utf-8", delimiter=None)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 10_000
    assert peak < path.stat().st_size / 4


def test_what_is_wrong_at_the_end_of_a_file_is_said_before_the_first_prediction(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK", 7)
    monkeypatch.setattr(OpenRun, "logits", lambda *_: pytest.fail("predicted"))
    data = source(tmp_path, "csv", ROWS)
    with data.open("a") as file:
        file.write("two,fields\n")
    done = nlptrain("predict", run, "--data", data, "--output", tmp_path / "out.csv")
    assert (done.code, f"{data}:{len(ROWS) + 2}: expected 1 fields" in done.err) == (3, True)
    assert [path.name for path in tmp_path.glob("*out.csv*")] == []


def test_a_file_that_grows_while_it_is_read_gives_no_predictions(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, logits = source(tmp_path, "csv", ROWS), OpenRun.logits

    def growing(opened: OpenRun, encoded: Any) -> Any:
        write_csv(data, [(row,) for row in [*ROWS, "another"]], ("text",))
        return logits(opened, encoded)

    monkeypatch.setattr(read, "CHUNK", 7)
    monkeypatch.setattr(OpenRun, "logits", growing)
    (tmp_path / "out.csv").write_text("old")
    done = nlptrain("predict", run, "--data", data, "--output", tmp_path / "out.csv")
    assert (done.code, "had 60 rows" in done.err) == (3, True)
    assert [path.read_text() for path in tmp_path.glob("*out.csv*")] == ["old"]


def test_every_byte_of_a_character_may_stand_in_another_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["é", "中文", "🙂" * 5, "ok"]
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-8-sig", "gb18030"):
        path = tmp_path / f"{encoding}.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([("text",), *((row,) for row in rows)])
        for size in (1, 3, 1 << 20):
            monkeypatch.setattr(text, "_BLOCK", size)
            table = read.read_table(Source("file", str(path), None, "test"), encoding=encoding, delimiter=None)
            assert table.rows["text"][:] == rows, (encoding, size)


def test_the_place_of_a_wrong_byte_does_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text\né\né".encode() + b"\xc3\n")
    for size in (1, 2, 1 << 20):
        monkeypatch.setattr(text, "_BLOCK", size)
        with pytest.raises(read.DataError, match=r"rows\.csv:3: byte 0xc3 at byte offset 10 is not utf-8"):
            read.read_table(Source("file", str(path), None, "test"), encoding="utf-8", delimiter=None)
