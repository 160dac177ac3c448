"""Regression scores come back in the user's unit; a folded model is purely stock."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from nlptrain.config.load import load
from nlptrain.config.schema import ModelConfig
from nlptrain.errors import ConfigError, DataError, ModelError
from nlptrain.models.build import build
from nlptrain.models.target import TargetScale, Unit, attach, fold
from nlptrain.tasks import TASKS
from tests.command_line import Done, sentences, write_csv
from tests.tiny import TARGET, built, tiny_model_dir

SCORE = """
import sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
print(model(**tokenizer("good film", "the dog", return_tensors="pt")).logits.item(), "nlptrain" in sys.modules)
"""


def test_fit_is_scikit_learns_standardisation() -> None:
    scores = [1.0, 2.5, 4.0, 4.5]
    scaler = StandardScaler().fit(np.array(scores).reshape(-1, 1))
    found = TargetScale.fit(scores, None)
    assert (found.mean, found.scale) == pytest.approx((scaler.mean_[0], scaler.scale_[0]))
    assert (found.low, found.high) == (1.0, 4.5)
    assert (TargetScale.fit(scores, (0.0, 5.0)).low, TargetScale.fit(scores, (0.0, 5.0)).high) == (0.0, 5.0)


@pytest.mark.parametrize("scores", [[], [3.0, 3.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_fit_refuses_scores_without_a_scale(scores: list[float]) -> None:
    with pytest.raises(DataError, match="different"):
        TargetScale.fit(scores, None)


def test_score_and_loss_of_our_model_are_in_the_users_unit(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "stsb", dropout=0.0)
    batch = tokenizer(["good film", "a"], ["the dog", "one"], padding=True, return_tensors="pt")
    labels = torch.tensor([1.0, 4.0])
    z = model.head(*model.embed(**batch))
    found = model(**batch, labels=labels)
    torch.testing.assert_close(found.logits, z * 1.2 + 2.5)
    torch.testing.assert_close(found.loss, torch.nn.functional.mse_loss(z.squeeze(-1), (labels - 2.5) / 1.2))


def test_head_and_score_are_float32_under_autocast(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "stsb", dropout=0.0)
    batch = tokenizer(["good film", "a"], ["the dog", "one"], padding=True, return_tensors="pt")
    with torch.autocast("cpu", torch.bfloat16):
        found, embeddings = model(**batch).logits, model.embed(**batch)
    assert found.dtype == torch.float32
    assert torch.equal(found, model.head(*embeddings) * 1.2 + 2.5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_folding_changes_no_score(tmp_path: Path, family: Any) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path, family=family), "stsb", architecture="stock", dropout=0.0)
    batch = tokenizer(["good film", "a"], ["the dog", "one"], padding=True, return_tensors="pt")
    before = model(**batch).logits
    fold(model, TARGET)
    torch.testing.assert_close(model(**batch).logits, before, atol=1e-5, rtol=0)
    assert before.mean().item() == pytest.approx(2.5, abs=0.5)


def test_attached_loss_is_that_of_standardised_scores(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "stsb", architecture="stock", dropout=0.0)
    batch = tokenizer(["good film", "a"], ["the dog", "one"], padding=True, return_tensors="pt")
    labels = torch.tensor([1.0, 4.0])
    found = model(**batch, labels=labels)
    expected = (((found.logits.squeeze(-1) - labels) / 1.2) ** 2).mean()
    torch.testing.assert_close(found.loss, expected)


def test_folded_folder_gives_the_same_score_without_nlptrain(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "stsb", architecture="stock")
    expected = model.eval()(**tokenizer("good film", "the dog", return_tensors="pt")).logits.item()
    fold(model, TARGET)
    model.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    command = [sys.executable, "-c", SCORE, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    score, uses_nlptrain = done.stdout.split()
    assert float(score) == pytest.approx(expected, abs=1e-5)
    assert uses_nlptrain == "False"


def test_a_target_is_attached_once_and_folded_once(tmp_path: Path) -> None:
    model, _ = built(tiny_model_dir(tmp_path), "stsb", architecture="stock")
    with pytest.raises(ModelError, match="attach a target once"):
        attach(model, TARGET)
    fold(model, TARGET)
    with pytest.raises(ModelError, match="nothing to fold"):
        fold(model, TARGET)


UNITS = get_args(Unit)


@pytest.mark.parametrize("label_range", [None, (-1.0, 9.0)])
def test_min_max_is_scikit_learns_over_the_range_or_else_the_training_scores(label_range: Any) -> None:
    scores = [1.0, 2.5, 4.0, 4.5]
    scaler = MinMaxScaler().fit(np.array(label_range or scores).reshape(-1, 1))
    found = TargetScale.fit(scores, label_range, "min_max")
    z = (np.array(scores) - found.mean) / found.scale
    assert z == pytest.approx(scaler.transform(np.array(scores).reshape(-1, 1)).ravel())
    assert (found.low, found.high) == (label_range or (1.0, 4.5))


def test_none_is_the_users_unit() -> None:
    found = TargetScale.fit([1.0, 2.5], (0.0, 5.0), "none")
    assert (found.mean, found.scale, found.low, found.high) == (0.0, 1.0, 0.0, 5.0)


@pytest.mark.parametrize("unit", UNITS)
def test_a_cosine_head_spans_the_range_of_scores_in_every_unit(tmp_path: Path, unit: Unit) -> None:
    target = TargetScale.fit([1.0, 4.0], (0.0, 5.0), unit)
    settings = ModelConfig(architecture="bi_encoder", output="cosine")
    model, _ = build(str(tiny_model_dir(tmp_path)), settings, TASKS["stsb"], None, target)
    u, v = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    z = model.head(u, v).squeeze(-1)
    torch.testing.assert_close(z * target.scale + target.mean, torch.tensor([5.0, 0.0]))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
def test_a_run_learns_in_its_unit_and_answers_in_the_users(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, architecture: str, unit: Unit
) -> None:
    for name, rows in (("train", sentences(120, 0)), ("test", sentences(31, 1))):
        scores = [(text, 7 + 2 * (label == "positive")) for text, label in rows]
        write_csv(tmp_path / f"{name}.csv", scores, ("text", "score"))
    text = card.read_text().replace(
        "kind: classification, labels: [negative, positive]", "kind: regression, label: score"
    )
    card.write_text(text.replace("score}", "score, range: [0, 10]}"))
    words = (f"model.architecture={architecture}", f"model.target={unit}", "training.load_best_model_at_end=false")
    done = nlptrain("train", card, *words, "training.num_train_epochs=1", "--json")
    assert done.code == 0, done.err
    run, result = tmp_path / "run", json.loads(done.out)
    logged = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    scale = {"standardize": result["data"]["train"]["score"]["std"], "min_max": 10.0, "none": 1.0}[unit]
    evaluations = [entry for entry in logged if "eval_loss" in entry]
    assert [entry["eval_loss"] for entry in evaluations] == pytest.approx(
        [entry["eval_mse"] / scale**2 for entry in evaluations], rel=1e-4
    )
    stored = json.loads((run / "model" / "config.json").read_text())
    expected = None if architecture == "stock" else scale
    assert stored.get("target_scale") == (expected and pytest.approx(expected))
    evaluated = json.loads(nlptrain("evaluate", run, "--data", tmp_path / "test.csv", "--json").out)["metrics"]
    assert evaluated == pytest.approx(result["metrics"]["test"], rel=1e-4)
    assert nlptrain("predict", run, "--data", tmp_path / "test.csv", "--output", tmp_path / "out.jsonl").code == 0
    found = [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    truth = [7 + 2 * (label == "positive") for _, label in sentences(31, 1)]
    assert np.mean((np.array(found) - truth) ** 2) == pytest.approx(evaluated["mse"], rel=1e-4)


def test_a_unit_belongs_to_a_regression(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text("task: sst2\nmodel: {target: min_max}\n")
    with pytest.raises(ConfigError, match="unit of a regression"):
        load(tmp_path / "card.yaml")
