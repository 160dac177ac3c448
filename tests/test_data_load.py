"""What a run gets from its files: checked rows, one label map, and facts that count what was found and done."""

import csv
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nlptrain.config.schema import DataConfig, TaskConfig
from nlptrain.data.checks import contradictions, repeats
from nlptrain.data.keys import numbered, row_key
from nlptrain.data.labels import LabelMap
from nlptrain.data.load import Splits, load_rows, load_splits, stream_rows
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TASKS, TaskSpec

OWN = TaskSpec("own", "classification", ("text",))
PAIRS = TaskSpec("own", "regression", ("a", "b"), label="score", label_range=(0.0, 5.0))
TRAIN = [("good film", "pos"), ("bad film", "neg"), ("fine film", "pos"), ("poor film", "neg")]
OTHER = [("v", "pos"), ("w", "neg")]


def write(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def load(folder: Path, task: TaskSpec = OWN, options: dict[str, Any] | None = None, **splits: Any) -> Splits:
    header = (*task.text, task.label)
    files = {split: write(folder / f"{split}.csv", rows, header) for split, rows in splits.items()}
    return load_splits(task, DataConfig(**files, **(options or {})), seed=0)


def test_all_splits_share_the_label_map_of_the_training_rows(tmp_path: Path) -> None:
    splits = load(tmp_path, train=TRAIN, validation=[("x", "pos"), ("y", "neg")], test=[("z", "pos")])
    assert splits.labels is not None
    assert splits.labels.names == ("neg", "pos")
    assert [splits.rows[split]["label"][:] for split in ("train", "validation", "test")] == [[1, 0, 1, 0], [1, 0], [1]]
    assert splits.rows["train"]["line"][:] == [2, 3, 4, 5]
    assert splits.rows["train"].cache_files == []


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (("Ⓐ Café",), (" ⓐ cafe\u0301 ",), True),
        (("one", "two"), ("two", "ONE"), True),
        (("Straße",), ("strasse",), True),
        (("a b",), ("a  b",), False),
        (("ab", ""), ("a", "b"), False),
    ],
)
def test_row_keys_ignore_case_edges_composition_and_order(a: tuple[str], b: tuple[str], same: bool) -> None:
    assert (row_key(a) == row_key(b)) is same


def test_repeats_and_contradictions_agree_with_counting_every_pair() -> None:
    draw = np.random.default_rng(5)
    keys = [["", "a", "b", "c", "d"][number] for number in draw.integers(0, 5, 30)]
    targets = draw.integers(0, 2, 30).tolist()
    rows = list(zip(keys, targets, strict=True))
    (numbers,) = numbered(pa.chunked_array([keys]))
    assert repeats(numbers, targets).tolist() == [i for i, row in enumerate(rows) if row[0] and row in rows[:i]]
    several = {a for (a, x), (b, y) in itertools.combinations(rows, 2) if a and a == b and x != y}
    assert contradictions(numbers, targets) == len(several)


def test_leaks_stop_the_run_and_name_the_rows_of_both_files(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"test\.csv.*1 row \(line 3\) also in .*train\.csv.*1 row \(line 2\).*data\.leakage"
    ):
        load(tmp_path, train=TRAIN, validation=OTHER, test=[("other", "pos"), (" GOOD film", "pos")])


@pytest.mark.parametrize(("policy", "left"), [("allow", 4), ("drop", 3)])
def test_leaks_are_counted_and_dropped_from_training_only(tmp_path: Path, policy: str, left: int) -> None:
    splits = load(tmp_path, options={"leakage": policy}, train=TRAIN, validation=OTHER, test=[TRAIN[0], ("v", "pos")])
    assert splits.facts["leakage"] == {"train/validation": 0, "train/test": 1, "validation/test": 1}
    assert {split: len(rows) for split, rows in splits.rows.items()} == {"train": left, "validation": 2, "test": 2}
    assert splits.facts["dropped"] == ({"train": {"leakage": 1}} if policy == "drop" else {})


def test_pairs_leak_in_either_order(tmp_path: Path) -> None:
    train = [("one", "two", "1"), ("three", "four", "2"), ("five", "six", "3")]
    with pytest.raises(DataError, match=r"1 row \(line 2\) also in"):
        load(tmp_path, PAIRS, train=train, validation=[("Two", "one", "1"), ("x", "y", "2")])


@pytest.mark.parametrize(("policy", "left"), [("allow", [5, 3]), ("drop", [4, 3])])
def test_repeats_are_counted_and_dropped_from_training_only(tmp_path: Path, policy: str, left: list[int]) -> None:
    given = {"train": [*TRAIN, TRAIN[0]], "validation": [*OTHER, OTHER[0]]}
    splits = load(tmp_path, options={"duplicates": policy}, **given)
    assert [len(rows) for rows in splits.rows.values()] == left
    assert [splits.facts[split]["duplicates"] for split in given] == [1, 1]
    with pytest.raises(DataError, match=r"1 row \(line 6\) repeat an earlier row"):
        load(tmp_path, options={"duplicates": "error"}, **given)


@pytest.mark.parametrize(("policy", "left"), [("allow", 5), ("drop", 4)])
def test_rows_without_text_follow_their_policy(tmp_path: Path, policy: str, left: int) -> None:
    given = {"train": [*TRAIN, (" ", "pos")], "validation": OTHER}
    splits = load(tmp_path, options={"empty_text": policy}, **given)
    assert (len(splits.rows["train"]), splits.facts["train"]["empty"]) == (left, 1)
    with pytest.raises(DataError, match=r"no text in 1 row \(line 6\).*data\.empty_text: drop"):
        load(tmp_path, **given)


def test_dropping_every_row_is_refused(tmp_path: Path) -> None:
    given = {"train": TRAIN, "validation": OTHER, "test": [("", "pos"), (" ", "neg")]}
    with pytest.raises(DataError, match=r"test\.csv \(test\): data\.empty_text: drop would leave no row"):
        load(tmp_path, options={"empty_text": "drop"}, **given)


def test_a_label_that_training_lacks_is_named_with_split_and_count(tmp_path: Path) -> None:
    validation = [("x", "mixed"), ("y", "mixed"), ("z", "pos")]
    with pytest.raises(DataError, match=r"\(validation\): unknown label 'mixed' in 2 rows \(lines 2, 3\)"):
        load(tmp_path, train=TRAIN, validation=validation)
    listed = TaskConfig(kind="classification", labels=["neg", "pos", "mixed"]).spec()
    with pytest.raises(DataError, match=r"label 'mixed' in 2 rows \(lines 2, 3\) of validation is in no training row"):
        load(tmp_path, listed, train=TRAIN, validation=validation)


@pytest.mark.parametrize("task", [OWN, TaskConfig(kind="regression", label="label").spec()])
def test_training_rows_of_one_class_or_score_are_refused(tmp_path: Path, task: TaskSpec) -> None:
    with pytest.raises(DataError, match=r"all 2 training rows have the same label or score"):
        load(tmp_path, task, train=[("a", "1"), ("b", "1")], validation=[("c", "1")])


def test_a_test_split_of_minus_ones_has_no_labels_and_validation_must_have_them(tmp_path: Path) -> None:
    hidden = [("x", "-1"), ("y", "-1")]
    splits = load(tmp_path, train=TRAIN, validation=OTHER, test=hidden)
    assert splits.rows["test"].column_names == ["text", "line"]
    assert splits.facts["test"]["unlabelled"]
    with pytest.raises(DataError, match="unknown label '-1' in 2 rows"):
        load(tmp_path, train=TRAIN, validation=hidden)


def test_validation_is_held_out_of_training_where_none_is_given(tmp_path: Path) -> None:
    train = [(f"text {row // 2}", str(row // 2 % 2)) for row in range(80)]
    splits = load(tmp_path, options={"validation_fraction": 0.25}, train=train)
    texts = {split: set(rows["text"][:]) for split, rows in splits.rows.items()}
    assert (len(texts["train"]), len(texts["validation"]), texts["train"] & texts["validation"]) == (30, 10, set())
    assert splits.facts["validation_from_train"] == {"fraction": 0.25, "seed": 0}
    assert splits.notes == ["validation: 20 of 80 training rows held out, seed 0"]


def test_facts_describe_the_file_and_are_json(tmp_path: Path) -> None:
    train = [("a", "bb", "1"), ("cccc", "d", "4.5"), ("e", "f", "2")]
    splits = load(tmp_path, PAIRS, train=train, validation=[("x", "y", "1")])
    facts = json.loads(json.dumps(splits.facts, allow_nan=False))["train"]
    assert facts["sha256"] == hashlib.sha256((tmp_path / "train.csv").read_bytes()).hexdigest()
    assert facts["characters"] == {"median": 3.0, "max": 5}
    numbers = [1.0, 4.5, 2.0]
    expected = {"min": 1.0, "max": 4.5, "mean": np.mean(numbers), "std": np.std(numbers)}
    assert facts["score"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("text;label", r"single column that contains ';': set data\.delimiter"),
        ("text\tlabel", r"single column that contains a tab: set data\.delimiter"),
        ("txt,label", r"no column 'text'; there is 'txt', 'label', the nearest is 'txt'"),
        ("text,lable", r"no column 'label'; there is 'text', 'lable', the nearest is 'lable'"),
    ],
)
def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(f"{header}\n{header.replace('te', 'x')}\n")
    with pytest.raises(DataError, match=message):
        load_splits(OWN, DataConfig(train=str(tmp_path / "t.csv")), seed=0)


def test_text_that_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": 0}\n{"text": 12, "label": 1}\n')
    with pytest.raises(DataError, match=r"t\.jsonl: column 'text' must hold text, found integer in line 2"):
        load_splits(OWN, DataConfig(train=str(tmp_path / "t.jsonl")), seed=0)


def test_a_text_column_with_a_reserved_name_is_refused(tmp_path: Path) -> None:
    task = TaskConfig(kind="classification", text=["line"]).spec()
    with pytest.raises(ConfigError, match="column 'line'"):
        load(tmp_path, task, train=[("a", "x"), ("b", "y")])


def test_prediction_keeps_every_row_and_the_other_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", [("7", "a", "wrong"), ("07", "", ""), ("8", "a", "pos")], ("id", "text", "label"))
    ((rows, notes),) = stream_rows(OWN, path, DataConfig())
    assert rows.to_dict() == {"text": ["a", "", "a"], "id": ["7", "07", "8"], "line": [2, 3, 4]}
    assert notes == [f"{path}: column 'label' is not used for predictions"]


def test_evaluation_uses_the_labels_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "e.csv", [("a", "1"), ("b", "0")], ("sentence", "label"))
    labels = LabelMap(("negative", "positive"))
    rows, _ = load_rows(TASKS["sst2"], path, DataConfig(), labels)
    assert rows["label"][:] == [1, 0]
    with pytest.raises(DataError, match="unknown label '1'"):
        load_rows(TaskSpec("own", "classification", ("sentence",)), path, DataConfig(), labels)


# Training and validation rows left together, leaks, repeats in training: counted by a script that shares no code.
REAL = {
    "sst2": (6917 + 872, {"train/validation": 0, "train/test": 2, "validation/test": 0}, 9),
    "stsb": (5725 + 1500, {"train/validation": 7, "train/test": 12, "validation/test": 4}, 45),
    "cola": (8533 + 1043, {"train/validation": 18}, 10),
    "mrpc": (4076, {"train/test": 0}, 0),
    "trec": (5441, {"train/test": 11}, 72),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_have_the_known_leaks_and_repeats(real_data: Path, name: str) -> None:
    task = TASKS.get(name) or TaskConfig(name=name, kind="classification").spec()
    splits = load_splits(task, DataConfig(leakage="drop"), seed=1)
    rows, leakage, duplicates = REAL[name]
    assert len(splits.rows["train"]) + len(splits.rows["validation"]) == rows
    assert (splits.facts["leakage"], splits.facts["train"]["duplicates"]) == (leakage, duplicates)
