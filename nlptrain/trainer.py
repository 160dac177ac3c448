"""The seam to `transformers.Trainer`: with its base and the callbacks, all that knows its insides.

What is overridden, and which silent fault of the stock class it removes:

* the loss is a sum over rows, or labelled tokens, divided by those of the whole optimizer step, over accumulation and
  processes, so that neither changes it (stock: multiplied by both for encoder models, and a mean of unequal means);
* batches come from `RankBatches`, so that order is exact on resume and equal for any number of processes;
* evaluation keeps the order of the rows whatever the training order;
* the evaluation loss is the exact mean over rows (stock: repeats the loss of a padded last batch);
* evaluating leaves the random numbers of training alone, so that doing it more often changes nothing that is learned.

What is done to its checkpoints is in `nlptrain.resumption`.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput
from transformers.training_args import OptimizerNames

from nlptrain import forward
from nlptrain.callbacks.line_search import ArmijoLineSearch
from nlptrain.callbacks.non_finite_guard import NonFiniteGuard
from nlptrain.config.parts import OptimConfig
from nlptrain.data.batches import RankBatches, Strategy
from nlptrain.data.fingerprint import fingerprint
from nlptrain.fast import keep_memory, kept_words, remember_shapes, speed_up, weights_at_rest
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.scores import selection_value
from nlptrain.models.loss import Loss, counted, usual
from nlptrain.optim import optimizer, parameter_groups
from nlptrain.outputs import OUTPUTS, score_logits
from nlptrain.resumption import ResumableTrainer
from nlptrain.tasks import IGNORED, KINDS, TaskSpec

# optimizers that only read gradients; others use them as scratch paper, which `WordLookup` does not bear
LEAVE_GRADIENTS = ("adam", "adamw", "armijo", "rmsprop", "adagrad", "sgd", "adamw_torch", "adamw_torch_fused")


class FineTuner(ResumableTrainer):
    """Trainer for one `TaskSpec`.

    Args:
        model: gives logits (B, classes), or (B, T, classes) by token, or scores (B, 1) in the user's unit.
        args: from `nlptrain.training_arguments.build`.
        task: the row of `nlptrain.tasks`.
        tokenizer: pads the batches and is saved beside the model.
        loss: what training lowers; None: the usual one, in the user's unit.
        oversample: whether an epoch draws all classes equally often.
        train_rows: encoded rows with ``length`` and ``labels``.
        eval_rows: encoded rows; kept in order.
        optim: the optimizer; None: the library's, by ``args.optim``.
        keep_checkpoints: newest ones that stay, besides the best; None: all.
        config: JSON-ready, for the manifests of checkpoints.
        callbacks: in the order in which they are called.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        task: TaskSpec,
        tokenizer: PreTrainedTokenizerBase,
        loss: Loss | None = None,
        oversample: bool = False,
        train_rows: Dataset | None = None,
        eval_rows: Dataset | None = None,
        optim: OptimConfig | None = None,
        keep_checkpoints: int | None = None,
        config: Mapping[str, Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.task = task
        self.loss = loss or usual(1.0 if task.kind == "regression" else None)
        self.oversample = oversample
        self.optim = optim
        self.keep_checkpoints = keep_checkpoints
        whole = not (args.fsdp or args.deepspeed)  # every process has all of every gradient
        if args.use_cpu:
            keep_memory()
            remember_shapes(bf16=args.bf16)
            name = optim.name if optim else OptimizerNames(args.optim).value
            speed_up(model, own_gradient=whole and name in LEAVE_GRADIENTS)
        self.config = config
        # one norm of each gradient serves clipping, the log and the guard
        self._guard = NonFiniteGuard(self.step_rows, told=args.use_cpu and whole)
        search = [ArmijoLineSearch(self)] if optim and optim.searches else []
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            eval_dataset=longest_first(eval_rows) if eval_rows is not None else None,
            data_collator=OUTPUTS[task.kind].collator(tokenizer, pad_to_multiple_of=2 if args.use_cpu else 8),
            processing_class=tokenizer,
            compute_loss_func=self._loss,
            compute_metrics=self._metrics,
            # before what changes gradients: clipping by value would make an infinite one finite
            callbacks=[self._guard, *search, *(callbacks or [])],
        )
        if self.accelerator.ddp_handler is not None:
            self.accelerator.ddp_handler.gradient_as_bucket_view = True  # one copy of every gradient less
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

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """As in the base class; keeps the rows, of which metrics need more than a model does."""
        self._scored = self.eval_dataset if eval_dataset is None else eval_dataset
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """As `get_eval_dataloader`."""
        self._scored = test_dataset
        return super().get_test_dataloader(test_dataset)

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Rows of an epoch, repeated ones counted as often as they come."""
        batches = dataloader.batch_sampler
        return batches.rows if isinstance(batches, RankBatches) else super().num_examples(dataloader)

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

    @property
    def padding_share(self) -> float:
        """Share of padding among the training tokens of the first epoch, on this process."""
        return self._batches().padding_share

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
        # starting a loader draws a number, which would change the dropout of the steps after it
        with torch.random.fork_rng(devices=[]), weights_at_rest():
            output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        if output.label_ids is not None:
            logits, labels = (torch.from_numpy(np.asarray(a)) for a in (output.predictions, output.label_ids))
            loss = self.loss.evaluation(logits.double(), labels)
            cast("dict[str, float]", output.metrics)[f"{metric_key_prefix}_loss"] = loss
        return output

    def logits(self, rows: Dataset) -> Any:
        """Logits (n, classes) or scores (n, 1) of encoded rows, in their order, on every process.

        Of a token classification one (words, classes) for each row, see `nlptrain.outputs`.
        """
        kind = self.task.kind
        found = forward.logits(self.model, rows, self.data_collator, by_token=KINDS[kind].by_token, bf16=self.args.bf16)
        return OUTPUTS[kind].by_row(found, rows)

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
            classes=rows["labels"][:] if self.oversample else None,
            padding_index=len(rows),
            multiple=cast("Any", self.data_collator).pad_to_multiple_of,
        )

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def _clip_grad_norm(self, model: Any) -> Any:
        if not self._guard.told:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        plain: PreTrainedModel = self.accelerator.unwrap_model(model)
        gradients = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
        words = kept_words(plain)
        with words.shortened(gradients) if words else nullcontext(gradients) as shortened:
            norms = {name: torch.linalg.vector_norm(gradient) for name, gradient in shortened.items()}
            self._guard.tell(norms)
            total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
            factor = float(self.args.max_grad_norm) / (total + 1e-6)
            if factor < 1:
                for gradient in shortened.values():
                    gradient.mul_(factor)
        return total

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Labels of this optimizer step over all micro-batches and processes; a score of -100 is one like any other."""
        rows = sum((counted(batch["labels"]).sum() for batch in batch_samples), torch.tensor(0))
        total: Tensor = self.accelerator.reduce(rows.to(device), reduction="sum")
        return total.clamp(min=1)  # rows of words that the tokenizer leaves nothing of have none

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        loss = self.loss(outputs, labels, num_items_in_batch)
        # gradients are averaged over processes, and the rows are those of all
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def _metrics(self, found: EvalPrediction) -> dict[str, float]:
        rows, kind = cast("Dataset", self._scored), OUTPUTS[self.task.kind]
        outputs = kind.by_row(np.asarray(found.predictions), rows)
        # in batches: a column of rows in another order is copied row by row
        targets = [one for batch in rows.select_columns([kind.targets]).iter(10_000) for one in batch[kind.targets]]
        scores = score_logits(self.task, outputs, targets, self._names)
        defined = {name: value for name, value in scores.values.items() if value is not None}
        return defined | {self.task.primary: selection_value(METRICS[self.task.primary], scores)}

    @property
    def _names(self) -> list[str]:
        """The model's classes in the order of their ids."""
        labels = getattr(self.model.config, "id2label", None) if self.model is not None else None
        return [name for _, name in sorted((labels or {}).items())]

    @cached_property
    def training_facts(self) -> dict[str, Any]:
        """What a checkpoint depends on: processes, labels, rows and the configuration."""
        rows = {"train": self.train_dataset, "validation": self.eval_dataset}
        return {
            "processes": self.args.world_size,
            "labels": self._names,
            "rows": {split: fingerprint(cast("Dataset", found)) for split, found in rows.items() if found is not None},
            "config": self.config,
        }


def longest_first(rows: Dataset) -> Dataset:
    """Rows by falling length, for little padding and to fail at once on too large a batch."""
    return rows.select(np.argsort(-np.asarray(rows["length"][:]), kind="stable"))


def _with_ignored_row(rows: Dataset) -> Dataset:
    """A copy of the first row at the end whose label does not count, for a process that would otherwise have no row."""
    first = dict(rows[0])
    labels = first["labels"]
    ignored = IGNORED if isinstance(labels, int) else float("nan")
    first["labels"] = [IGNORED] * len(labels) if isinstance(labels, list) else ignored
    return concatenate_datasets([rows, Dataset.from_list([first], features=rows.features)])
