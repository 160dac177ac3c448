"""Faults of the stock Trainer that silently give wrong numbers: each law fails without our fix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from nlptrain import forward, training_arguments
from nlptrain.config.schema import ModelConfig
from nlptrain.data.encode import encode
from nlptrain.errors import ConfigError, DivergedError
from nlptrain.models.build import build
from nlptrain.models.loss import Loss, usual
from nlptrain.models.target import TargetScale
from nlptrain.tasks import TaskSpec
from nlptrain.trainer import FineTuner
from tests.tiny import tiny_model_dir

WORDS = ["the", "film", "was", "good", "bad", "fine", "great", "poor", "not", "very", "story", "man", "dog", "music"]
SENTIMENT = TaskSpec("tiny", "classification", ("text",), labels=("negative", "positive"), metrics=("accuracy",))
SCORE = TaskSpec("tiny", "regression", ("text",), metrics=("pearson", "nmse"), primary="nmse")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("tiny"), dropout=0.0)


def texts(count: int, task: TaskSpec) -> Dataset:
    rng = np.random.default_rng(0)
    found = [" ".join(rng.choice(WORDS, size=rng.integers(2, 20))) for _ in range(count)]
    labels = [t.count("good") + 0.1 * len(t) if task.kind == "regression" else len(t) % 2 for t in found]
    return Dataset.from_dict({"text": found, "label": labels, "line": list(range(2, count + 2))})


def fine_tuner(
    folder: Path,
    run: Path,
    task: TaskSpec = SENTIMENT,
    rows: int = 44,
    architecture: str = "cross_encoder",
    watch: list[TrainerCallback] | None = None,
    loss: Loss | None = None,
    oversample: bool = False,
    **training: Any,
) -> FineTuner:
    data = texts(rows, task)
    target = TargetScale.fit(data["label"][:], None) if task.kind == "regression" else None
    settings = ModelConfig(architecture=architecture, dropout=0.0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model, tokenizer = build(str(folder), settings, task, task.labels, target)
    quiet = {"eval_strategy": "no", "save_strategy": "no", "logging_steps": 1, "max_grad_norm": 0.0, "use_cpu": True}
    # float32 also on hardware with bf16, whose rounding is larger than the tolerances
    values = training_arguments.resolve({**quiet, "bf16": False, "num_train_epochs": 1, **training}, run)
    args = training_arguments.build(values, metric=task.primary, greater_is_better=task.primary != "nmse")
    encoded = encode(data, task, tokenizer, 64, clean=())
    return FineTuner(
        model,
        args,
        task=task,
        tokenizer=tokenizer,
        loss=loss or usual(target.scale if target else None),
        oversample=oversample,
        train_rows=encoded,
        eval_rows=encoded,
        callbacks=watch,
    )


class Gradients(TrainerCallback):
    """The gradient of every optimizer step as one vector."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        self.steps.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))


def gradients(folder: Path, run: Path, **settings: Any) -> torch.Tensor:
    seen = Gradients()
    # a rate of next to nothing: every step then differentiates the same weights
    fine_tuner(folder, run, watch=[seen], learning_rate=1e-30, weight_decay=0.0, **settings).train()
    return torch.stack(seen.steps)


@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
@pytest.mark.parametrize("task", [SENTIMENT, SCORE], ids=lambda task: task.kind)
def test_accumulation_changes_no_gradient_not_even_of_a_partial_window(
    folder: Path, tmp_path: Path, task: TaskSpec, architecture: str
) -> None:
    common = {"task": task, "architecture": architecture, "rows": 44}
    whole = gradients(folder, tmp_path, per_device_train_batch_size=32, **common)
    parts = gradients(folder, tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=4, **common)
    assert whole.shape[0] == 2
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_the_stock_trainer_multiplies_by_the_accumulation_steps(folder: Path, tmp_path: Path) -> None:
    """The negative control: were this fixed upstream, our own scaling could go."""
    norms = []
    for size, steps in ((32, 1), (8, 4)):
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        args = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            use_cpu=True,
            logging_steps=1,
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            disable_tqdm=True,
        )
        torch.manual_seed(0)
        model.classifier.reset_parameters()
        rows = encode(texts(32, SENTIMENT), SENTIMENT, tokenizer, 64, clean=())
        trainer = Trainer(model, args, DataCollatorWithPadding(tokenizer), train_dataset=rows)
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])
    assert norms[1] / norms[0] == pytest.approx(4, rel=1e-3)


def test_predictions_keep_the_order_of_the_rows_when_training_groups_by_length(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "BUDGET", 60)
    trainer = fine_tuner(folder, tmp_path, train_sampling_strategy="group_by_length")
    rows = trainer.train_dataset
    one_by_one = np.concatenate([trainer.logits(rows.select([index])) for index in range(len(rows))])
    np.testing.assert_allclose(trainer.logits(rows), one_by_one, atol=1e-5)


def test_an_error_metric_keeps_the_checkpoint_with_the_least_error(folder: Path, tmp_path: Path) -> None:
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = fine_tuner(folder, tmp_path, SCORE, learning_rate=3e-2, num_train_epochs=4, **options)
    trainer.train()
    curve = [entry["eval_nmse"] for entry in trainer.state.log_history if "eval_nmse" in entry]
    assert trainer.state.best_metric == min(curve) < max(curve)
    assert trainer.evaluate()["eval_nmse"] == pytest.approx(min(curve), abs=1e-6)


@pytest.mark.parametrize(("task", "mode"), [(SENTIMENT, "max"), (SCORE, "min")], ids=["accuracy", "nmse"])
def test_plateau_follows_the_direction_of_the_metric(tmp_path: Path, task: TaskSpec, mode: str) -> None:
    values = training_arguments.resolve({"lr_scheduler_type": "reduce_lr_on_plateau", "use_cpu": True}, tmp_path)
    args = training_arguments.build(values, metric=task.primary, greater_is_better=mode == "max")
    assert (args.lr_scheduler_kwargs["mode"], args.warmup_steps) == (mode, 0)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adagrad", "sgd"])
def test_weight_decay_that_would_not_be_decoupled_is_refused(tmp_path: Path, optimizer: str) -> None:
    values = training_arguments.resolve({"optim": optimizer, "weight_decay": 0.1, "use_cpu": True}, tmp_path)
    with pytest.raises(ConfigError, match="added to the gradient"):
        training_arguments.build(values, metric="accuracy", greater_is_better=True)


def test_evaluation_loss_is_the_mean_over_rows_whatever_the_batch(folder: Path, tmp_path: Path) -> None:
    losses = [
        fine_tuner(folder, tmp_path, rows=35, per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (1, 8, 64)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


def test_a_score_of_minus_hundred_is_a_row_like_any_other(folder: Path, tmp_path: Path) -> None:
    trainer = fine_tuner(folder, tmp_path, SCORE)
    batch = {"labels": torch.tensor([-100.0, 3.0])}
    assert trainer._get_num_items_in_batch([batch, batch], torch.device("cpu")) == 4


def test_a_non_finite_loss_ends_the_run_before_the_weights_are_touched(folder: Path, tmp_path: Path) -> None:
    trainer = fine_tuner(folder, tmp_path)
    with torch.no_grad():
        trainer.model.head.linear.bias.fill_(float("nan"))
    before = trainer.model.encoder.embeddings.word_embeddings.weight.clone()
    with pytest.raises(DivergedError, match=r"step 1 .*rows \d+, "):
        trainer.train()
    assert torch.equal(trainer.model.encoder.embeddings.word_embeddings.weight, before)


def test_a_checkpoint_holds_no_pickled_arguments(folder: Path, tmp_path: Path) -> None:
    fine_tuner(folder, tmp_path, save_strategy="epoch").train()
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "training_args.bin" not in names
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names


def test_one_norm_of_each_gradient_clips_as_the_library_does(tmp_path: Path) -> None:
    def trained(name: str, *, told: bool) -> tuple[list[float], torch.Tensor]:
        model = tiny_model_dir(tmp_path / name)
        used = fine_tuner(model, tmp_path / f"run-{name}", max_grad_norm=0.5, learning_rate=0.01)
        used._guard.told = told
        used.train()
        norms = [entry["grad_norm"] for entry in used.state.log_history if "grad_norm" in entry]
        return norms, torch.nn.utils.parameters_to_vector(used.model.parameters()).detach()  # type: ignore[union-attr]

    (ours, weights), (theirs, expected) = trained("ours", told=True), trained("theirs", told=False)
    assert max(ours) > 0.5
    assert ours == pytest.approx(theirs, rel=1e-4)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)


def test_the_padding_share_is_that_of_the_batches_trained_on(folder: Path, tmp_path: Path) -> None:
    trainer = fine_tuner(folder, tmp_path / "run")
    masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
    padding, tokens = sum(int((mask == 0).sum()) for mask in masks), sum(mask.numel() for mask in masks)
    assert trainer.padding_share == pytest.approx(padding / tokens)
