"""The guard ends a run on a gradient that is not finite, with the weights as they were, and changes nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from nlptrain.callbacks.gradient_clipping import GradientClipping
from nlptrain.callbacks.non_finite_guard import NonFiniteGuard
from nlptrain.errors import DivergedError
from tests.test_gradient_clipping import stock_trainer, weights_of


class LastWeights(TrainerCallback):
    """The weights after the newest complete step."""

    def on_step_end(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.found = nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def poison(parameter: nn.Parameter, backward: int, value: float) -> None:
    """Let one element of the gradient of one backward pass, counted from 1, be `value`."""
    passes = iter(range(1, 1000))

    def spoiled(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        if next(passes) == backward:
            gradient.view(-1)[0] = value
        return gradient

    parameter.register_hook(spoiled)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("accumulation", "backward"), [(1, 3), (2, 5)])
def test_the_step_of_a_non_finite_gradient_is_not_taken_and_its_parameter_named(
    tmp_path: Path, value: float, accumulation: int, backward: int
) -> None:
    last = LastWeights()
    guard = NonFiniteGuard(rows=lambda: [7, 11])
    trainer = stock_trainer(tmp_path, last, guard, GradientClipping(), gradient_accumulation_steps=accumulation)
    poison(trainer.model.classifier.weight, backward, value)
    with pytest.raises(DivergedError, match=r"in step 3 \(epoch .*\), first of classifier\.weight, rows 7, 11;") as e:
        trainer.train()
    assert (e.value.code, trainer.state.global_step) == ("E_NON_FINITE", 2)
    assert torch.equal(weights_of(trainer), last.found)


def test_a_non_finite_loss_is_seen_by_its_gradients(tmp_path: Path) -> None:
    trainer = stock_trainer(tmp_path, NonFiniteGuard())
    before = weights_of(trainer).clone()
    for row in trainer.train_dataset:
        row["labels"].fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"step 1 .* first of classifier\.\w+, classifier\.\w+, .* and \d+ more;"):
        trainer.train()
    assert torch.equal(weights_of(trainer), before)


def test_a_finite_run_is_bitwise_the_same_with_the_guard(tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [guard := NonFiniteGuard()]):
        trainer = stock_trainer(tmp_path, *callbacks)
        start = weights_of(trainer).clone()
        trainer.train()
        ends.append(weights_of(trainer))
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], start)
    # it did look at the last step, and left nothing behind
    assert guard.norms_.keys() == dict(trainer.model.named_parameters()).keys()
    assert not any(p._post_accumulate_grad_hooks for p in trainer.model.parameters())


@pytest.mark.parametrize(("scale", "ends"), [(65536.0, False), (2.0, False), (1.0, True), (None, True)])
def test_an_fp16_overflow_is_left_to_the_scaler_until_its_scale_is_used_up(scale: float | None, ends: bool) -> None:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.full_like(model.weight, float("inf"))
    optimizer = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: scale) if scale else None)
    try:
        NonFiniteGuard().on_pre_optimizer_step(None, TrainerState(), None, model=model, optimizer=optimizer)
        ended = False
    except DivergedError as error:
        ended = "no single parameter on this process" in str(error)
    assert ended is ends


def test_deepspeed_whose_gradients_cannot_be_seen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    args = TrainingArguments(use_cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(ValueError, match="DEEPSPEED keeps the gradients to itself: leave NonFiniteGuard out"):
        NonFiniteGuard().on_train_begin(args, TrainerState(), None, model=nn.Linear(2, 2))


def test_norms_that_were_told_decide_and_name_the_parameter() -> None:
    guard: Any = NonFiniteGuard(told=True)
    state, model = TrainerState(epoch=0.5), torch.nn.Linear(1, 1)
    guard.tell({"encoder": torch.tensor(1.0), "head": torch.tensor(2.0)})
    guard.on_pre_optimizer_step(None, state, None, model=model)
    guard.tell({"encoder": torch.tensor(1.0), "head": torch.tensor(float("nan"))})
    with pytest.raises(DivergedError, match="first of head"):
        guard.on_pre_optimizer_step(None, state, None, model=model)
