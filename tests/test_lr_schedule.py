"""LRSchedule in the library's own Trainer with the library's own model."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from nlptrain.callbacks.lr_schedule import LRSchedule
from nlptrain.schedules import SCHEDULES, simulate
from tests.tiny import tiny_model_dir

STEPS, RATE = 12, 1e-3
ROWS = [{"input_ids": [2, 40 + at % 7, 60 + at % 5, 3], "labels": at % 2} for at in range(2 * STEPS)]
OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {"eta_min": 1e-4},
    "polynomial": {"power": 1.5},
    "inverse_sqrt": {"timescale": 5},
    "cosine": {},
    "cosine_restarts": {"T_0": 2, "T_mult": 2},
    "step": {"step_size": 3, "factor": 0.5},
    "plateau": {"patience": 3},
}
ACCURACY = {"metric": "accuracy", "greater_is_better": True, "patience": 0, "factor": 0.5, "min_factor": 0.2}
# of the evaluations after steps 2, 4, ..., 12
VALUES = [0.9, 0.5, 0.4, 0.6, float("nan"), 0.1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("tiny"), dropout=0.0)


def trainer(
    folder: Path, run: Path, callbacks: list[TrainerCallback], values: Iterable[float] = (), **arguments: Any
) -> Trainer:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    common = {"max_steps": STEPS, "learning_rate": RATE, "logging_steps": 1, "per_device_train_batch_size": 2}
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    measured: Iterator[float] = iter(values)
    return Trainer(
        model,
        TrainingArguments(str(run), **{**common, **quiet, **arguments}),
        train_dataset=ROWS,
        eval_dataset=ROWS[:4],
        compute_metrics=(lambda _: {"accuracy": next(measured)}) if values else None,
        callbacks=callbacks,
    )


def logged(trainer: Trainer, key: str = "learning_rate") -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if "learning_rate" in entry]


@pytest.mark.parametrize("name", SCHEDULES)
def test_logged_rates_are_the_simulated_ones_also_after_resuming(folder: Path, tmp_path: Path, name: str) -> None:
    keep = {"save_strategy": "steps", "save_steps": 5, "eval_strategy": "steps", "eval_steps": 4}
    whole = trainer(folder, tmp_path, [LRSchedule(name, 0.25, **OPTIONS[name])], **keep)
    whole.train()
    assert logged(whole) == simulate(name, {"warmup": 3, **OPTIONS[name]}, STEPS, RATE)
    again = trainer(folder, tmp_path, [LRSchedule(name, 0.25, **OPTIONS[name])], **keep)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert logged(again) == logged(whole)


def plateau_rates(values: list[float]) -> list[float]:
    """Torch's own, its evaluations every 2 steps after a warm-up of 3."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    reference = ReduceLROnPlateau(optimizer, "max", 0.5, 0, 0.0, threshold_mode="abs", min_lr=0.2 * RATE, eps=0.0)
    rates = [RATE / 3, RATE * 2 / 3, RATE, RATE]
    for value in values[1:-1]:
        reference.step(value)
        rates += reference.get_last_lr() * 2
    return rates


@pytest.mark.parametrize("restore", [False, True])
def test_plateau_follows_a_score_and_resumes_what_it_has_seen(folder: Path, tmp_path: Path, restore: bool) -> None:
    keep = {
        "save_strategy": "steps",
        "save_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "restore_callback_states_from_checkpoint": restore,
    }
    whole = trainer(folder, tmp_path, [LRSchedule("plateau", 3, **ACCURACY)], VALUES, **keep)
    whole.train()
    # 0.9 falls into the warm-up; 0.5 first, 0.4 worse, 0.6 better, nan no better
    assert logged(whole) == pytest.approx(plateau_rates(VALUES))
    assert logged(whole, "plateau_factor") == [1.0] * 6 + [0.5] * 4 + [0.25] * 2
    again = trainer(folder, tmp_path, [LRSchedule("plateau", 3, **ACCURACY)], VALUES[3:], **keep)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert logged(again) == logged(whole)


def test_an_evaluation_after_training_and_a_second_training_start_anew(folder: Path, tmp_path: Path) -> None:
    schedule = LRSchedule("plateau", **ACCURACY)
    values = [0.5, 0.4, 0.3, 0.2, 0.6, 0.7]
    found = trainer(folder, tmp_path, [schedule], values, eval_strategy="steps", eval_steps=4)
    found.train()
    assert (schedule.best, schedule.level) == (0.5, 0.25)
    found.evaluate()
    assert (schedule.best, schedule.level) == (0.5, 0.25)
    found.args.max_steps = 4
    found.train()
    assert (schedule.best, schedule.level) == (0.6, 1.0)


class Groups(TrainerCallback):
    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def test_every_group_keeps_its_base_rate(folder: Path, tmp_path: Path) -> None:
    seen = Groups()
    found = trainer(folder, tmp_path, [LRSchedule("cosine", 3, eta_min=1e-4), seen], gradient_accumulation_steps=2)
    parts = [list(found.model.bert.parameters()), list(found.model.classifier.parameters())]
    groups = [{"params": part, "lr": rate} for part, rate in zip(parts, (RATE, 5 * RATE), strict=True)]
    found.optimizer = torch.optim.AdamW(groups)
    found.train()
    expected = [simulate("cosine", {"warmup": 3, "eta_min": 1e-4}, STEPS, rate) for rate in (RATE, 5 * RATE)]
    assert seen.rates == [list(pair) for pair in zip(*expected, strict=True)]


def test_continues_a_checkpoint_that_was_made_without_it(folder: Path, tmp_path: Path) -> None:
    keep = {"save_strategy": "steps", "save_steps": 5}
    trainer(folder, tmp_path, [], **keep).train()
    again = trainer(folder, tmp_path, [LRSchedule("linear")], **keep)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert logged(again)[5:] == simulate("linear", {}, STEPS, RATE)[5:]


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (("linear", 0), {"lr_scheduler_type": "greedy", "eval_strategy": "steps"}, "GreedyLR.*lr_scheduler_type: con"),
        (("linear", 0), {"warmup_steps": 0.1}, r"warmup_steps 0\.1"),
        (("linear", 13), {}, "nearest valid value: 12"),
        (("plateau", 0), {}, "eval_strategy: epoch"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    folder: Path, tmp_path: Path, schedule: tuple[str, int], arguments: dict[str, Any], message: str
) -> None:
    found = trainer(folder, tmp_path, [LRSchedule(*schedule)], **arguments)
    with pytest.raises(ValueError, match=message):
        found.train()
    assert found.state.global_step == 0


def test_a_metric_that_no_evaluation_gives_is_refused(folder: Path, tmp_path: Path) -> None:
    schedule = LRSchedule("plateau", metric="f1", greater_is_better=True)
    with pytest.raises(ValueError, match=r"eval_f1 is not among .*eval_loss"):
        trainer(folder, tmp_path, [schedule], eval_strategy="steps", eval_steps=4).train()


def test_a_rate_floor_above_the_rate_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"eta_min .* found 0\.01; nearest valid value: 0\.001"):
        trainer(folder, tmp_path, [LRSchedule("cosine", eta_min=0.01)]).train()
