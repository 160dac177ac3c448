"""The NMSE callback: the value against scikit-learn, the curve, its best step, the stop and the resume."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score
from transformers import EvalPrediction, Trainer

from nlptrain.callbacks.nmse import NMSE, best, compute_nmse, evaluations_without_improvement
from nlptrain.metrics.undefined import Undefined
from tests.test_gradient_clipping import stock_trainer

EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1}


def scripted(folder: Path, values: list[float], callback: NMSE, **settings: Any) -> Trainer:
    """A stock Trainer whose evaluations, one a step, give `values`."""
    script = iter(values)
    return stock_trainer(folder, callback, metrics=lambda _: {"nmse": next(script)}, **EVERY_STEP, **settings)


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_the_metric_is_one_minus_r2_for_a_vector_or_a_column(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(2, 3, 50).astype(np.float32)
    scores = (labels + rng.normal(size=50)).astype(np.float32)
    expected = 1 - r2_score(labels.astype(np.float64), scores.astype(np.float64))
    assert compute_nmse(EvalPrediction(scores.reshape(shape), labels)) == {"nmse": pytest.approx(expected, abs=1e-12)}


def test_the_metric_refuses_what_has_no_nmse() -> None:
    with pytest.raises(Undefined, match="constant references"):
        compute_nmse(EvalPrediction(np.arange(3.0), np.ones(3)))
    with pytest.raises(ValueError, match=r"found \(3, 2\) and \(3,\)"):
        compute_nmse(EvalPrediction(np.ones((3, 2)), np.arange(3.0)))


def test_the_curve_is_that_of_the_log_its_best_the_least_and_later_evaluations_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nmse = NMSE()
    trainer = stock_trainer(tmp_path, nmse, metrics=compute_nmse, learning_rate=0.5, **EVERY_STEP)
    with caplog.at_level(logging.INFO, "nlptrain"):
        trainer.train()
    trainer.evaluate()
    log = [[e["step"], e["eval_nmse"]] for e in trainer.state.log_history if "eval_nmse" in e]
    assert nmse.curve == log[:-1]
    assert len(nmse.curve) == 8
    least = nmse.curve[int(np.argmin([value for _, value in nmse.curve]))]
    assert [nmse.best_step, nmse.best_value] == least
    assert f"best eval_nmse {least[1]:.6g} at step {least[0]}" in caplog.text
    assert trainer.state.stateful_callbacks["NMSE"]["attributes"]["best_step"] == least[0]


def test_the_best_point_is_the_first_least_finite_one() -> None:
    nan, inf = float("nan"), float("inf")
    assert best([[1, nan], [2, 0.5], [3, 0.4], [4, 0.4], [5, -inf]]) == [3, 0.4]
    assert best([[1, nan]]) is None


@pytest.mark.parametrize(
    ("values", "threshold", "waited"),
    [
        ([0.9, 0.8, 0.7], 0.0, 0),
        ([0.9, 0.8, 0.8], 0.0, 1),
        ([0.9, float("nan"), 0.95, 0.8], 0.0, 0),
        ([0.9, float("nan"), float("nan")], 0.0, 2),
        ([0.9, 0.88, 0.86], 0.05, 2),
        ([], 0.0, 0),
    ],
)
def test_evaluations_count_as_waiting_unless_below_all_before_by_the_threshold(
    values: list[float], threshold: float, waited: int
) -> None:
    assert evaluations_without_improvement(list(enumerate(values)), threshold) == waited


def test_training_stops_after_patience_evaluations_without_improvement(tmp_path: Path) -> None:
    nmse = NMSE(patience=2)
    trainer = scripted(tmp_path, [0.9, 0.95, 0.8, 0.85, 0.8, 0.1, 0.1, 0.1], nmse)
    trainer.train()
    assert (trainer.state.global_step, nmse.best_step, nmse.best_value) == (5, 3, 0.8)


def test_a_resume_goes_on_with_the_curve_and_the_patience(tmp_path: Path) -> None:
    values = [0.5, 0.6, 0.4, 0.45, 0.44, 0.43, 0.42, 0.41]
    options = {"save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": True}
    whole = NMSE(patience=3)
    scripted(tmp_path, values, whole, **options).train()
    again = scripted(tmp_path, values[4:], NMSE(patience=3), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.callback_handler.pop_callback(NMSE).state() == whole.state()
    assert (again.state.global_step, whole.best_step) == (6, 3)


def test_a_metric_that_no_evaluation_has_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scripted(tmp_path, [0.5], NMSE("eval_other_nmse"), max_steps=1).train()
    assert "no evaluation had a finite eval_other_nmse; the last one had: eval_loss, eval_nmse" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"patience": 0}, "found 0: the nearest valid value is 1"), ({"threshold": -0.1}, "-0.1: the nearest valid .* 0")],
)
def test_an_argument_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NMSE(**settings)
