"""The head refined in a run: the optimum scikit-learn finds, on rows held out for it, guarded, and cached."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlptrain import run_head
from nlptrain.config.load import check, load
from nlptrain.data.load import load_splits
from nlptrain.errors import ConfigError, DataError
from nlptrain.head import refit
from nlptrain.inference import open_run
from nlptrain.pipeline import run
from nlptrain.refine import SOLVERS, Decision
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from tests.noisy import configured, write_card

L2 = 0.05


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "run" / "model").iterdir()}


def reject(*arrays: Any, **words: Any) -> Decision:
    return Decision(False, "planted", 1, "accuracy", 1.0, 0.0, "nll", 0.0, 1.0, 0.0)


def agree(*arrays: Any, **words: Any) -> Decision:
    return Decision(True, "planted", 1, "accuracy", 1.0, 0.0, "nll", 0.0, 1.0, 0.0)


def lasting(result: RunResult) -> Any:
    """The record of the refinement without the memory that was free at the time."""
    found = json.loads(json.dumps(result.refinement))
    for when in ("before", "after"):
        if found[when]:
            found[when]["certificate"].pop("why")
    return found


def answers(folder: Path, rows: Any, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """What the stored model answers, and the features in front of its last linear layer, one row at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "run" / "model")
    layer = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    seen: list[np.ndarray] = []
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().numpy()))
    with torch.no_grad():
        found = [model(**tokenizer(*[row[c] for c in columns], return_tensors="pt")).logits.numpy() for row in rows]
    return np.concatenate(found), np.concatenate(seen)


@pytest.mark.parametrize(
    "settings",
    [{}, {"architecture": "stock"}, {"normalize": "standardize"}, {"output": "sigmoid"}],
    ids=lambda settings: next(iter(settings.values()), "ours"),
)
def test_a_classifier_is_what_scikit_learn_finds_on_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(refit, "accept", agree)
    words = ("refine.rows=train", "refine.proximal=false", f"refine.l2={L2}")
    config = configured(tmp_path, *words, **settings)
    result = run(config)
    splits = load_splits(config.spec, config.data, seed=config.training.get("seed", 42), refine=config.refine)
    train = splits.rows["train"]
    logits, x = answers(tmp_path, train, ["text"])
    y = np.asarray(train["label"][:])
    # two logits, w and -w, have the length of their difference over sqrt(2)
    c = 1 / (len(y) * L2) * (1 if settings.get("output") == "sigmoid" else 2)
    theirs = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(StandardScaler().fit_transform(x), y)
    expected = theirs.decision_function(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-3)
    certificate = result.refinement["after"]["certificate"]
    assert (certificate["rows"], certificate["converged"]) == (len(y), True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"architecture": "stock"}, {"architecture": "bi_encoder"}, {"target": "min_max"}],
    ids=lambda settings: next(iter(settings.values()), "ours"),
)
def test_a_regression_is_the_ridge_of_scikit_learn_in_the_users_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(refit, "accept", agree)
    words = ("refine.proximal=false", f"refine.l2={L2}", "refine.held_out=0.5")
    config = configured(tmp_path, *words, regression=True, **settings)
    result = run(config)
    rows = load_splits(config.spec, config.data, seed=42, refine=config.refine).held_out["fit"]
    scores, x = answers(tmp_path, rows, ["left", "right"])
    y = np.asarray(rows["label"][:])
    theirs = Ridge(alpha=len(y) * L2 / 2).fit(StandardScaler().fit_transform(x), y)
    np.testing.assert_allclose(scores[:, 0], theirs.predict(StandardScaler().fit_transform(x)), atol=1e-3)
    assert result.refinement["after"]["certificate"]["solver"] == "ridge"


def test_every_row_has_one_part_and_the_record_is_complete(tmp_path: Path) -> None:
    config = configured(tmp_path, "refine.calibrate=true", "refine.held_out=0.3")
    result = run(config)
    splits = load_splits(config.spec, config.data, seed=42, refine=config.refine)
    parts = {**splits.held_out, "train": splits.rows["train"], "validation": splits.rows["validation"]}
    lines = [line for rows in parts.values() for line in rows["line"][:]]
    assert len(lines) == len(set(lines)) == 240
    assert result.rows["train"] == len(parts["train"]) == 240 - 24 - 65
    assert result.data["held_out"] == {"fit": 22, "temperature": 22, "guard": 21}
    # each part has about half of its rows from either class
    assert all(0.3 < np.mean(rows["label"][:]) < 0.7 for rows in splits.held_out.values())
    found = RunResult.read(tmp_path / "run" / "results.json").refinement
    assert found == json.loads(json.dumps(result.refinement))
    assert found["after"]["decision"]["rows"] == 21
    assert found["after"]["certificate"]["rows"] == found["calibration"]["rows"] == 22
    assert found["settings"]["held_out"] == 0.3


@pytest.mark.parametrize("architecture", ["cross_encoder", "stock"])
def test_a_rejected_head_leaves_the_model_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    hold_only = configured(tmp_path, "refine.when=[]", "refine.held_out=0.3", architecture=architecture)
    run(hold_only)
    before = digest(tmp_path)
    (tmp_path / "run").rename(tmp_path / "plain")
    monkeypatch.setattr(refit, "accept", reject)
    # the same two thirds of the rows are left for training
    after = configured(tmp_path, "refine.when=[after]", "refine.held_out=0.3", architecture=architecture)
    result = run(after)
    assert digest(tmp_path) == before
    assert result.refinement["after"]["decision"]["why"] == "planted"
    assert not result.refinement["changed"]
    assert not (tmp_path / "run" / "refine" / "fine_tuned_head.safetensors").exists()


def test_a_fit_on_rows_that_training_has_learnt_by_heart_is_rejected(tmp_path: Path) -> None:
    words = ("refine.rows=train", "refine.proximal=false", "refine.l2=1e-6", "refine.held_out=0.3")
    result = run(configured(tmp_path, *words, "training.num_train_epochs=12", rows=160))
    decision = result.refinement["after"]["decision"]
    assert not decision["accepted"]
    assert "is worse" in decision["why"]


def test_the_old_head_is_kept_and_an_infinite_penalty_gives_it_back(tmp_path: Path) -> None:
    run(configured(tmp_path, "refine.l2=1e12", "refine.held_out=0.3"))
    kept = load_file(tmp_path / "run" / "refine" / "fine_tuned_head.safetensors")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    np.testing.assert_allclose(model.head.linear.weight.detach(), kept["weight"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(model.head.linear.bias.detach(), kept["bias"], rtol=0, atol=1e-7)


def test_without_the_section_nothing_changes(tmp_path: Path) -> None:
    result = run(configured(tmp_path))
    assert result.refinement is None
    assert "held_out" not in result.data
    assert "refine" not in result.seconds
    assert not (tmp_path / "run" / "refine").exists()


@pytest.mark.parametrize(
    ("skip", "hidden", "what"),
    [
        ("true", "[6]", "the head with its hidden layer"),
        ("false", "[6]", "the head with its hidden layer"),
        ("true", "[6, 5]", "the last linear map of the head"),
    ],
)
def test_a_head_with_hidden_layers_is_fitted_to_a_lower_objective(
    tmp_path: Path, skip: str, hidden: str, what: str
) -> None:
    head = f"{{hidden: {hidden}, activation: tanh, skip: {skip}}}"
    config = configured(tmp_path, "refine.l2=0.01", "refine.method=newton-exact", "refine.held_out=0.4", head=head)
    found = run(config).refinement["after"]
    assert found["head"] == what
    assert found["certificate"]["objective_after"] < found["certificate"]["objective_before"]
    assert found["certificate"]["converged"]


@pytest.mark.parametrize("architecture", ["cross_encoder", "stock"])
@pytest.mark.parametrize("regression", [True, False])
def test_a_head_fitted_before_is_where_training_starts(tmp_path: Path, architecture: str, regression: bool) -> None:
    words = ("refine.when=[before]", f"refine.l2={L2}", "training.learning_rate=1e-15", "training.weight_decay=0")
    config = configured(tmp_path, *words, regression=regression, architecture=architecture)
    result = run(config)
    assert result.rows["train"] == 216
    certificate = result.refinement["before"]["certificate"]
    assert (certificate["rows"], certificate["proximal"], certificate["converged"]) == (216, False, True)
    rows = load_splits(config.spec, config.data, seed=42).rows["train"]
    logits, x = answers(tmp_path, rows, list(config.spec.text))
    x, y = StandardScaler().fit_transform(x), np.asarray(rows["label"][:])
    if regression:
        expected = Ridge(alpha=len(y) * L2 / 2).fit(x, y).predict(x)
        np.testing.assert_allclose(logits[:, 0], expected, atol=1e-3)
    else:
        theirs = LogisticRegression(C=2 / (len(y) * L2), solver="newton-cholesky", tol=1e-10).fit(x, y)
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], theirs.decision_function(x), atol=1e-3)


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    words = ("refine.when=[before, after]", "refine.held_out=0.3", "training.num_train_epochs=2")
    config = configured(
        tmp_path,
        *words,
        "training.save_total_limit=9",
        "training.save_strategy=epoch",
        "training.load_best_model_at_end=false",
    )
    whole = run(config)
    before = digest(tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    first, newest = sorted(checkpoints.iterdir(), key=lambda path: int(path.name.split("-")[1]))
    for path in (newest, tmp_path / "run" / "model", tmp_path / "run" / "refine" / "features"):
        shutil.rmtree(path)
    resumed = run(config, resume=True)
    assert first.is_dir()
    assert digest(tmp_path) == before
    assert lasting(resumed) == lasting(whole)


def test_features_are_computed_once_and_never_for_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, "refine.held_out=0.3")
    run(config)
    folder = RunFolder(tmp_path / "run")
    rows = load_splits(config.spec, config.data, seed=42, refine=config.refine).held_out["fit"]
    calls: list[int] = []
    real = run_head.compute
    monkeypatch.setattr(run_head, "compute", lambda *words: calls.append(1) or real(*words))
    head = run_head.RunHead(folder, open_run(folder))
    first = head.rows("fit", rows).features
    assert not calls
    np.testing.assert_array_equal(np.sort(first.places), np.arange(len(rows)))
    path = folder.features("fit", 0, 1)
    changed = load_file(path)
    save_file({**changed, "features": changed["features"] + 1}, path, {"fingerprint": "another", "rows": "36"})
    np.testing.assert_array_equal(head.rows("fit", rows).features.values, first.values)
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(head.rows("fit", rows).features.values, first.values)
    assert "cannot be read" in caplog.text
    with torch.no_grad():
        next(head.model.encoder.parameters()).add_(0.1)
    assert not np.array_equal(head.rows("fit", rows).features.values, first.values)
    head.rows("fit", rows.select(range(9)))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["refine.method=neuton"], "did you mean 'newton'"),
        (["refine.l2=0"], "expected auto, or a finite number above 0, found 0"),
        (["refine.l2=car"], "expected auto, or a finite number above 0, found 'car'"),
        (["refine.method=ridge"], "ridge needs a regression"),
        (["refine.held_out=1"], "less than 1"),
        (["refine.rows=test"], "'held_out' or 'train'"),
        (["refine.heldout=0.2"], "did you mean 'held_out'"),
        (["refine.when=[after]", "loss.class_weights=balanced"], "refine counts every row once"),
        (["refine.when=[after]", "model.head={hidden: [8]}"], "this head has a hidden layer"),
        (["refine.calibrate=true", "task={name: s, kind: regression}"], "refine.calibrate is for probabilities"),
        (["refine.when=[after]", "task={name: t, kind: token_classification}"], "for one target a row"),
    ],
)
def test_a_section_that_cannot_work_is_refused_before_anything_loads(
    tmp_path: Path, words: list[str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(write_card(tmp_path), words)


def test_a_score_that_is_no_linear_function_of_the_head_is_refused() -> None:
    task = {"name": "s", "kind": "regression", "text": ["a", "b"], "range": [0, 1]}
    for model in ({"output": "sigmoid"}, {"output": "cosine", "architecture": "bi_encoder"}):
        with pytest.raises(ConfigError, match="use output linear"):
            check({"task": task, "model": model, "refine": {}})


def test_too_few_rows_to_hold_out_are_an_error_that_names_the_key(tmp_path: Path) -> None:
    config = configured(tmp_path, "refine.held_out=0.001")
    with pytest.raises(DataError, match=r"another refine\.held_out"):
        run(config)


def test_the_methods_of_the_section_are_those_of_the_solvers() -> None:
    options = load.__globals__["Config"].model_json_schema()["$defs"]["RefineConfig"]["properties"]["method"]["enum"]
    assert set(options) == {"auto", *SOLVERS}
