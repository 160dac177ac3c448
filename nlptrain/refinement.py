"""The stage after fine-tuning: fit the head again, let rows used for nothing else decide, and calibrate."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from nlptrain import processes
from nlptrain.config.refine import FIT, GUARD, TEMPERATURE, RefineConfig
from nlptrain.data.load import Splits
from nlptrain.errors import ConfigError
from nlptrain.head import calibration
from nlptrain.head.refit import Method, Rows, decide, outputs, refit
from nlptrain.inference import open_run
from nlptrain.predictions import Predictions
from nlptrain.run_folder import RunFolder
from nlptrain.run_head import RunHead, keep, replace_model, row_names
from nlptrain.scoring import score_split
from nlptrain.tasks import TaskSpec

logger = logging.getLogger(__name__)
Array = NDArray[np.float64]


def refine_head(
    run: RunHead,
    settings: RefineConfig,
    rows: Mapping[str, Dataset],
    *,
    used: Collection[str],
    source: str = "train",
) -> dict[str, Any]:
    """Refine and calibrate the head of a finished run, and write its model where that changes it.

    What comes out depends on the fine-tuned model alone, not on earlier refinements of the same run.

    Args:
        run: the run.
        settings: how.
        rows: for each of `RefineConfig.parts` labelled rows; of ``rows: train`` also those of the fit.
        used: names of rows that had a part in training, in the choice of the checkpoint, or in a report.
        source: of `rows`, for their names.

    Returns:
        JSON-ready: ``after`` with ``head``, ``rows``, ``certificate`` and ``decision``; ``calibration``; ``changed``,
        whether the model is another than fine-tuning left.

    Raises:
        ModelError: the head cannot be refined.
        ConfigError: the method does not fit the head or the rows.
    """
    place, was_refined = run.place, run.restore()
    before = place.read()
    found = {part: run.rows("train" if _trains(settings, part) else part, some, source) for part, some in rows.items()}
    record: dict[str, Any] = {"after": None, "calibration": None}
    accepted, temperature = False, 1.0
    if "after" in settings.when:
        record["after"], vector = _after(run, settings, found, before, used)
        if accepted := record["after"]["decision"]["accepted"]:
            place.write(vector)
    if settings.calibrate:
        held = found[TEMPERATURE]
        record["calibration"] = calibration.calibrate(
            run.serving.answers(outputs(place, held, place.read())), held.targets
        )
        temperature = record["calibration"]["temperature"]
    changed = accepted or temperature != 1
    if changed or was_refined:
        calibration.serve_at(run.model, place, temperature)
        keep(run, before)
        replace_model(run)
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


def after_training(folder: RunFolder, settings: RefineConfig | None, splits: Splits) -> dict[str, Any] | None:
    """The stage in a run: `refine_head` of the model that was just written, and what was fitted before training.

    Returns:
        The record, with ``settings`` and ``before``; None without a `refine` section.
    """
    if settings is None:
        return None
    found: dict[str, Any] = {"after": None, "calibration": None, "changed": False}
    if processes.is_main():
        # of an earlier training, where this one was resumed
        folder.fine_tuned_head.unlink(missing_ok=True)
    processes.wait_for_all()
    if acts(settings):
        run = RunHead(folder, open_run(folder), settings.part)
        keep_answers(run, splits)
        found = refine_head(run, settings, chosen(settings, splits), used=trained_on(splits))
    first = json.loads(folder.first_head.read_text("utf-8")) if "before" in settings.when else None
    return {"settings": settings.model_dump(mode="json"), "before": first, **found}


def acts(settings: RefineConfig) -> bool:
    """Whether there is something to do after training."""
    return "after" in settings.when or settings.calibrate


def keep_answers(run: RunHead, splits: Splits) -> None:
    """Write what the model in memory answers for every row that will be scored, to be compared with what it becomes."""
    for split, rows in judged(splits).items():
        found = run.opened.predictions(rows, run.opened.encode(rows))
        if processes.is_main():
            found.write(run.folder.fine_tuned_predictions(split))


def judged(splits: Splits) -> dict[str, Dataset]:
    """The splits that are scored."""
    return {split: rows for split, rows in splits.rows.items() if split != "train" and "label" in rows.column_names}


def compared(
    record: dict[str, Any] | None,
    folder: RunFolder,
    task: TaskSpec,
    names: Sequence[str],
    after: Mapping[str, Predictions],
) -> dict[str, Any] | None:
    """A record with what refinement did to the rows that are reported.

    Args:
        record: of `after_training`.
        folder: with the answers of the fine-tuned model, see `keep_answers`.
        task: names the metrics.
        names: of the classes in the order of the logits; none for a regression.
        after: split to the answers of the refined model.

    Returns:
        The record with ``fine_tuned``, split to the metrics before, and of a classification with ``reliability``,
        split to the tables (see `nlptrain.refine.reliability`) ``before`` and ``after``.
    """
    if record is None or not (record["after"] or record["calibration"]):
        return record
    before = {split: Predictions.read(folder.fine_tuned_predictions(split)) for split in after}
    scores = {split: score_split(task, found, names, resamples=0).values for split, found in before.items()}
    tables = {
        split: {"before": calibration.table(before[split]), "after": calibration.table(found)}
        for split, found in (after.items() if task.kind == "classification" else ())
    }
    return record | {"fine_tuned": scores, "reliability": tables}


def chosen(settings: RefineConfig, splits: Splits) -> dict[str, Dataset]:
    """The rows for each part that `refine_head` needs."""
    return splits.held_out | ({FIT: splits.rows["train"]} if settings.rows == "train" else {})


def trained_on(splits: Splits) -> set[str]:
    """Names of the rows that training saw, of those of the same source that chose the checkpoint, and of the fit's."""
    seen = ["train", *(["validation"] if splits.facts["validation_from_train"] else [])]
    return {name for split in seen for name in row_names(splits.rows[split])}
