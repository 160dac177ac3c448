"""Our models and stock ones under a stock Trainer: accumulation changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from tests.tiny import built, tiny_model_dir

FIRST = ["good film", "the dog eats", "no", "a very old book", "it was sad", "love", "great food", "one cat"] * 2
SECOND = ["bad film", "a cat runs", "one", "new music", "it was happy", "hate", "poor food", "two dogs"] * 2


def train(
    folder: Path, architecture: Any, task: str, batch: int, accumulation: int
) -> tuple[list[float], torch.Tensor]:
    """Logged loss and gradient norm of two steps of eight rows each, and the trained weights."""
    set_seed(0)
    model, tokenizer = built(folder, task, architecture=architecture, dropout=0.0)
    rows = Dataset.from_dict(
        {**tokenizer(FIRST, SECOND), "label": [i % 2 if task == "mrpc" else i / 4 for i in range(16)]}
    )
    arguments = TrainingArguments(
        str(folder / "trainer"),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        logging_steps=1,
        learning_rate=0.01,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = [entry[key] for entry in trainer.state.log_history[:2] for key in ("loss", "grad_norm")]
    return logged, torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("stock", "mrpc"), ("cross_encoder", "mrpc"), ("bi_encoder", "mrpc"), ("stock", "stsb"), ("bi_encoder", "stsb")],
)
def test_eight_rows_at_once_equal_two_rows_four_times(tmp_path: Path, architecture: Any, task: str) -> None:
    folder = tiny_model_dir(tmp_path)
    whole, whole_weights = train(folder, architecture, task, 8, 1)
    parts, part_weights = train(folder, architecture, task, 2, 4)
    assert parts == pytest.approx(whole, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(part_weights, whole_weights, atol=1e-6, rtol=0)
