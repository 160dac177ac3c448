"""A finished run, opened for evaluation and prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from nlptrain import processes, training_arguments
from nlptrain.config import load as config_file
from nlptrain.config.schema import Config
from nlptrain.data.encode import encode, length_limit
from nlptrain.data.labels import LabelMap
from nlptrain.data.targets import COLUMNS
from nlptrain.metrics.registry import METRICS
from nlptrain.models.load import check_cleaning, check_labels
from nlptrain.models.load import load as load_model
from nlptrain.outputs import OUTPUTS
from nlptrain.predictions import Predictions, digest
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.tasks import TaskSpec
from nlptrain.trainer import FineTuner

_NOTHING_WRITTEN: dict[str, Any] = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


@dataclass(frozen=True)
class OpenRun:
    """What evaluation and prediction need of a run.

    Attributes:
        folder: of the run.
        config: the run's resolved configuration.
        labels: class names in the order of the logits; None for regression.
        tokenizer: the model's own.
        trainer: holds the model; gives logits, on one process or many.
        max_length: tokens per row.
    """

    folder: RunFolder
    config: Config
    labels: LabelMap | None
    tokenizer: PreTrainedTokenizerBase
    trainer: FineTuner
    max_length: int

    @property
    def task(self) -> TaskSpec:
        """The task the run was trained for."""
        return self.config.spec

    def encode(self, rows: Dataset) -> Dataset:
        """Token rows as the model expects them."""
        return encode(rows, self.task, self.tokenizer, self.max_length, clean=self.config.data.clean)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the logits; none for regression."""
        return self.labels.names if self.labels else ()

    def logits(self, encoded: Dataset) -> Any:
        """Logits (n, classes), or scores (n, 1) in the user's unit, in the order of the rows.

        Of a token classification (words, classes) for each row, NaN for a word without a token.
        """
        return self.trainer.logits(encoded)

    def predictions(self, rows: Dataset, encoded: Dataset) -> Predictions:
        """What the model answers for labelled rows, beside what is right.

        Args:
            rows: as `nlptrain.data.load.Splits.rows` has them.
            encoded: `encode` of them.
        """
        # not through the numpy format, which makes float32 of scores
        labels, outputs = OUTPUTS[self.task.kind].kept(self.logits(encoded), rows["label"][:], self.names)
        return Predictions(
            lines=np.asarray(rows["line"][:], np.int64),
            texts=tuple(digest(texts) for texts in zip(*(rows[name][:] for name in self.task.text), strict=True)),
            labels=labels,
            outputs=outputs,
        )


def keep(folder: RunFolder, result: RunResult, found: Mapping[str, Predictions]) -> None:
    """Write what was answered and the record made of it; by the main process, for which the others wait."""
    if processes.is_main():
        for split, rows in found.items():
            rows.write(folder.predictions(split))
        result.write(folder.results)
    processes.wait_for_all()


def open_run(run: RunFolder) -> OpenRun:
    """Load config and model of a finished run.

    Computes in float32 as `pipeline()` does, or with the encoder in bfloat16 where the run was trained in it and this
    hardware has it.

    Raises:
        ModelError: the run is not finished, or its model is incomplete or unsafe.
    """
    run.check_finished()
    config = config_file.load(run.config)
    task = config.spec
    model, tokenizer = load_model(run.model, task.kind)
    keep = ("per_device_eval_batch_size", "seed")
    chosen = {k: v for k, v in config.training.items() if k in keep}
    chosen["bf16"] = "auto" if config.training.get("bf16") else False
    values = training_arguments.resolve({**chosen, **_NOTHING_WRITTEN}, run.path)
    metric = METRICS[task.primary]
    # the library makes this folder: the run folder itself, which is there
    args = training_arguments.build(
        values, metric=metric.name, greater_is_better=metric.greater_is_better, checkpoints="."
    )
    labels = None
    if label_map := COLUMNS[task.kind].labels:
        id2label = cast("dict[int, str]", model.config.id2label)
        labels = label_map(tuple(id2label[number] for number in sorted(id2label)))
    check_cleaning(model, config.data.clean)
    check_labels(model, (task.labels or labels.names) if labels else None)
    return OpenRun(
        folder=run,
        config=config,
        labels=labels,
        tokenizer=tokenizer,
        trainer=FineTuner(model, args, task=task, tokenizer=tokenizer),
        max_length=length_limit(tokenizer, model.config, config.data.max_length),
    )
