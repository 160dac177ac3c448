"""The stage after fine-tuning: fit the head again, let rows used for nothing else decide, and calibrate."""

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import distributed

from nlptrain import processes
from nlptrain.config.refine import FIT, GUARD, TEMPERATURE, RefineConfig
from nlptrain.data.fingerprint import fingerprint
from nlptrain.data.load import Splits
from nlptrain.errors import ConfigError, ModelError
from nlptrain.head import calibration
from nlptrain.head.cache import cached
from nlptrain.head.features import compute, inputs
from nlptrain.head.features import fingerprint as features_fingerprint
from nlptrain.head.place import HeadPlace, find
from nlptrain.head.refit import Method, Rows, Serving, decide, outputs, refit
from nlptrain.inference import OpenRun, open_run
from nlptrain.run_folder import RunFolder

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class RunHead:
    """The head of a finished run, and what it gets of rows.

    Args:
        folder: of the run.
        opened: the run; its model is changed in memory.
        last: the last linear map, also where there is one hidden layer.
    """

    folder: RunFolder
    opened: OpenRun
    last: bool = False

    @property
    def model(self) -> Any:
        """In evaluation mode."""
        return self.opened.trainer.model

    @cached_property
    def place(self) -> HeadPlace:
        """Where the head is.

        Raises:
            ModelError: it cannot be refined.
        """
        tokenizer = self.opened.tokenizer
        texts = ["a"] * (2 if self.opened.task.is_pair else 1)
        row = inputs(self.model, tokenizer(*texts))
        try:
            batch = self.opened.trainer.data_collator([row])
            device = self.opened.trainer.args.device
            self.model.to(device)
            return find(self.model, {name: values.to(device) for name, values in batch.items()}, last=self.last)
        except ValueError as error:
            raise ModelError("REFINE", f"{self.folder.model}: {error}") from error

    @property
    def serving(self) -> Serving:
        """From the head's outputs to the model's answers."""
        return Serving.of(self.model)

    def rows(self, name: str, texts: Dataset, source: str = "train") -> Rows:
        """Features, targets and names of labelled rows; called by all processes.

        Args:
            name: under which the features are kept.
            texts: as `nlptrain.data.load.Splits.rows` has them.
            source: tells rows of the same line in different sources apart.
        """
        encoded, trainer = self.opened.encode(texts), self.opened.trainer
        size = trainer.args.per_device_eval_batch_size
        group = distributed.is_initialized()
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if group else (0, 1)
        features = cached(
            self.folder.features(name, rank, world),
            features_fingerprint(self.model, self.place, fingerprint(encoded), size),
            lambda: compute(self.model, self.place, encoded, trainer.data_collator, size),
        )
        return Rows(features, np.asarray(texts["label"][:]), names(texts, source))


def names(rows: Dataset, source: str = "train") -> list[str]:
    """A name for each row: its source, and where it stands there."""
    return [f"{source}:{line}" for line in rows["line"][:]]


def refine_head(
    run: RunHead,
    settings: RefineConfig,
    rows: Mapping[str, Dataset],
    *,
    used: Collection[str],
    source: str = "train",
    fine_tuned: Array | None = None,
) -> dict[str, Any]:
    """Refine and calibrate the head of a finished run, and write its model where that changed it.

    Args:
        run: the run.
        settings: how.
        rows: for each of `RefineConfig.parts` labelled rows; of ``rows: train`` also those of the fit.
        used: names of rows that had a part in training, in the choice of the checkpoint, or in a report.
        source: of `rows`, for their names.
        fine_tuned: the head as fine-tuning left it, where the model no longer has that.

    Returns:
        JSON-ready: ``after`` with ``head``, ``rows``, ``certificate`` and ``decision``; ``calibration``; ``changed``.

    Raises:
        ModelError: the head cannot be refined.
        ConfigError: the method does not fit the head or the rows.
    """
    place = run.place
    found = {part: run.rows("train" if _trains(settings, part) else part, some, source) for part, some in rows.items()}
    before = place.read() if fine_tuned is None else fine_tuned
    record: dict[str, Any] = {"after": None, "calibration": None}
    temperature = current = getattr(run.model.config, "temperature", 1.0)
    accepted = False
    if "after" in settings.when:
        record["after"], vector = _after(run, settings, found, before, used)
        if accepted := record["after"]["decision"]["accepted"]:
            place.write(vector)
            temperature = 1.0
    if settings.calibrate:
        rows_ = found[TEMPERATURE]
        logits = run.serving.answers(outputs(place, rows_, place.read()))
        record["calibration"] = calibration.calibrate(logits, rows_.targets)
        temperature = record["calibration"]["temperature"]
    if changed := accepted or temperature != current:
        calibration.serve_at(run.model, place, temperature)
        _keep(run, before)
        _replace_model(run)
    return record | {"changed": changed}


def _after(
    run: RunHead, settings: RefineConfig, rows: Mapping[str, Rows], before: Array, used: Collection[str]
) -> tuple[dict[str, Any], Array]:
    """The record and the refined head; the model stays as it is."""
    method = Method(settings.method, cast('float | Literal["auto"]', settings.l2), settings.proximal)
    try:
        refined = refit(run.place, rows[FIT], run.serving, before, method)
    except ValueError as error:
        raise ConfigError("REFINE", f"refine: {error}") from error
    decision = decide(
        run.place,
        rows[GUARD],
        run.serving,
        refined.parameters,
        run.opened.task.primary,
        used={*used, *(name for part in rows if part != GUARD for name in rows[part].ids)},
        tolerance=settings.tolerance,
    )
    logger.info("refined head %s: %s", "accepted" if decision.accepted else "rejected", decision.why)
    record = {
        "head": run.place.description,
        "rows": settings.rows,
        "certificate": refined.certificate.as_dict(),
        "decision": decision.as_dict(),
    }
    return record, refined.parameters


def _trains(settings: RefineConfig, part: str) -> bool:
    return part == FIT and settings.rows == "train"


def _keep(run: RunHead, vector: Array) -> None:
    """Write the head as fine-tuning left it, by the names of `Head.shapes`."""
    path = run.folder.fine_tuned_head
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: np.ascontiguousarray(part) for name, part in run.place.head.unpack(vector).items()}, partial)
        os.replace(partial, path)


def kept(run: RunHead) -> Array | None:
    """The head as fine-tuning left it, where a refinement has replaced it.

    Raises:
        ModelError: it is of another shape.
    """
    path = run.folder.fine_tuned_head
    if not path.is_file():
        return None
    try:
        return run.place.head.pack(load_file(path))
    except (ValueError, OSError, SafetensorError) as error:
        raise ModelError("REFINE", f"{path}: not the head of this run: {error}; remove it or train again") from error


def _replace_model(run: RunHead) -> None:
    """Save the model in place of the run's: every file whole or not at all, the weights first."""
    partial = run.folder.model.with_name(".model.partial")
    run.opened.trainer.save_model(str(partial))
    processes.wait_for_all()
    if processes.is_main():
        for path in sorted(partial.iterdir(), key=lambda path: path.suffix != ".safetensors"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, run.folder.model / path.name)
        shutil.rmtree(partial)
    processes.wait_for_all()


def after_training(folder: RunFolder, settings: RefineConfig | None, splits: Splits) -> dict[str, Any] | None:
    """The stage in a run: `refine_head` of the model that was just written, and what was fitted before training.

    Returns:
        The record, with ``settings`` and ``before``; None without a `refine` section.
    """
    if settings is None:
        return None
    found: dict[str, Any] = {"after": None, "calibration": None, "changed": False}
    if settings.parts and (settings.when or settings.calibrate):
        rows = chosen(settings, splits)
        found = refine_head(RunHead(folder, open_run(folder)), settings, rows, used=trained_on(splits))
    first = json.loads(folder.first_head.read_text("utf-8")) if "before" in settings.when else None
    return {"settings": settings.model_dump(mode="json"), "before": first, **found}


def chosen(settings: RefineConfig, splits: Splits) -> dict[str, Dataset]:
    """The rows for each part that `refine_head` needs."""
    return splits.held_out | ({FIT: splits.rows["train"]} if settings.rows == "train" else {})


def trained_on(splits: Splits) -> set[str]:
    """Names of the rows that training saw, of those of the same source that chose the checkpoint, and of the fit's."""
    seen = ["train", *(["validation"] if splits.facts["validation_from_train"] else [])]
    return {name for split in seen for name in names(splits.rows[split])}
