"""The seam to `transformers.Trainer`: the only module, besides the callbacks, that knows its insides.

What is overridden, and which silent fault of the stock class it removes:

* the loss is a sum over rows divided by the rows of the whole optimizer step, over accumulation and processes, so that
  neither changes it (stock: multiplied by both for encoder models, and a mean of unequal means);
* batches come from `RankBatches`, so that order is exact on resume and equal for any number of processes;
* evaluation keeps the order of the rows whatever the training order;
* the evaluation loss is the exact mean over rows (stock: repeats the loss of a padded last batch);
* a checkpoint holds no pickled arguments (they contain the Hub token in plain text).
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from nlptrain.data.batches import RankBatches, Strategy
from nlptrain.errors import DivergedError
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.scores import Scores, score, selection_value
from nlptrain.models.loss import per_row_loss
from nlptrain.tasks import TaskSpec

IGNORED = -100


class FineTuner(Trainer):
    """Trainer for one `TaskSpec`.

    Args:
        model: gives logits (B, classes), or scores (B, 1) in the user's unit.
        args: from `nlptrain.training_arguments.build`.
        task: the row of `nlptrain.tasks`.
        tokenizer: pads the batches and is saved beside the model.
        target_scale: standard deviation of the training scores; None for classification.
        train_rows: encoded rows with ``length`` and ``labels``.
        eval_rows: encoded rows; kept in order.
        callbacks: in the order in which they are called.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        task: TaskSpec,
        tokenizer: PreTrainedTokenizerBase,
        target_scale: float | None = None,
        train_rows: Dataset | None = None,
        eval_rows: Dataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.task = task
        self.target_scale = target_scale
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            eval_dataset=longest_first(eval_rows)[0] if eval_rows is not None else None,
            data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=None if args.use_cpu else 8),
            processing_class=tokenizer,
            compute_loss_func=self._loss,
            compute_metrics=self._metrics,
            callbacks=callbacks,
        )
        # it prints to standard output, which belongs to the result
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches of the current epoch."""
        args = self.args
        rows = cast("Dataset", self.train_dataset)
        batches = RankBatches(
            rows["length"][:],
            batch_size=args.train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            processes=args.world_size,
            rank=args.process_index,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            strategy=cast("Strategy", args.train_sampling_strategy),
            drop_last=args.dataloader_drop_last,
            padding_index=len(rows),
        )
        if args.world_size > 1:
            rows = _with_ignored_row(rows)
        return DataLoader(
            self._remove_unused_columns(rows, description="training"),
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
            # its own generator: asking for the next epoch must not move the global random state
            generator=torch.Generator().manual_seed(args.seed),
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch; a non-finite loss ends the run before the optimizer can use it."""
        loss: Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise DivergedError(
                "NON_FINITE_LOSS",
                f"non-finite loss ({loss.item()}) in step {step}; lower training.learning_rate",
            )
        return loss

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As in the base class, with every metric computed on the whole gathered arrays and the loss exact."""
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        if output.label_ids is not None:
            logits, labels = (torch.from_numpy(np.asarray(a)) for a in (output.predictions, output.label_ids))
            losses = per_row_loss(logits.double(), labels, scale=self.target_scale)
            cast("dict[str, float]", output.metrics)[f"{metric_key_prefix}_loss"] = losses.mean().item()
        return output

    def logits(self, rows: Dataset) -> NDArray[np.float64]:
        """Logits (n, classes) or scores (n, 1) of encoded rows, in their order, on every process."""
        ordered, order = longest_first(rows)
        unlabelled = ordered.select_columns([name for name in ordered.column_names if name != "labels"])
        found = np.asarray(self.predict(unlabelled).predictions)
        logits = np.empty(found.shape, dtype=np.float64)
        logits[order] = found
        return logits

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Rows of this optimizer step over all micro-batches and processes; a score of -100 is a row like any other."""
        rows = sum((_counted(batch["labels"]).sum() for batch in batch_samples), torch.tensor(0))
        total: Tensor = self.accelerator.reduce(rows.to(device), reduction="sum")
        return total

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        keep, training = _counted(labels), self.model is not None and self.model.training
        losses = per_row_loss(
            outputs.logits,
            labels.where(keep, torch.zeros_like(labels)),
            scale=self.target_scale,
            label_smoothing=self.args.label_smoothing_factor if training else 0.0,
        )
        return (losses * keep).sum() / (keep.sum() if num_items_in_batch is None else num_items_in_batch)

    def _metrics(self, found: EvalPrediction) -> dict[str, float]:
        scores = score_logits(self.task, np.asarray(found.predictions), np.asarray(found.label_ids))
        return {name: selection_value(METRICS[name], scores) for name in self.task.metrics}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            Path(output_dir or str(self.args.output_dir), TRAINING_ARGS_NAME).unlink(missing_ok=True)


def score_logits(task: TaskSpec, logits: NDArray[Any], labels: NDArray[Any]) -> Scores:
    """The task's metrics of logits (n, classes), or scores (n, 1), against class ids or scores (n,)."""
    if task.kind == "regression":
        return score(task.metrics, logits.reshape(-1).astype(np.float64), labels.astype(np.float64))
    return score(task.metrics, logits.argmax(axis=-1), labels.astype(np.int64))


def longest_first(rows: Dataset) -> tuple[Dataset, NDArray[np.int64]]:
    """Rows by falling length, for little padding and to fail at once on too large a batch; and where they stood."""
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable")
    return rows.select(order), order


def _with_ignored_row(rows: Dataset) -> Dataset:
    """A copy of the first row at the end whose label does not count, for a process that would otherwise have no row."""
    first = dict(rows[0])
    first["labels"] = IGNORED if isinstance(first["labels"], int) else float("nan")
    return concatenate_datasets([rows, Dataset.from_list([first], features=rows.features)])


def _counted(labels: Tensor) -> Tensor:
    return ~labels.isnan() if labels.is_floating_point() else labels.ne(IGNORED)
