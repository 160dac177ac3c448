"""Rows of tokens and tags: three ways to write them, and each mistake in them with file, row and remedy."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlptrain.config.schema import DataConfig
from nlptrain.data.load import Splits, load_splits, stream_rows
from nlptrain.data.read import read_table
from nlptrain.data.sources import Source
from nlptrain.data.splits import tagged
from nlptrain.data.tags import TagMap
from nlptrain.errors import DataError
from nlptrain.tasks import ENTITY_METRICS, TaskSpec

NER = TaskSpec("ner", "token_classification", ("tokens",), "tags", metrics=ENTITY_METRICS, primary="entity_f1")
ROWS = [
    (["EU", "rejects", "it"], ["B-ORG", "O", "O"]),
    (["Peter", "Black", "runs"], ["B-PER", "I-PER", "O"]),
    (["in", "New", "York"], ["O", "B-LOC", "I-LOC"]),
]
TRAIN = [*ROWS, (["a", "dog"], ["O", "O"])]


def write(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    columns = {name: [row[side] for row in rows] for side, name in enumerate(("tokens", "tags"))}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"tokens": tokens, "tags": tags}) for tokens, tags in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join((" ".join(tokens), " ".join(tags))) for tokens, tags in rows]
        path.write_text("\n".join([f"tokens{mark}tags", *lines]) + "\n", encoding="utf-8")
    return path


def load(folder: Path, rows: list[tuple[Any, Any]], ending: str = ".jsonl", **settings: Any) -> Splits:
    train = write(folder / f"train{ending}", rows)
    other = write(folder / f"validation{ending}", [([*tokens, "x"], [*tags, "O"]) for tokens, tags in ROWS])
    return load_splits(NER, DataConfig(train=str(train), validation=str(other), **settings), seed=1)


def problems(folder: Path, rows: list[tuple[Any, Any]], ending: str = ".jsonl", **settings: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(folder, rows, ending, **settings)
    return caught.value.problems


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_lists_and_cells_with_spaces_are_the_same_rows(tmp_path: Path, ending: str) -> None:
    splits = load(tmp_path, TRAIN, ending)
    assert splits.labels == TagMap(("O", "B-LOC", "B-ORG", "B-PER", "I-LOC", "I-PER"))
    assert splits.rows["train"]["tokens"][:] == [" ".join(tokens) for tokens, _ in TRAIN]
    found = [splits.labels.decode(target) for target in splits.rows["train"]["label"][:]]
    assert found == [tags for _, tags in TRAIN]


def test_facts_count_tags_entities_and_insides_that_begin(tmp_path: Path) -> None:
    rows = [*TRAIN, (["Mary", "Ann", "Lee"], ["I-PER", "I-PER", "B-PER"])]
    splits = load(tmp_path, rows)
    facts = splits.facts["train"]
    assert facts["labels"] == {"O": 6, "B-LOC": 1, "B-ORG": 1, "B-PER": 2, "I-LOC": 1, "I-PER": 3}
    assert (facts["entities"], facts["inside_without_begin"]) == ({"LOC": 1, "ORG": 1, "PER": 3}, 1)
    (note,) = [note for note in splits.notes if "I-x" in note]
    assert note.startswith("train: 1 tags I-x continue no entity")
    assert "1 row (line 5)" in note


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((["a", "b"], ["O"]), ["as many tags as tokens, found 2 tokens and 1 tags in 1 row (line 5)"]),
        ((["a", "b"], ["O", "PER"]), ["O, or B- or I- and a type", "'PER' in 1 row (line 5)"]),
        ((["a", "b"], ["O", "b-PER"]), ["differ only by case", "'b-PER' in 1 row (line 5)"]),
        ((["a", ""], ["O", "O"]), ["column 'tokens' has an empty token in 1 row (line 5)", "and its tag"]),
        ((["a", " "], ["O", "O"]), ["column 'tokens' has an empty token in 1 row (line 5)"]),
        ((["a", "b"], ["O", ""]), ["column 'tags' has an empty token in 1 row (line 5)"]),
        ((["New York"], ["B-LOC"]), ["a token with a space in it in 1 row (line 5)", "two tokens"]),
        ((["a", 7], ["O", "O"]), ["must hold lists of texts, found something else in 1 row (line 5)"]),
        (({"a": 1}, ["O"]), ["must hold lists of texts, found something else in 1 row (line 5)"]),
        (("a b", ["O", "O"]), ["must hold lists of texts, found something else in 1 row (line 5)"]),
        (([], []), ["no text in 1 row (line 5)", "data.empty_text"]),
        ((["a", "b"], ["O", "-1"]), ["'-1' in 1 row (line 5)"]),
    ],
)
def test_a_wrong_row_is_named_with_its_line_and_a_remedy(
    tmp_path: Path, row: tuple[Any, Any], expected: list[str]
) -> None:
    found = "\n".join(problems(tmp_path, [*TRAIN, row]))
    assert "train.jsonl" in found
    assert [part for part in expected if part not in found] == []


def test_two_spaces_in_a_cell_are_an_empty_token(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, [*TRAIN, (["a", "", "b"], ["O", "O", "O"])], ".csv")
    assert "an empty token in 1 row (line 6); separate tokens by exactly one space" in found


def test_a_tag_that_training_does_not_have_is_unknown_elsewhere(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, [(tokens, tags) for tokens, tags in TRAIN if "B-LOC" not in tags])[:1]
    assert "unknown label 'B-LOC' in 1 row (line 3)" in found
    assert "expected one of 'O', 'B-ORG', 'B-PER', 'I-PER'" in found


def test_leaks_and_repeats_are_those_of_the_joined_text(tmp_path: Path) -> None:
    (leak,) = problems(tmp_path, [*TRAIN, (["eu", "Rejects", "it", "X"], ["O"] * 4)])
    assert "1 row (line 1) also in" in leak
    assert load(tmp_path, [*TRAIN, TRAIN[0]]).facts["train"]["duplicates"] == 1


def test_the_tags_of_the_task_keep_their_order_and_may_be_written_as_numbers(tmp_path: Path) -> None:
    task = TaskSpec("ner", "token_classification", ("tokens",), "tags", labels=("O", "I-X", "B-X"))
    train = write(tmp_path / "train.jsonl", [(["a", "b"], [2, 1]), (["c"], [0])])
    other = write(tmp_path / "other.jsonl", [(["d"], ["B-X"])])
    splits = load_splits(task, DataConfig(train=str(train), validation=str(other)), seed=1)
    assert splits.rows["train"]["label"][:] == [[2, 1], [0]]
    assert splits.rows["validation"]["label"][:] == [[2]]


def test_rows_to_predict_need_no_tags_and_keep_their_order(tmp_path: Path) -> None:
    source = tmp_path / "new.jsonl"
    source.write_text('{"tokens": ["a", "b"]}\n{"tokens": []}\n{"tokens": ["c"]}\n')
    ((rows, _),) = stream_rows(NER, str(source), DataConfig())
    assert rows["tokens"][:] == ["a b", "", "c"]


def test_a_list_is_still_no_text_of_a_classification(tmp_path: Path) -> None:
    task = TaskSpec("own", "classification", ("tokens",), "tags")
    with pytest.raises(DataError, match="must hold text, found object in line 1"):
        load_splits(task, DataConfig(train=str(write(tmp_path / "train.jsonl", TRAIN))), seed=1)


def test_lists_of_class_ids_of_the_hub_become_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    names = datasets.ClassLabel(names=["O", "B-X"])
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), tags=datasets.List(names))
    rows = datasets.Dataset.from_dict({"tokens": [["a", "b"], []], "tags": [[1, 0], []]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    table = read_table(Source("hub", "owner/name", None, "train"), encoding="utf-8", delimiter=None)
    assert [json.loads(cell) for cell in table.rows["tags"][:]] == [["B-X", "O"], []]


def test_the_held_out_part_leaves_every_tag_in_training() -> None:
    rows = [(0, 1)] * 50 + [(0,)] * 40 + [(0, 2)] * 2 + [(0, 3, 1)]
    keys = [f"row {number}" for number in range(len(rows))]
    for seed in range(20):
        kept, held = tagged(keys, rows, names=["O", "a", "b", "c"], fraction=0.3, seed=seed, origin="t")
        assert len(held) == 28
        assert sorted(kept + held) == list(range(len(rows)))
        assert {number for row in kept for number in rows[row]} == {0, 1, 2, 3}


def test_equal_rows_stay_on_one_side_and_the_seed_alone_decides() -> None:
    keys, rows = [f"row {number // 3}" for number in range(90)], [(0,)] * 90
    first, again, other = (
        tagged(keys, rows, names=["O"], fraction=0.2, seed=seed, origin="t")[1] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert not {keys[row] for row in first} & {keys[row] for row in range(90) if row not in first}


def test_rows_that_all_hold_a_tag_of_their_own_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="no row can be held out: .* of O, B-a"):
        tagged(["x", "y"], [(0,), (1,)], names=["O", "B-a"], fraction=0.5, seed=0, origin="t")
