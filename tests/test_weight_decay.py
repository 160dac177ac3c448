"""Weight decay as a callback of the stock Trainer with a stock model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from nlptrain.callbacks.weight_decay import WeightDecay, cosine, linear
from nlptrain.optim import RMSpropW, optimizer, parameter_groups

STEPS, LR, WD, UNSEEN = 6, 1e-3, 0.1, 39


def rows(count: int = 24) -> list[dict[str, Any]]:
    ids = torch.randint(1, UNSEEN, (count, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0]) % 2} for row in ids]


def trainer(
    folder: Path, *callbacks: TrainerCallback, chosen: Any = (torch.optim.Adam, {"lr": LR}), **options: Any
) -> Trainer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes))
    quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "max_steps": STEPS}
    args = TrainingArguments(str(folder), per_device_train_batch_size=8, **{**quiet, **options})
    built = {"optimizers": (chosen(model), None)} if callable(chosen) else {"optimizer_cls_and_kwargs": chosen}
    return Trainer(model, args, train_dataset=rows(), callbacks=list(callbacks), **built)


def trained(folder: Path, *callbacks: TrainerCallback, **options: Any) -> Trainer:
    made = trainer(folder, *callbacks, **options)
    made.train()
    return made


def distance(one: Trainer, other: Trainer) -> float:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def logged(made: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in made.state.log_history if key in entry]


def test_adam_with_the_callback_is_adamw_and_with_its_own_decay_is_not(tmp_path: Path) -> None:
    adamw = trained(tmp_path, chosen=(torch.optim.AdamW, {"lr": LR}), weight_decay=WD)
    # the decay in the arguments is taken over, not added
    ours = trained(tmp_path, WeightDecay(WD), weight_decay=0.7)
    assert distance(ours, adamw) <= 1e-7
    assert distance(trained(tmp_path, weight_decay=WD), adamw) > 1e-4


def test_the_callback_does_to_rmsprop_what_its_class_does(tmp_path: Path) -> None:
    by_class = trained(tmp_path, chosen=(RMSpropW, {"lr": LR}), weight_decay=WD)
    by_callback = trained(tmp_path, WeightDecay(WD), chosen=(torch.optim.RMSprop, {"lr": LR}))
    no_double = trained(tmp_path, WeightDecay(WD), chosen=(RMSpropW, {"lr": LR}), weight_decay=WD)
    plain = trained(tmp_path, chosen=(torch.optim.RMSprop, {"lr": LR}))
    assert distance(by_callback, by_class) == distance(no_double, by_class) == 0.0 < distance(plain, by_class)


def test_coupled_decay_is_that_of_the_optimizer_itself(tmp_path: Path) -> None:
    ours = trained(tmp_path, WeightDecay(WD, decoupled=False))
    assert distance(ours, trained(tmp_path, weight_decay=WD)) <= 1e-7


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [WD] * STEPS),
        ("linear", [WD * (1 - k / STEPS) for k in range(STEPS)]),
        ("cosine", [WD * (1 + math.cos(math.pi * k / STEPS)) / 2 for k in range(STEPS)]),
        ("with_learning_rate", [WD * s for s in (0, 1 / 2, 1, 3 / 4, 1 / 2, 1 / 4)]),
        (lambda progress: 2 - progress, [WD * (2 - k / STEPS) for k in range(STEPS)]),
    ],
)
def test_the_weights_shrink_by_what_the_history_says(tmp_path: Path, schedule: Any, expected: list[float]) -> None:
    made = trainer(tmp_path, WeightDecay(WD, schedule), chosen=(torch.optim.SGD, {"lr": 0.1}), warmup_steps=2)
    # the embedding of a token that is in no row sees no gradient but zero
    row = made.model.bert.embeddings.word_embeddings.weight[UNSEEN]
    before = row.detach().double().clone()
    made.train()
    assert logged(made, "weight_decay") == pytest.approx(expected, abs=1e-15)
    factor = math.prod(1 - lr * wd for lr, wd in zip(logged(made, "learning_rate"), expected, strict=True))
    after = made.model.bert.embeddings.word_embeddings.weight[UNSEEN].detach().double()
    found = float((after @ before) / (before @ before))
    assert found == pytest.approx(factor, abs=1e-6)
    assert factor < 0.99


def test_counts_are_logged_once_and_also_reach_the_other_callbacks(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append(dict(logs))

    made = trained(tmp_path, WeightDecay(WD, embeddings=False), Reporter())
    linear_weights = sum(m.weight.numel() for m in made.model.modules() if isinstance(m, nn.Linear))
    assert logged(made, "decayed_parameters") == [linear_weights] == [seen[0]["decayed_parameters"]]
    assert logged(made, "spared_parameters") == [made.model.num_parameters() - linear_weights]
    assert "weight_decay" not in made.state.log_history[-1]


def test_biases_norms_and_unwanted_embeddings_do_not_move_at_a_gradient_of_zero(tmp_path: Path) -> None:
    made = trainer(tmp_path, WeightDecay(WD, embeddings=False), chosen=(torch.optim.SGD, {"lr": LR}))
    before = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    made.add_callback(ZeroGradients())
    made.train()
    moved = {name for name, weight in made.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved == {f"{n}.weight" for n, m in made.model.named_modules() if isinstance(m, nn.Linear)}


class ZeroGradients(TrainerCallback):
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 3, "restore_callback_states_from_checkpoint": True}
    whole = trained(tmp_path, WeightDecay(WD, "cosine"), **options)
    again = trainer(tmp_path, WeightDecay(WD, "cosine"), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert distance(again, whole) == 0.0
    assert logged(again, "weight_decay") == logged(whole, "weight_decay")
    assert len(logged(again, "decayed_parameters")) == 1


def test_the_schedule_of_the_trainer_scales_every_layer(tmp_path: Path) -> None:
    shares: list[list[float]] = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
            shares.append([group["lr"] / group["initial_lr"] for group in optimizer.param_groups])

    def layered(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, learning_rate=LR, weight_decay=WD, head_learning_rate=10 * LR, layer_decay=0.5)
        return optimizer("rmsprop", groups)

    made = trained(tmp_path, Rates(), chosen=layered)
    assert len(shares[0]) > 6
    expected = [1 - k / STEPS for k in range(STEPS)]
    assert [pytest.approx([share] * len(shares[0])) for share in expected] == shares
    assert logged(made, "learning_rate") == pytest.approx([LR * share for share in expected])


def test_a_step_skipped_by_the_gradient_scaler_does_not_decay() -> None:
    Accelerator(cpu=True)
    model = nn.Linear(2, 1, bias=False)
    raw, scaler, callback = torch.optim.SGD(model.parameters(), lr=LR), torch.amp.GradScaler("cpu"), WeightDecay(WD)
    scaler.scale(torch.ones(1))
    wrapped, state = AcceleratedOptimizer(raw, scaler=scaler), TrainerState(max_steps=STEPS)
    common = {"args": None, "state": state, "control": TrainerControl(), "optimizer": wrapped}
    callback.on_train_begin(model=model, **common)  # type: ignore[arg-type]
    found = []
    for gradient in (math.inf, 0.0):
        before = model.weight.detach().clone()
        model.weight.grad = torch.full_like(model.weight, gradient)
        scaler.unscale_(raw)
        callback.on_pre_optimizer_step(**common)  # type: ignore[arg-type]
        wrapped.step()
        found.append((wrapped.step_was_skipped, torch.equal(model.weight, before)))
    assert found == [(True, True), (False, False)]


def test_a_weight_decay_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    only_biases = lambda model: torch.optim.SGD([p for n, p in model.named_parameters() if "bias" in n], lr=LR)  # noqa: E731
    with pytest.raises(ValueError, match="none of the model's weights"):
        trained(tmp_path, WeightDecay(WD), chosen=only_biases)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1,), "found -0.1; the nearest valid one is 0"),
        ((math.nan,), "found nan"),
        ((0.1, "cosin"), "found 'cosin', nearest 'cosine'"),
        ((0.1, lambda progress: 1 - 2 * progress), "found -1.0 at progress 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightDecay(*arguments)


def test_multipliers_go_from_one_to_zero() -> None:
    assert [linear(0), linear(1), cosine(0), cosine(0.5), cosine(1)] == pytest.approx([1, 0, 1, 0.5, 0], abs=1e-15)
