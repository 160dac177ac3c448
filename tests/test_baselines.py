"""What needs no fine-tuning: what it is, and that it reaches the record of a run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import log_loss, matthews_corrcoef

from nlptrain import baselines, forward
from nlptrain.config.load import load
from nlptrain.data.load import load_splits
from tests.command_line import Done, sentences, write_csv

ALL = "report.baselines=[constant, tfidf, frozen]"


def outputs(card: Path, *words: str) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    config = load(card, [ALL, *words])
    splits = load_splits(config.spec, config.data, seed=0)
    labels = {split: np.asarray(rows["label"][:]) for split, rows in splits.rows.items()}
    return dict(baselines.outputs(config, splits, config.report.baselines)), labels


def test_the_constant_is_the_majority_class_and_words_tell_what_words_can(card: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", sentences(120, 0) + [(f"fine {n}", "positive") for n in range(9)])
    found, labels = outputs(card)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(labels["train"]), 1)), labels["train"])
    assert list(found) == ["constant", "tfidf", "frozen"]
    for split in ("validation", "test"):
        answers = {name: rows[split].argmax(axis=1) for name, rows in found.items()}
        assert np.array_equal(answers["constant"], dummy.predict(np.zeros((len(labels[split]), 1))))
        assert matthews_corrcoef(labels[split], answers["tfidf"]) > 0.9
        assert np.exp(found["tfidf"][split]).sum(axis=1) == pytest.approx(1)


def test_a_class_without_training_rows_is_never_chosen_and_costs_no_infinite_loss(card: Path) -> None:
    text = card.read_text().replace("[negative, positive]", "[absent, negative, positive]")
    card.write_text(text)
    found, labels = outputs(card)
    for rows in found.values():
        assert not (rows["test"].argmax(axis=1) == 0).any()
        assert np.isfinite(log_loss(labels["test"], np.exp(rows["test"]), labels=[0, 1, 2]))


def test_a_class_with_one_row_is_fitted_too(card: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [*sentences(40, 0), ("an odd film", "mixed"), ("an odd book", "mixed")])
    card.write_text(card.read_text().replace("[negative, positive]", "[negative, positive, mixed]"))
    found, labels = outputs(card)
    assert found["frozen"]["test"].shape == (len(labels["test"]), 3)
    assert np.exp(found["frozen"]["test"]).sum(axis=1) == pytest.approx(1)


def test_models_are_fitted_on_so_many_rows_and_no_more(monkeypatch: pytest.MonkeyPatch, card: Path) -> None:
    rows = Dataset.from_dict({"row": range(61)})
    assert len(set(baselines.fitted_rows(rows, 60)["row"][:])) == 60
    whole, _ = outputs(card)
    for name in ("FROZEN_ROWS", "WORDS_ROWS"):
        monkeypatch.setattr(baselines, name, 60)
    first, again = outputs(card)[0], outputs(card)[0]
    for name in ("tfidf", "frozen"):
        assert np.array_equal(first[name]["test"], again[name]["test"])
        assert not np.array_equal(first[name]["test"], whole[name]["test"])


def test_rows_scored_in_chunks_get_the_answers_of_the_whole(monkeypatch: pytest.MonkeyPatch, card: Path) -> None:
    whole, _ = outputs(card)
    monkeypatch.setattr(baselines, "CHUNK", 7)
    monkeypatch.setattr(forward, "BUDGET", 60)  # several batches of every chunk
    for name, splits in outputs(card)[0].items():
        assert splits["test"] == pytest.approx(whole[name]["test"], abs=1e-5)


def test_from_scratch_there_is_no_frozen_encoder_to_compare_with(card: Path) -> None:
    assert load(card, ["model.pretrained=false"]).baselines == ["constant", "tfidf"]


def test_a_regression_on_pairs_answers_in_the_users_unit(card: Path, tmp_path: Path) -> None:
    # the score is the share of equal words, between 100 and 200
    rng = np.random.default_rng(0)
    vocabulary = np.array(["good", "bad", "film", "story", "dog", "cat", "man", "woman", "music", "food"])
    rows = []
    for number in range(150):
        a, b = (list(rng.choice(vocabulary, 5, replace=False)) for _ in range(2))
        rows.append((f"{' '.join(a)} {number}", f"{' '.join(b)} {number}", 100 + 20 * len({*a} & {*b})))
    for name, part in (("train", rows[:110]), ("test", rows[110:])):
        write_csv(tmp_path / f"{name}.csv", part, ("left", "right", "label"))
    task = "task={name: pairs, kind: regression, text: [left, right]}"
    found, labels = outputs(card, task, "model.architecture=bi_encoder")
    assert list(found) == ["constant", "tfidf", "cosine", "frozen"]
    dummy = DummyRegressor().fit(np.zeros((len(labels["train"]), 1)), labels["train"])
    assert found["constant"]["test"][:, 0] == pytest.approx(dummy.predict(np.zeros((40, 1))))
    errors = {name: np.mean((rows["test"][:, 0] - labels["test"]) ** 2) for name, rows in found.items()}
    assert errors["tfidf"] < errors["constant"]
    assert np.corrcoef(found["tfidf"]["test"][:, 0], labels["test"])[0, 1] > 0.5
    assert errors["cosine"] < 1.1 * errors["constant"]


def test_the_record_of_a_run_holds_intervals_classes_predictions_and_baselines(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    done = nlptrain("train", card, "training.num_train_epochs=1", "report.bootstrap=200", "--json")
    result, run = json.loads(done.out), tmp_path / "run"
    lines = [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]
    # a header comes before the first of the 31 rows
    assert [row["line"] for row in lines] == list(range(2, 33))
    right = np.mean([np.argmax(row["output"]) == row["label"] for row in lines])
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(right)
    ends = result["intervals"]["test"]["nll"]
    assert ends["low"] < result["metrics"]["test"]["nll"] < ends["high"]
    assert result["per_class"]["test"]["negative"]["rows"] == 16
    assert set(result["baselines"]) == {"constant", "tfidf", "frozen"}
    assert set(result["baselines"]["tfidf"]["test"]) == set(result["metrics"]["test"])

    off = ("report.bootstrap=0", "report.baselines=[]", f"training.output_dir={tmp_path / 'off'}")
    plain = json.loads(nlptrain("train", card, "training.num_train_epochs=1", *off, "--json").out)
    assert (plain["baselines"], plain["intervals"]) == ({}, {"validation": {}, "test": {}})
    assert plain["metrics"] == result["metrics"]


def test_a_run_that_diverged_to_one_class_says_so_wherever_it_is_shown(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    run, wild = tmp_path / "run", ("training.learning_rate=3.0", "training.num_train_epochs=2", "report.baselines=[]")
    done = nlptrain("train", card, *wild, "--json")
    result = json.loads(done.out)
    assert set(result["collapsed"]) == {"validation", "test"}
    assert result["metrics"]["test"]["matthews_correlation"] in (None, 0.0)
    assert "collapsed" in nlptrain("evaluate", run, "--data", tmp_path / "test.csv").out
    page = Path(json.loads(nlptrain("report", run, "--json").out)["html"]).read_text("utf-8")
    assert "The model collapsed on the 31 test rows" in page
