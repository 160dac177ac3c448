"""The seam to `transformers.Trainer`: the only module, besides the callbacks, that knows its insides.

What is overridden, and which silent fault of the stock class it removes:

* the loss is a sum over rows divided by the rows of the whole optimizer step, over accumulation and processes, so that
  neither changes it (stock: multiplied by both for encoder models, and a mean of unequal means);
* batches come from `RankBatches`, so that order is exact on resume and equal for any number of processes;
* evaluation keeps the order of the rows whatever the training order;
* the evaluation loss is the exact mean over rows (stock: repeats the loss of a padded last batch);
* a checkpoint holds no pickled arguments (they contain the Hub token in plain text).
"""

from functools import cached_property
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
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from nlptrain import checkpoints, processes
from nlptrain.callbacks.non_finite_guard import NonFiniteGuard
from nlptrain.config.parts import OptimConfig
from nlptrain.data.batches import RankBatches, Strategy
from nlptrain.data.fingerprint import fingerprint
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.scores import Scores, score, selection_value
from nlptrain.models.loss import per_row_loss
from nlptrain.optim import optimizer, parameter_groups
from nlptrain.tasks import TaskSpec

IGNORED = -100


class FineTuner(Trainer):
    """Trainer for one `TaskSpec`.

    Args:
        model: gives logits (B, classes), or scores (B, 1) in the user's unit.
        args: from `nlptrain.training_arguments.build`.
        task: the row of `nlptrain.tasks`.
        tokenizer: pads the batches and is saved beside the model.
        target_scale: unit of the loss, see `nlptrain.models.target.TargetScale`; None for classification.
        train_rows: encoded rows with ``length`` and ``labels``.
        eval_rows: encoded rows; kept in order.
        optim: the optimizer; None: the library's, by ``args.optim``.
        keep_checkpoints: newest ones that stay, besides the best; None: all.
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
        optim: OptimConfig | None = None,
        keep_checkpoints: int | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.task = task
        self.target_scale = target_scale
        self.optim = optim
        self.keep_checkpoints = keep_checkpoints
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            eval_dataset=longest_first(eval_rows)[0] if eval_rows is not None else None,
            data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=None if args.use_cpu else 8),
            processing_class=tokenizer,
            compute_loss_func=self._loss,
            compute_metrics=self._metrics,
            # before what changes gradients: clipping by value would make an infinite one finite
            callbacks=[NonFiniteGuard(self.step_rows), *(callbacks or [])],
        )
        # they print to standard output, which belongs to the result
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches of the current epoch."""
        args = self.args
        rows = cast("Dataset", self.train_dataset)
        if args.world_size > 1:
            rows = _with_ignored_row(rows)
        return DataLoader(
            self._remove_unused_columns(rows, description="training"),
            batch_sampler=self._batches(),
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

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Ours where the configuration has an `optim` section, else the library's."""
        if self.optimizer is None and self.optim is not None:
            groups = parameter_groups(
                cast("torch.nn.Module", self.model if model is None else model),
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                head_learning_rate=self.optim.head_learning_rate,
                layer_decay=self.optim.layer_decay,
                decay_embeddings=self.optim.decay_embeddings,
            )
            settings = self.optim.settings
            self.optimizer = optimizer(self.optim.name, groups, decoupled=self.optim.decoupled, **settings)
        chosen: torch.optim.Optimizer = super().create_optimizer(model)
        return chosen

    def step_rows(self) -> list[int]:
        """Lines, in their source, of the rows of the current optimizer step over all processes."""
        rows = cast("Dataset", self.train_dataset)
        batches = self._batches()
        epoch, step = divmod(self.state.global_step, len(batches.windows()))
        batches.set_epoch(epoch)
        return [rows["line"][int(index)] for index in batches.windows()[step]]

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

    def _batches(self) -> RankBatches:
        args, rows = self.args, cast("Dataset", self.train_dataset)
        return RankBatches(
            rows["length"][:],
            batch_size=args.train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            processes=args.world_size,
            rank=args.process_index,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            strategy=cast("Strategy", args.train_sampling_strategy),
            padding_index=len(rows),
        )

    def _load_callback_state(self) -> None:
        """As in the base class, which puts restored callbacks last, and in their old order."""
        order = [type(callback) for callback in self.callback_handler.callbacks]
        super()._load_callback_state()
        self.callback_handler.callbacks.sort(key=lambda callback: order.index(type(callback)))
        self._find_best()

    def _find_best(self) -> None:
        """The best checkpoint where it lies now: the library remembers a path, and goes on without it when it moved."""
        step = self.state.best_global_step
        if step and self.args.load_best_model_at_end:
            best = checkpoints.folder(Path(str(self.args.output_dir)), step)
            checkpoints.verify(best)
            self.state.best_model_checkpoint = str(best)

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
        total: Tensor = (losses * keep).sum()
        if num_items_in_batch is None:
            return total / keep.sum()
        # gradients are averaged over processes, and the rows are those of all
        mean: Tensor = total * self.accelerator.num_processes / num_items_in_batch
        return mean

    def _metrics(self, found: EvalPrediction) -> dict[str, float]:
        scores = score_logits(self.task, np.asarray(found.predictions), np.asarray(found.label_ids))
        defined = {name: value for name, value in scores.values.items() if value is not None}
        return defined | {self.task.primary: selection_value(METRICS[self.task.primary], scores)}

    @cached_property
    def training_facts(self) -> dict[str, Any]:
        """What a checkpoint depends on besides the configuration: processes, rows and labels."""
        rows = {"train": self.train_dataset, "validation": self.eval_dataset}
        labels = getattr(self.model.config, "id2label", None) if self.model is not None else None
        return {
            "processes": self.args.world_size,
            "labels": [name for _, name in sorted((labels or {}).items())],
            "rows": {split: fingerprint(cast("Dataset", found)) for split, found in rows.items() if found is not None},
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in the base class, but a checkpoint exists with its manifest, and only then are older ones deleted."""
        parent, main = Path(str(self.args.output_dir)), self.args.should_save
        target = checkpoints.folder(parent, self.state.global_step)
        with checkpoints.writing(target, main=main):
            super()._save_checkpoint(model, trial)
            processes.wait_for_all()
            if main:
                checkpoints.seal(target, {"step": self.state.global_step, **self.training_facts})
        if main:
            checkpoints.rotate(parent, keep=self.keep_checkpoints, best=self.state.best_global_step)

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
