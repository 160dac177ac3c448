"""Gradient clipping: each rule against torch or its formula, and what it does in a stock Trainer."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers import TrainerState as State

from nlptrain.callbacks import clipping_rules as rules
from nlptrain.callbacks.gradient_clipping import GradientClipping

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def stock_trainer(folder: Path, *callbacks: TrainerCallback, metrics: Any = None, **settings: Any) -> Trainer:
    """A stock regression of 32 random rows, 8 steps of SGD an epoch, dropout on."""
    torch.manual_seed(0)
    rows = [{"input_ids": torch.randint(1, 30, (6,)), "labels": torch.randn(())} for _ in range(32)]
    model = BertForSequenceClassification(BertConfig(vocab_size=30, num_labels=1, max_position_embeddings=8, **SIZES))
    usual = {"logging_steps": 1, "save_strategy": "no", "optim": "sgd", "num_train_epochs": 1, "learning_rate": 0.1}
    args = TrainingArguments(
        str(folder), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, **{**usual, **settings}
    )
    return Trainer(
        model, args, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics, callbacks=list(callbacks)
    )


class Watch(TrainerCallback):
    """Gradients as they are before the callbacks after this one, step by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def norms(self) -> list[float]:
        return [np.linalg.norm([g.norm() for g in step.values()]).item() for step in self.steps]


def with_gradients() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Linear(5, 4), nn.Embedding(6, 2))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 10 ** torch.empty(len(parameter)).uniform_(-4, 1).view(
            -1, *[1] * (parameter.ndim - 1)
        )
    return model


def clipped_by(model: nn.Module, **settings: Any) -> dict[str, torch.Tensor]:
    GradientClipping(**settings).on_pre_optimizer_step(None, None, None, model=model)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("threshold", [0.3, 1e3])
@pytest.mark.parametrize(("by", "reference"), [("norm", clip_grad_norm_), ("value", clip_grad_value_)])
def test_norm_and_value_are_those_of_torch(by: str, reference: Callable[..., Any], threshold: float) -> None:
    expected = with_gradients()
    reference(expected.parameters(), threshold)
    found = clipped_by(with_gradients(), by=by, threshold=threshold)
    assert all(torch.equal(found[name], p.grad) for name, p in expected.named_parameters())


def test_adaptive_is_the_formula_of_brock_row_by_row_and_leaves_rows_within_it_untouched() -> None:
    before, found = with_gradients(), clipped_by(with_gradients(), by="adaptive", threshold=0.3, floor=0.6)
    touched, floored = [], []
    for name, parameter in before.named_parameters():
        rows = 1 if parameter.ndim == 1 else len(parameter)
        w, g = (t.detach().numpy().astype(np.float64).reshape(rows, -1) for t in (parameter, parameter.grad))
        bound = 0.3 * np.maximum(np.sqrt((w**2).sum(1)), 0.6)
        norm = np.sqrt((g**2).sum(1))
        expected = g * np.minimum(1, bound / norm)[:, None]
        clipped = found[name].numpy().reshape(rows, -1)
        np.testing.assert_allclose(clipped, expected, rtol=1e-6)
        assert np.array_equal(clipped[norm < bound], g[norm < bound])
        touched += list(norm > bound)
        floored += list((norm > bound) & (bound == 0.3 * 0.6))
    assert sum(floored) > 1
    assert 5 < sum(touched) < len(touched) - 5


def test_adaptive_leaves_the_excluded_head_alone() -> None:
    before, found = with_gradients(), clipped_by(with_gradients(), by="adaptive", threshold=1e-6, exclude=["1"])
    same = {name for name, p in before.named_parameters() if torch.equal(p.grad, found[name])}
    assert same == {"1.weight", "1.bias"}


def test_percentile_ten_clips_nine_of_ten_equally_distributed_norms() -> None:
    norms: list[float] = []
    clipped = []
    for norm in np.random.default_rng(0).lognormal(size=4000):
        norms = rules.remember(norms, norm, 1000)
        clipped.append(norm > rules.percentile(norms, 10))
    assert np.mean(clipped) == pytest.approx(0.9, abs=0.02)


def test_the_history_is_the_newest_finite_norms() -> None:
    norms: list[float] = []
    for norm in [1.0, float("nan"), 2.0, float("inf"), 3.0, 4.0]:
        norms = rules.remember(norms, norm, 3)
    assert norms == [2.0, 3.0, 4.0]
    assert rules.percentile(norms, 50) == 3.0
    assert rules.percentile([], 50) == float("inf")


def test_a_step_without_a_finite_norm_does_not_count() -> None:
    tally = rules.Tally()
    for norm, hit in ((1.0, 2), (float("inf"), 7), (3.0, 4)):
        tally.add(torch.tensor(norm), rules.Clipped(torch.tensor(hit), 8))
    assert tally.report() == {"grad_norm_before_clipping": 2.0, "clipped_share": 6 / 16}


def test_next_to_no_gradient_leaves_the_parameters_where_they_are(tmp_path: Path) -> None:
    moved = []
    for callbacks in ([GradientClipping("norm", 1e-8)], []):
        trainer = stock_trainer(tmp_path, *callbacks, max_grad_norm=0.0)
        before = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
        trainer.train()
        moved.append((nn.utils.parameters_to_vector(trainer.model.parameters()) - before).norm().item())
    assert moved[0] < 8 * 0.1 * 1e-8
    assert moved[1] > 1e-2


def share(by: str, threshold: float, gradients: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> list[Any]:
    """Per unit of a rule, whether it is beyond the threshold, in numpy."""
    arrays = {name: g.numpy().astype(np.float64) for name, g in gradients.items()}
    if by == "norm":
        return [np.sqrt(sum((g**2).sum() for g in arrays.values())) > threshold]
    if by == "value":
        return list(np.abs(np.concatenate([g.ravel() for g in arrays.values()])) > threshold)
    rows = []
    for name, g in arrays.items():
        flat = [t.reshape(1 if t.ndim == 1 else len(t), -1) for t in (g, weights[name].detach().numpy())]
        norm, weight = (np.linalg.norm(t, axis=1) for t in flat)
        rows += list(norm > threshold * np.maximum(weight, 1e-3))
    return rows


@pytest.mark.parametrize(("by", "threshold"), [("norm", 0.8), ("value", 0.05), ("adaptive", 0.5)])
def test_the_logged_shares_are_those_of_the_steps_since_the_last_log(tmp_path: Path, by: str, threshold: float) -> None:
    watch = Watch()
    # a rate of next to nothing: the weights at the end are those of every step
    trainer = stock_trainer(
        tmp_path, watch, GradientClipping(by, threshold), logging_steps=4, learning_rate=1e-30, num_train_epochs=1.5
    )
    trainer.train()
    weights = dict(trainer.model.named_parameters())
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == len(watch.steps) / 4 == 3
    for window, entry in enumerate(logs):
        steps = slice(4 * window, 4 * window + 4)
        expected = np.mean([hit for s in watch.steps[steps] for hit in share(by, threshold, s, weights)])
        assert entry["clipped_share"] == pytest.approx(expected, abs=1e-6)
        assert entry["grad_norm_before_clipping"] == pytest.approx(np.mean(watch.norms()[steps]), rel=1e-5)
    assert 0 < np.mean([entry["clipped_share"] for entry in logs]) < 1


def weights_of(trainer: Trainer) -> torch.Tensor:
    return nn.utils.parameters_to_vector(trainer.model.parameters()).detach()


@pytest.mark.parametrize("restored", [True, False])
def test_a_resume_is_exact_with_the_history_of_norms_and_not_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, restored: bool
) -> None:
    options = {"save_strategy": "steps", "save_steps": 3, "restore_callback_states_from_checkpoint": restored}
    whole_clipping = GradientClipping("percentile", 30, window=5)
    whole = stock_trainer(tmp_path, whole_clipping, **options)
    whole.train()
    again = stock_trainer(tmp_path, GradientClipping("percentile", 30, window=5), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    history = again.callback_handler.pop_callback(GradientClipping).norms
    assert torch.equal(weights_of(whole), weights_of(again)) is restored
    assert (history == whole_clipping.norms) is restored
    assert len(whole_clipping.norms) == 5
    assert ("without the history" in caplog.text) is not restored


def test_a_checkpoint_made_without_the_callback_can_be_continued_with_it(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 4, "restore_callback_states_from_checkpoint": True}
    stock_trainer(tmp_path, **options).train()
    again = stock_trainer(tmp_path, GradientClipping("percentile"), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    saved = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert len(saved["GradientClipping"]["attributes"]["norms"]) == 4


def test_it_takes_over_from_max_grad_norm_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()
    trainer = stock_trainer(tmp_path, watch, GradientClipping("norm", 1e6), max_grad_norm=1e-6, max_steps=2)
    with caplog.at_level(logging.WARNING, "nlptrain"):
        trainer.train()
    assert trainer.args.max_grad_norm == 0
    assert min(watch.norms()) > 1e-2
    assert "clipping by norm at 1e+06 takes over: max_grad_norm 1e-06 set to 0" in caplog.text


@pytest.mark.parametrize(
    ("by", "kind", "refused"),
    [
        *[(by, DistributedType.FSDP, "needs whole gradients") for by in ("norm", "percentile", "adaptive")],
        ("value", DistributedType.FSDP, None),
        *[(by, DistributedType.DEEPSPEED, "DEEPSPEED keeps the gradients") for by in ("norm", "value")],
        ("norm", DistributedType.MULTI_GPU, None),
    ],
)
def test_sharded_gradients_are_refused_by_rules_that_need_all_of_them(
    monkeypatch: pytest.MonkeyPatch, by: str, kind: DistributedType, refused: str | None
) -> None:
    args, state = TrainingArguments(use_cpu=True), State()
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", kind)
    clipping = GradientClipping(by)
    if refused:
        with pytest.raises(ValueError, match=refused):
            clipping.on_train_begin(args, state, None, model=nn.Linear(2, 2))
    else:
        clipping.on_train_begin(args, state, None, model=nn.Linear(2, 2))
    assert args.max_grad_norm == (1.0 if refused else 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "norms"}, "found 'norms': the nearest is 'norm'"),
        ({"by": "norm", "threshold": 0.0}, "finite number above 0, found 0.0: the usual one is 1"),
        ({"by": "adaptive", "threshold": float("nan")}, "found nan: the usual one is 0.01"),
        ({"by": "percentile", "threshold": 101}, "in (0, 100], found 101: the nearest valid value is 100"),
        ({"by": "percentile", "threshold": 0}, "in (0, 100], found 0: the usual one is 10"),
        ({"by": "percentile", "window": 0}, "found 0: the nearest valid value is 1"),
        ({"by": "adaptive", "floor": 0.0}, "floor must be a finite number above 0, found 0.0"),
        ({"by": "norm", "exclude": ["classifier"]}, "exclude is for by='adaptive', found by='norm'"),
    ],
)
def test_an_argument_out_of_range_is_refused_with_a_valid_one(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GradientClipping(**settings)


def test_an_excluded_name_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    trainer = stock_trainer(tmp_path, GradientClipping("adaptive", exclude=["classifier", "head"]))
    with pytest.raises(ValueError, match="exclude 'head' is no module .*: bert, classifier"):
        trainer.train()
