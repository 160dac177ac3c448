"""Rows in files without a name: they are all there, the file is not, and memory does not hold them."""

import pickle
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from nlptrain.config.schema import DataConfig
from nlptrain.data.encode import encode
from nlptrain.data.load import load_splits
from nlptrain.data.mapped import written
from nlptrain.tasks import TaskSpec
from tests.command_line import write_csv
from tests.tiny import tiny_tokenizer

TASK = TaskSpec("own", "classification", ("text",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_rows_outlive_their_file_and_reach_other_processes(folder: Path) -> None:
    rows = written(pa.table({"text": [f"{chunk} {row}" for row in range(5)]}) for chunk in range(3))
    assert list(folder.iterdir()) == []
    picked = rows.select([14, 0])
    assert rows["text"][:] == [f"{chunk} {row}" for chunk in range(3) for row in range(5)]
    assert pickle.loads(pickle.dumps(picked))["text"][:] == ["2 4", "0 0"]


def test_a_fault_leaves_nothing_behind(folder: Path) -> None:
    def tables() -> object:
        yield pa.table({"text": ["a"]})
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        written(tables())  # type: ignore[arg-type]
    assert list(folder.iterdir()) == []


def test_neither_texts_nor_tokens_are_held_in_memory(tmp_path: Path, folder: Path) -> None:
    words = "good film " * 9 + "x" * 700
    path = write_csv(tmp_path / "train.csv", [(f"{row} {words}", ("neg", "pos")[row % 2]) for row in range(2500)])
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    rows = load_splits(TASK, DataConfig(train=str(path)), seed=0).rows["train"]
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held + pa.total_allocated_bytes() - before < path.stat().st_size / 5
    before = pa.total_allocated_bytes()
    tokens = encode(rows, TASK, tiny_tokenizer(), 128, clean=())
    assert pa.total_allocated_bytes() - before < tokens.data.nbytes / 5
