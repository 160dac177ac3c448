"""Entities of rows of tags and their metrics, against seqeval's values and by the definition of CoNLL."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from nlptrain.comparison import check_same_rows, differences
from nlptrain.errors import ModelError
from nlptrain.metrics.entities import entities, is_orphan
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.scores import Scores, score, selection_value
from nlptrain.metrics.weighted import KINDS
from nlptrain.predictions import Predictions, digest, objects
from nlptrain.scoring import score_split
from nlptrain.tasks import ENTITY_METRICS, TaskSpec

ENTITIES = ("entity_precision", "entity_recall", "entity_f1")


def rows(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


# Predictions, references, and what seqeval 1.2.2 gives for precision, recall, F1 and accuracy: random tags, many of
# them I-x that continue nothing.
CASES = [
    (
        rows("O I-PER I-LOC", "O", "B-LOC O B-PER B-LOC O B-LOC O", "O", "I-PER O O O", "I-PER B-LOC B-LOC O O"),
        rows("O I-PER I-LOC", "O", "B-LOC O B-PER B-LOC O B-LOC O", "O", "I-PER O O O", "I-PER O B-LOC O O"),
        (0.9, 1.0, 0.9473684210526316, 0.9523809523809523),
    ),
    (
        rows(
            "B-LOC B-PER B-LOC I-PER",
            "B-PER O B-PER",
            "O O B-LOC I-LOC B-LOC I-PER",
            "I-LOC I-LOC B-PER",
            "B-PER O B-LOC I-PER O",
            "I-PER O O I-PER O I-LOC O",
        ),
        rows(
            "B-PER I-PER B-LOC I-PER",
            "B-PER O O",
            "O O B-LOC B-PER B-LOC I-PER",
            "I-LOC I-PER B-PER",
            "O O B-LOC I-PER O",
            "B-PER O I-PER I-PER O I-LOC O",
        ),
        (0.5882352941176471, 0.625, 0.6060606060606061, 0.7142857142857143),
    ),
    (
        rows(
            "B-LOC B-PER I-LOC I-PER",
            "B-LOC I-PER I-PER",
            "I-LOC I-PER",
            "O I-LOC",
            "O I-PER",
            "B-LOC I-PER B-PER B-PER O O I-PER",
        ),
        rows(
            "B-LOC B-PER I-LOC I-PER",
            "I-LOC I-PER O",
            "O O",
            "O I-LOC",
            "O I-PER",
            "B-LOC O B-PER B-PER O O I-PER",
        ),
        (0.7333333333333333, 0.9166666666666666, 0.8148148148148148, 0.75),
    ),
]


@pytest.mark.parametrize(("predictions", "references", "expected"), CASES)
def test_the_metrics_are_those_of_seqeval(
    predictions: list[list[str]], references: list[list[str]], expected: tuple[float, ...]
) -> None:
    found = score([*ENTITIES, "token_accuracy"], predictions, references)
    assert list(found.values.values()) == pytest.approx(expected, rel=1e-12)
    assert found.undefined == {}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-A", [("A", 0, 2), ("A", 3, 4)]),
        ("B-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("O I-A I-A I-B", [("A", 1, 3), ("B", 3, 4)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A-b I-A-b", [("A-b", 0, 2)]),
        ("", []),
    ],
)
def test_an_entity_goes_from_its_first_token_to_the_last_inside(tags: str, expected: list[object]) -> None:
    assert entities(tags.split()) == expected


def test_iob1_marks_the_same_entities_as_bio() -> None:
    assert entities(["I-A", "I-A", "B-A", "O", "I-B"]) == entities(["B-A", "I-A", "B-A", "O", "B-B"])


def test_an_inside_tag_is_an_orphan_behind_anything_but_its_type() -> None:
    tags = ["I-A", "I-A", "O", "I-A", "B-B", "I-A", "B-A", "I-A"]
    assert [place for place in range(len(tags)) if is_orphan(tags, place)] == [0, 3, 5]


def test_entities_do_not_go_on_in_the_next_row() -> None:
    one, two = rows("B-A", "I-A"), rows("B-A I-A")
    assert score(["entity_recall"], one, one).values["entity_recall"] == 1
    assert [len(entities(row)) for row in (*one, *two)] == [1, 1, 1]


def test_a_majority_of_outside_is_accurate_and_finds_nothing() -> None:
    references = rows("O O O O O O O O B-A I-A")
    found = score(ENTITY_METRICS, [["O"] * 10], references).values
    assert found == {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0, "token_accuracy": 0.8}


def test_without_an_entity_on_either_side_there_is_no_score_but_a_reason() -> None:
    found = score(ENTITY_METRICS, rows("O O"), rows("O O"))
    reason = "neither predictions nor references hold an entity"
    assert found == Scores({**dict.fromkeys(ENTITY_METRICS), "token_accuracy": 1}, dict.fromkeys(ENTITIES, reason))
    assert selection_value(METRICS["entity_f1"], found) == 0


def test_rows_without_tokens_have_no_score() -> None:
    assert set(score(ENTITY_METRICS, [[]], [[]]).undefined) == set(ENTITY_METRICS)
    assert set(score(ENTITY_METRICS, [], []).undefined) == set(ENTITY_METRICS)


@pytest.mark.parametrize(("predictions", "fault"), [(rows("O"), "2 predictions|found 1 and 2"), (rows("O", "O"), "2")])
def test_a_row_needs_as_many_predictions_as_tags(predictions: list[list[str]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        score(["entity_f1"], predictions, rows("O", "O O"))


def test_f1_is_the_harmonic_mean_and_the_order_of_rows_does_not_matter() -> None:
    predictions, references, _ = CASES[1]
    order = np.random.default_rng(0).permutation(len(references))
    found = score(ENTITIES, [predictions[row] for row in order], [references[row] for row in order]).values
    precision, recall, f1 = (found[name] or 0 for name in ENTITIES)
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert found == score(ENTITIES, predictions, references).values


def kept(predictions: list[list[str]], references: list[list[str]]) -> Predictions:
    lines = np.arange(len(references)) + 1
    texts = tuple(digest([str(line)]) for line in lines)
    return Predictions(lines, texts, objects(references), objects(predictions))


NER = TaskSpec("ner", "token_classification", ("tokens",), "tags", metrics=ENTITY_METRICS, primary="entity_f1")


def drawn(count: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(["O", "O", "B-A", "I-A", "B-B"], rng.integers(1, 9)).tolist() for _ in range(count)]


def noisy(rows: list[list[str]], seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[tag if rng.random() < 0.8 else "O" for tag in row] for row in rows]


def test_intervals_are_those_of_scipy_over_rows() -> None:
    references = drawn(60, 0)
    predictions = noisy(references, 1)
    found = score_split(NER, kept(predictions, references), None, resamples=400)
    assert set(found.values) == set(found.intervals) == set(ENTITY_METRICS)

    def f1(index: object) -> float:
        chosen = np.asarray(index, np.int64)
        rows = [predictions[one] for one in chosen], [references[one] for one in chosen]
        return score(["entity_f1"], *rows).values["entity_f1"] or 0.0

    expected = bootstrap((np.arange(60),), f1, n_resamples=400, vectorized=False, rng=np.random.default_rng(0))
    ends = found.intervals["entity_f1"]
    assert (ends["low"], ends["high"]) == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)


def test_every_resample_has_the_metrics_of_its_rows() -> None:
    references = [*drawn(12, 3), ["O"], ["O", "O"]]
    predictions = noisy(references, 4)
    statistics = KINDS["token_classification"](objects(predictions), objects(references))
    weights = np.random.default_rng(0).integers(0, 3, (20, len(references))).astype(float)
    weights[0] = [0] * 12 + [1, 2]
    for number, row in enumerate(weights):
        index = np.repeat(np.arange(len(row)), row.astype(int))
        expected = score(ENTITY_METRICS, [predictions[i] for i in index], [references[i] for i in index]).values
        for name, values in statistics(weights).items():
            assert values[number] == pytest.approx(
                expected[name] if expected[name] is not None else np.nan, nan_ok=True
            )


def test_every_type_has_its_own_scores() -> None:
    found = score_split(NER, kept(rows("B-A I-A O", "B-B O"), rows("B-A I-A B-C", "B-A O")), None, resamples=0)
    assert found.per_class == {
        "A": {"rows": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)},
        "B": {"rows": 0, "precision": 0.0, "recall": None, "f1": 0.0},
        "C": {"rows": 1, "precision": None, "recall": 0.0, "f1": 0.0},
    }


def test_a_model_that_finds_no_entity_is_called_collapsed() -> None:
    found = score_split(NER, kept(rows("O O", "O"), rows("B-A O", "O")), None, resamples=0)
    assert found.collapsed == "every token is predicted 'O'"
    assert score_split(NER, kept(rows("O"), rows("O")), None, resamples=0).collapsed is None


def test_tags_that_are_kept_come_back(tmp_path: Path) -> None:
    found = kept(rows("B-A O", "O", "O O"), rows("B-A I-A", "O", "O O"))
    found.write(tmp_path / "test.jsonl")
    back = Predictions.read(tmp_path / "test.jsonl")
    assert (back.labels.tolist(), back.outputs.tolist()) == (found.labels.tolist(), found.outputs.tolist())
    check_same_rows(found, back, ("a", "b"))


@pytest.mark.parametrize("output", ['["O"]', "[1, 2]", "[0.5, null]"])
def test_kept_tags_that_do_not_belong_to_the_labels_are_refused(tmp_path: Path, output: str) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(f'{{"line": 1, "text": "a", "label": ["O", "B-A"], "output": {output}}}\n')
    with pytest.raises(ModelError, match="test.jsonl:1"):
        Predictions.read(path)


def test_two_runs_are_compared_by_their_entities() -> None:
    references = drawn(300, 5)
    good, bad = ({1: kept(noisy(rows, 6), references)} for rows in (references, noisy(references, 7)))
    found = {one.metric: one for one in differences("token_classification", bad, good)}
    assert set(found) == set(ENTITY_METRICS)
    assert found["entity_f1"].shown_better == "b"
    expected = [score(["entity_f1"], side[1].outputs, references).values["entity_f1"] for side in (bad, good)]
    assert [found["entity_f1"].a, found["entity_f1"].b] == pytest.approx(expected)
