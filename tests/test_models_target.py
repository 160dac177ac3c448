"""Regression scores come back in the user's unit; a folded model is purely stock."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from nlptrain.errors import DataError, ModelError
from nlptrain.models.target import TargetScale, attach, fold
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
