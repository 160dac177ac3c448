"""A finished run, opened for evaluation and prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from nlptrain import forward, processes, training_arguments
from nlptrain.backends import Backend
from nlptrain.config import load as config_file
from nlptrain.config.schema import Config
from nlptrain.data.encode import TOKEN_COLUMNS, encode, length_limit
from nlptrain.data.labels import LabelMap
from nlptrain.data.targets import COLUMNS
from nlptrain.fast import int8
from nlptrain.fast.int8 import OnnxModel
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
        stand_in: answers in place of the trainer's model; None: that one does.
    """

    folder: RunFolder
    config: Config
    labels: LabelMap | None
    tokenizer: PreTrainedTokenizerBase
    trainer: FineTuner
    max_length: int
    stand_in: OnnxModel | None = None

    @property
    def task(self) -> TaskSpec:
        """The task the run was trained for."""
        return self.config.spec

    def encode(self, rows: Dataset) -> Dataset:
        """Token rows as the model expects them."""
        return encode(rows, self.task, self.tokenizer, self.max_length, clean=self.config.data.clean)

    @property
    def backend(self) -> Backend:
        """What answers."""
        return "torch" if self.stand_in is None else "onnx_int8"

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the logits; none for regression."""
        return self.labels.names if self.labels else ()

    def logits(self, encoded: Dataset) -> Any:
        """Logits (n, classes), or scores (n, 1) in the user's unit, in the order of the rows.

        Of a token classification (words, classes) for each row, NaN for a word without a token.
        """
        return self.exact_logits(encoded) if self.stand_in is None else self._stand_in_logits(encoded)

    def exact_logits(self, encoded: Dataset) -> Any:
        """As `logits`, from the trainer's model whatever the backend."""
        return self.trainer.logits(encoded)

    def _stand_in_logits(self, encoded: Dataset) -> Any:
        return forward.logits(self.stand_in, encoded, self.trainer.data_collator)

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


def open_run(run: RunFolder, backend: Backend = "torch") -> OpenRun:
    """Load config and model of a finished run.

    By torch it computes in float32 as `pipeline()` does, or with the encoder in bfloat16 where the run was trained in
    it and this hardware has it.

    Raises:
        ConfigError: the backend is not for such tasks, or not installed.
        ModelError: the run is not finished, its model is incomplete or unsafe, or nothing the backend can take.
    """
    run.check_finished()
    config = config_file.load(run.config)
    task = config.spec
    if backend == "onnx_int8":
        int8.check(task.kind)
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
    opened = OpenRun(
        folder=run,
        config=config,
        labels=labels,
        tokenizer=tokenizer,
        trainer=FineTuner(model, args, task=task, tokenizer=tokenizer),
        max_length=length_limit(tokenizer, model.config, config.data.max_length),
    )
    return opened if backend == "torch" else _with_int8(opened)


def _with_int8(opened: OpenRun) -> OpenRun:
    """The run with the stand-in of `nlptrain.fast.int8`."""
    # a model of its own: the trainer's has another pass, and may be on another device
    model, tokenizer = load_model(opened.folder.model, opened.task.kind)
    names = [name for name in TOKEN_COLUMNS if name in tokenizer.model_input_names]
    return replace(opened, stand_in=int8.quantized(model, names))
