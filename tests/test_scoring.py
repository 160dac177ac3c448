"""What is said of predictions: values, classes, collapse; and that predictions survive the way to disk and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from nlptrain.errors import ModelError
from nlptrain.metrics.registry import REPORTED
from nlptrain.predictions import Predictions, digest
from nlptrain.scoring import score_split
from nlptrain.tasks import TASKS

NAMES = ("entailment", "neutral", "contradiction")


def predictions(outputs: Any, labels: Any) -> Predictions:
    lines = np.arange(len(labels)) + 2
    return Predictions(lines, tuple(digest([str(line)]) for line in lines), np.asarray(labels), np.asarray(outputs))


def three_classes(rows: int = 200) -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, rows)
    return predictions(rng.normal(size=(rows, 3)) + np.eye(3)[labels], labels)


def test_every_class_has_the_scores_of_scikit_learn() -> None:
    found = three_classes()
    scores = score_split(TASKS["mnli"], found, NAMES, resamples=0)
    expected = precision_recall_fscore_support(found.labels, found.outputs.argmax(axis=1))
    for number, name in enumerate(NAMES):
        row = scores.per_class[name]
        assert [row["precision"], row["recall"], row["f1"], row["rows"]] == [part[number] for part in expected]
    assert scores.values["f1_macro"] == pytest.approx(np.mean([row["f1"] for row in scores.per_class.values()]))
    assert scores.intervals == {}


def test_all_reported_metrics_are_there_and_have_intervals() -> None:
    for task, found in (("mnli", three_classes()), ("stsb", predictions([[1.0], [2.5], [2.0]], [1.0, 2.0, 3.0]))):
        names = NAMES if task == "mnli" else None
        scores = score_split(TASKS[task], found, names, resamples=100)
        assert set(scores.values) == set(scores.intervals) == set(REPORTED[TASKS[task].kind])


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    scores = score_split(TASKS["mnli"], predictions(np.eye(3)[[0, 1, 0]], [0, 1, 1]), NAMES, resamples=0)
    assert scores.per_class["contradiction"] == {"rows": 0, "precision": None, "recall": None, "f1": None}


def test_a_model_that_predicts_one_class_is_called_collapsed() -> None:
    collapsed = predictions([[0.3, 0.1]] * 3, [0, 1, 0])
    names = ("unacceptable", "acceptable")
    scores = score_split(TASKS["cola"], collapsed, names, resamples=50)
    assert scores.collapsed == "every row is predicted 'unacceptable', which 66.7% of the rows are"
    assert scores.values["matthews_correlation"] == 0
    other = predictions([[0.3, 0.1], [0.1, 0.3], [0.3, 0.1]], [0, 1, 0])
    assert score_split(TASKS["cola"], other, names, resamples=0).collapsed is None
    one_class = predictions([[0.3, 0.1]] * 3, [0, 0, 0])
    assert score_split(TASKS["cola"], one_class, names, resamples=0).collapsed is None


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_scores_that_hardly_differ_are_called_collapsed(spread: float) -> None:
    labels = np.linspace(0, 5, 50)
    scores = score_split(TASKS["stsb"], predictions((2.5 + spread * labels)[:, None], labels), None, resamples=50)
    assert (scores.collapsed or "").startswith("all scores are about 2.5")
    if spread == 0:
        assert scores.values["pearson"] is None
        assert scores.undefined["pearson"] == "constant predictions"
        assert scores.intervals["pearson"] == {
            "low": None,
            "high": None,
            "method": None,
            "reason": "constant predictions",
        }


def test_predictions_come_back_bit_by_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for found in (three_classes(), predictions(rng.normal(size=(9, 1)) * 1e9, rng.normal(size=9))):
        found.write(tmp_path / "new" / "test.jsonl")
        back = Predictions.read(tmp_path / "new" / "test.jsonl")
        assert back.texts == found.texts
        for name in ("lines", "labels", "outputs"):
            ours, theirs = getattr(found, name), getattr(back, name)
            assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())


def test_scores_that_are_whole_numbers_stay_scores(tmp_path: Path) -> None:
    predictions([[1.0], [2.0]], [1.0, 2.0]).write(tmp_path / "test.jsonl")
    assert Predictions.read(tmp_path / "test.jsonl").labels.dtype == np.float64


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"line": 3, "text": "a", "label": 1, "output": [NaN, 1]}', "NaN is not JSON"),
        ('{"line": 3, "text": "a", "label": 1', "test.jsonl:2: not a prediction"),
        ('{"line": 3, "text": "a", "label": 1}', "test.jsonl:2: not a prediction"),
        ('{"line": 3, "text": "a", "label": 1, "output": [1]}', "equally many outputs"),
        ('{"line": 3, "text": "a", "label": 1, "output": 1}', "test.jsonl:2: expected"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"line": 2, "text": "b", "label": 0, "output": [0.1, 0.2]}) + "\n" + line + "\n")
    with pytest.raises(ModelError, match=problem):
        Predictions.read(path)


def test_an_output_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="output of line 3 is not finite"):
        predictions([[1.0], [np.inf]], [1.0, 2.0]).write(tmp_path / "test.jsonl")
    assert not list(tmp_path.iterdir())
