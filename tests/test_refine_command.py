"""`nlptrain refine` and the temperature a model serves at: what they leave on disk, and what `pipeline()` says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from transformers import pipeline

from nlptrain.config.schema import Config
from nlptrain.data.load import load_splits
from nlptrain.head import refit
from nlptrain.pipeline import run
from nlptrain.refine import ece, fit_temperature, nll, reliability
from nlptrain.results import RunResult
from tests.command_line import Done, write_csv
from tests.noisy import configured, noisy
from tests.test_refinement import agree, digest, lasting, reject

HOLD = ("refine.when=[]", "refine.held_out=0.3")


def record(folder: Path) -> RunResult:
    return RunResult.read(folder / "run" / "results.json")


def served(folder: Path, texts: list[str]) -> np.ndarray:
    """Probabilities (n, 2) of negative and positive, as a service would get them."""
    serve = pipeline("text-classification", model=str(folder / "run" / "model"), device="cpu")
    found = [{one["label"]: one["score"] for one in row} for row in serve(texts, top_k=None)]
    return np.array([[row["negative"], row["positive"]] for row in found])


def held_out(config: Config, part: str) -> Any:
    return load_splits(config.spec, config.data, seed=42, refine=config.refine).held_out[part]


@pytest.mark.parametrize("architecture", ["cross_encoder", "stock"])
def test_a_run_refined_later_is_the_run_that_was_refined_at_once(
    tmp_path: Path, nlptrain: Callable[..., Done], architecture: str
) -> None:
    later, at_once = tmp_path / "later", tmp_path / "at_once"
    words = ("refine.l2=1", "refine.calibrate=true", "refine.when=[after]")
    for folder, chosen in ((later, HOLD), (at_once, (*HOLD[1:], *words))):
        folder.mkdir()
        run(configured(folder, *chosen, architecture=architecture))
    before = record(later)
    done = nlptrain("refine", later / "run", *words)
    assert done.code == 0, done.err
    assert digest(later) == digest(at_once)
    ours, theirs = record(later), record(at_once)
    assert ours.refinement is not None
    assert lasting(ours) == lasting(theirs) | {"data": None}
    assert ours.metrics == theirs.metrics
    assert ours.refinement["fine_tuned"] == before.metrics
    assert ours.refinement["changed"]
    assert "accepted: " in done.out or "rejected: " in done.out
    evaluated = json.loads(nlptrain("evaluate", later / "run", "--data", later / "test.csv", "--json").out)
    assert evaluated["metrics"] == pytest.approx(ours.metrics["test"], abs=1e-6)


def test_a_rejected_refit_leaves_or_brings_back_the_fine_tuned_bits(
    tmp_path: Path, nlptrain: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(configured(tmp_path, *HOLD))
    before, plain = digest(tmp_path), record(tmp_path)
    monkeypatch.setattr(refit, "accept", reject)
    assert nlptrain("refine", tmp_path / "run").code == 0
    assert digest(tmp_path) == before
    found = record(tmp_path).refinement
    assert found is not None
    assert (found["changed"], found["after"]["decision"]["why"]) == (False, "planted")
    monkeypatch.setattr(refit, "accept", agree)
    accepted = json.loads(nlptrain("refine", tmp_path / "run", "refine.calibrate=true", "--json").out)
    assert digest(tmp_path) != before
    assert accepted["refinement"]["fine_tuned"] == plain.metrics
    kept = lasting(record(tmp_path))
    again = nlptrain("refine", tmp_path / "run", "refine.calibrate=true", "--json")
    assert lasting(record(tmp_path)) == kept
    assert json.loads(again.out)["metrics"] == accepted["metrics"]
    monkeypatch.setattr(refit, "accept", reject)
    assert nlptrain("refine", tmp_path / "run").code == 0
    assert digest(tmp_path) == before
    assert record(tmp_path).metrics == plain.metrics


def test_what_the_embedding_became_is_undone_before_the_head_is_refined(
    tmp_path: Path, nlptrain: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(configured(tmp_path, *HOLD, architecture="stock"))
    before = digest(tmp_path)
    monkeypatch.setattr(refit, "accept", agree)
    assert nlptrain("refine", tmp_path / "run").code == 0
    head = digest(tmp_path)
    embedding = ("refine.when=[after]", "refine.part=embedding", "refine.l2=0.1", "refine.method=lbfgs")
    done = nlptrain("refine", tmp_path / "run", *embedding, "refine.calibrate=true", "--json")
    assert json.loads(done.out)["refinement"]["after"]["certificate"]["parameters"] == 32 * 33 + 33
    files = ("--data", tmp_path / "test.csv", "--output", tmp_path / "out.csv", "--uncertainty")
    assert nlptrain("predict", tmp_path / "run", *files).code == 0
    assert digest(tmp_path) not in (before, head)
    assert nlptrain("refine", tmp_path / "run").code == 0
    assert digest(tmp_path) == head
    monkeypatch.setattr(refit, "accept", reject)
    assert nlptrain("refine", tmp_path / "run", *embedding).code == 0
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    "settings", [{}, {"architecture": "stock"}, {"output": "sigmoid"}], ids=lambda s: next(iter(s.values()), "ours")
)
def test_pipeline_serves_scores_at_the_temperature_of_held_out_rows(tmp_path: Path, settings: dict[str, str]) -> None:
    milder = ("training.learning_rate=0.003", "training.num_train_epochs=3")
    run(configured(tmp_path, *HOLD, *milder, **settings))
    texts = [text for text, _ in noisy(101, 1)]
    plain = np.log(served(tmp_path, texts))
    (tmp_path / "run").rename(tmp_path / "plain")
    config = configured(tmp_path, *HOLD, "refine.calibrate=true", *milder, **settings)
    found = run(config).refinement
    assert found is not None
    calibration, t = found["calibration"], found["calibration"]["temperature"]
    rows = held_out(config, "temperature")
    labels, after = np.asarray(rows["label"][:]), np.log(served(tmp_path, rows["text"][:]))
    assert calibration["rows"] == len(rows)
    assert abs(t - 1) > 0.02
    assert calibration["slope"] == pytest.approx(0, abs=1e-6)
    assert calibration["nll_after"] == pytest.approx(nll(after, labels), abs=1e-6)
    assert calibration["nll_after"] <= calibration["nll_before"]
    assert calibration["ece_after"] == pytest.approx(ece(reliability(np.exp(after), labels)), abs=1e-6)
    # at the temperature it serves at, no other one is better; the passes of both round in float32
    assert fit_temperature(after, labels).value == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(np.diff(np.log(served(tmp_path, texts))) * t, np.diff(plain), atol=1e-4)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(np.diff(after) * t, labels)
    # what was served is float32
    assert theirs.coef_[0, 0] == pytest.approx(1 / t, abs=1e-4)


def test_the_record_holds_reliability_before_and_after(tmp_path: Path) -> None:
    result = run(configured(tmp_path, "refine.held_out=0.3", "refine.calibrate=true"))
    found = result.refinement
    assert found is not None
    for split, tables in found["reliability"].items():
        for when, metrics in (("before", found["fine_tuned"]), ("after", result.metrics)):
            rows = [row for row in tables[when] if row["rows"]]
            wrong = sum(row["rows"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
            assert wrong / result.rows[split] == pytest.approx(metrics[split]["ece"], abs=1e-9)


def test_rows_of_a_file_take_the_place_of_held_out_ones(tmp_path: Path, nlptrain: Callable[..., Done]) -> None:
    run(configured(tmp_path))
    refused = nlptrain("refine", tmp_path / "run")
    assert refused.code == 2
    assert "this run held no rows out" in refused.err
    seen = write_csv(tmp_path / "seen.csv", [*noisy(30, 5), noisy(101, 1)[7]])
    refused = nlptrain("refine", tmp_path / "run", "--data", seen)
    assert refused.code == 3
    assert "1 rows (lines 32) also stand in the run's test rows" in refused.err
    new = write_csv(tmp_path / "new.csv", noisy(90, 5))
    found = json.loads(nlptrain("refine", tmp_path / "run", "--data", new, "--json").out)["refinement"]
    assert found["after"]["certificate"]["rows"] + found["after"]["decision"]["rows"] == 90
    assert found["data"] == str(new)


def test_what_cannot_be_refined_is_refused_with_its_reason(tmp_path: Path, nlptrain: Callable[..., Done]) -> None:
    run(configured(tmp_path, *HOLD))
    before = digest(tmp_path)
    for words, problem in (
        ("model.dropout=0.2", "only refine.key=value can be given for a finished run"),
        ("refine.held_out=0.2", "the run held out 0.3, found 0.2"),
        ("refine.method=ridge", "ridge needs a regression"),
        ("refine.l2=-1", "finite number above 0"),
        ("refine.part=embedding", "embedding is for architecture stock"),
    ):
        done = nlptrain("refine", tmp_path / "run", words)
        assert done.code == 2
        assert problem in done.err
    write_csv(tmp_path / "train.csv", noisy(240, 9))
    done = nlptrain("refine", tmp_path / "run")
    assert done.code == 3
    assert "the train rows changed after training" in done.err
    assert digest(tmp_path) == before
