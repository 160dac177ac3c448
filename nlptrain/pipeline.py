"""The whole program in one function: config -> data -> model -> trainer -> train -> evaluate -> results."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from nlptrain import baselines, callbacks, processes, refinement, results, scoring, training_arguments
from nlptrain.callbacks import reporting
from nlptrain.check import check_parts
from nlptrain.config import load as config_file
from nlptrain.config.changes import refuse_changes
from nlptrain.config.schema import Config
from nlptrain.data.encode import encode, length_facts, length_limit
from nlptrain.data.load import Splits, load_splits
from nlptrain.inference import keep, open_run
from nlptrain.interruption import handled, interrupt
from nlptrain.metrics.registry import METRICS
from nlptrain.models.build import build
from nlptrain.models.checkpoint import default_name
from nlptrain.models.objective import facts, fit_cosine, hold_cosine, objective
from nlptrain.models.target import TargetScale, fold
from nlptrain.predictions import Predictions
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.run_status import RunStatus
from nlptrain.scoring import SplitScores, score_split
from nlptrain.train import fit
from nlptrain.trainer import FineTuner

logger = logging.getLogger(__name__)


def run(config: Config, *, resume: bool | str = False) -> RunResult:
    """Fine-tune, evaluate and write a run folder.

    Args:
        config: a checked configuration with ``training.output_dir``.
        resume: continue from the newest checkpoint of that folder, or from the one at this path and no other.

    Raises:
        NlptrainError: one of its kinds, each with its exit code.
    """
    folder = RunFolder(Path(config.training["output_dir"]))
    count = processes.start()
    with RunStatus(folder.status, main=processes.is_main()) as status, handled(interrupt):
        clock = Clock()
        config = resolve(config, folder, resume=bool(resume))
        splits = load_splits(config.spec, config.data, seed=config.training["seed"], refine=config.refine)
        for note in splits.notes:
            logger.info("%s", note)
        work = assemble(config, splits, folder)
        status.running(count)
        clock.lap("prepare")
        trained = fit(work.trainer, folder, resume=_checkpoint(config, resume))
        work.export(folder)
        clock.lap("train")
        refined = refinement.after_training(folder, config.refine, splits)
        if refined:
            clock.lap("refine")
        # what is scored is what was saved, the way `nlptrain evaluate` scores it
        opened = open_run(folder)
        found = {split: opened.predictions(splits.rows[split], rows) for split, rows in work.labelled().items()}
        scores = {split: _score(config, splits, rows) for split, rows in found.items()}
        clock.lap("evaluate")
        others = baselines.scores(config, splits) if processes.is_main() else {}
        clock.lap("baselines")
        result = _record(work, splits, trained, scores, clock.seconds)
        names = splits.labels.names if splits.labels else ()
        refined = refinement.compared(refined, folder, config.spec, names, found)
        result = result.model_copy(update={"baselines": others, "refinement": refined})
        keep(folder, result, found)
    return result


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """The stage that ends now."""
        now = perf_counter()
        self.seconds[stage], self._last = now - self._last, now


@dataclass(frozen=True)
class Work:
    """Everything a run is made of, ready to train."""

    config: Config
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    target: TargetScale | None
    encoded: dict[str, Dataset]
    max_length: int
    trainer: FineTuner

    def labelled(self) -> dict[str, Dataset]:
        """The splits that can be scored, training rows left out."""
        return {s: rows for s, rows in self.encoded.items() if s != "train" and "labels" in rows.column_names}

    def export(self, folder: RunFolder) -> None:
        """Save the model, whole or not at all; a stock regression has its scale folded in and needs nothing of ours."""
        if self.target and self.config.model.architecture == "stock":
            fold(self.model, self.target)
        if self.config.loss.name == "cosent":
            rows = self.encoded["train"]
            fit_cosine(self.model, self.trainer.logits(rows).squeeze(-1), np.asarray(rows["labels"][:]))
        partial = folder.model.with_name(".model.partial")
        self.trainer.save_model(str(partial))
        processes.wait_for_all()
        if processes.is_main():
            shutil.rmtree(folder.model, ignore_errors=True)
            partial.rename(folder.model)
        processes.wait_for_all()


def resolve(config: Config, folder: RunFolder, *, resume: bool) -> Config:
    """Defaults filled in and every ``auto`` decided.

    Raises:
        ConfigError: the run folder is taken.
        ModelError: the run to continue was made with other settings; lists key, old and new.
    """
    folder.check_free(resume=resume)
    config = config.model_copy(
        update={"training": training_arguments.resolve(config.training, folder.path, config.replaced)}
    )
    name = config.model.name or default_name()
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    check_parts(config, folder)
    if resume:
        refuse_changes(
            config_file.load(folder.config).model_dump(mode="json"), config.model_dump(mode="json"), folder.path
        )
    # every process has looked at the folder before one of them writes to it
    processes.wait_for_all()
    return config


def assemble(config: Config, splits: Splits, folder: RunFolder) -> Work:
    """Build model, token rows and trainer; creates the run folder."""
    task, training = config.spec, config.training
    set_seed(training["seed"])
    target = TargetScale.of(task, splits.rows["train"]["label"][:], config.model.target)
    loss = objective(config, splits.rows["train"], splits.labels, target)
    names = splits.labels.names if splits.labels else None
    model, tokenizer = build(config.model.name, config.model, task, names, target)
    if target and config.loss.needs_cosine:
        hold_cosine(model, target, config.loss.lowest_cosine)
    limit = length_limit(tokenizer, model.config, config.data.max_length)
    clean = model.config.text_cleaning = list(config.data.clean)  # a model folder alone says what it expects
    encoded = {split: encode(rows, task, tokenizer, limit, clean=clean) for split, rows in splits.rows.items()}
    parts = callbacks.build(config, folder)
    metric = METRICS[task.primary]
    args = training_arguments.build(training, metric=metric.name, greater_is_better=metric.greater_is_better)
    folder.create()
    if processes.is_main():
        folder.write_config(config_file.dump(config))
    trainer = FineTuner(
        model,
        args,
        task=task,
        tokenizer=tokenizer,
        loss=loss,
        oversample=config.data.balance == "oversample",
        train_rows=encoded["train"],
        eval_rows=encoded["validation"],
        optim=config.optim,
        keep_checkpoints=training["save_total_limit"],
        config=config.model_dump(mode="json"),
        callbacks=parts,
    )
    reporting.settle(trainer.callback_handler.callbacks, folder.logs)
    return Work(config, model, tokenizer, target, encoded, limit, trainer)


def _checkpoint(config: Config, resume: bool | str) -> bool | str:
    return resume if isinstance(resume, str) else config.training.get("resume_from_checkpoint") or resume


def _score(config: Config, splits: Splits, found: Predictions) -> SplitScores:
    names = splits.labels.names if splits.labels else None
    return score_split(config.spec, found, names, resamples=config.report.bootstrap)


def _record(
    work: Work, splits: Splits, trained: dict[str, Any], scores: dict[str, SplitScores], seconds: dict[str, float]
) -> RunResult:
    task, settings = work.config.spec, work.config.model
    return RunResult(
        task=task.name,
        kind=task.kind,
        **scoring.fields(scores),
        rows={split: len(rows) for split, rows in work.encoded.items()},
        data=splits.facts | {"tokens": {split: length_facts(rows) for split, rows in work.encoded.items()}},
        model={
            **settings.model_dump(mode="json"),
            "parameters": work.model.num_parameters(),
            "max_length": work.max_length,
            "labels": list(splits.labels.names) if splits.labels else None,
        },
        training={**trained, "bf16": work.config.training["bf16"], "loss": facts(work.trainer.loss, splits.labels)},
        environment=results.environment(work.trainer.args.world_size),
        seed=work.config.training["seed"],
        seconds=seconds,
        notes=splits.notes,
        best_step=trained["best_step"],
    )
