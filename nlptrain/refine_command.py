"""`nlptrain refine`: the head of a finished run fitted again, and its record brought up to date."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from nlptrain import scoring
from nlptrain.config import load as config_file
from nlptrain.config.refine import FIT
from nlptrain.config.schema import Config
from nlptrain.data.held_out import deal_others
from nlptrain.data.load import Splits, load_rows, load_splits
from nlptrain.errors import ConfigError, DataError
from nlptrain.inference import OpenRun, keep, open_run
from nlptrain.refinement import acts, chosen, compared, judged, keep_answers, refine_head, trained_on
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.run_head import RunHead

OURS = "refine."


def refine_run(path: Path, words: Sequence[str] = (), source: str | None = None) -> dict[str, Any]:
    """Refine the head of a finished run; model, predictions and ``results.json`` change only where it is accepted.

    Each time it starts from the head that fine-tuning left, whatever earlier refinements have made of it.

    Args:
        path: the run folder.
        words: ``refine.key=value`` over the run's own settings.
        source: a file of labelled rows that the run has not seen; None: the rows that its `refine` section held out.

    Returns:
        JSON-ready: ``run``, ``rows``, ``metrics`` (split to metric to value) and ``refinement``, as in the record.

    Raises:
        ConfigError: settings that do not fit, or nothing was held out.
        DataError: unreadable rows, or rows that the run has seen.
        ModelError: the run is not finished, or its head cannot be refined.
    """
    folder = RunFolder(path)
    folder.check_finished()
    result, config = RunResult.read(folder.results), settings(folder, words)
    opened = open_run(folder)
    splits = seen(config, result, path, source)
    rows, origin = _rows(config, splits, opened, source)
    refine = config.refine
    assert refine is not None  # noqa: S101 - for the type checker
    run = RunHead(folder, opened, refine.part)
    run.restore()
    keep_answers(run, splits)
    found = refine_head(run, refine, rows, used=trained_on(splits), source=origin)
    first = (result.refinement or {}).get("before")
    record = {"settings": refine.model_dump(mode="json"), "data": source, "before": first, **found}
    result = _scored(folder, splits, result, record)
    return {"run": str(path), "rows": result.rows, "metrics": result.metrics, "refinement": result.refinement}


def settings(folder: RunFolder, words: Sequence[str]) -> Config:
    """The run's configuration with a `refine` section: its own, or the defaults, under the words.

    Raises:
        ConfigError: words about anything else, or what `nlptrain.config.load.load` refuses.
    """
    if others := [word for word in words if not word.startswith(OURS)]:
        raise ConfigError("USAGE", f"{others[0]!r}: only {OURS}key=value can be given for a finished run; train again")
    plain = config_file.load(folder.config)
    words = [*([] if plain.refine else ["refine={}"]), *words]
    config = config_file.load(folder.config, words)
    if config.refine and not acts(config.refine):
        config = config_file.load(folder.config, [*words, "refine.when=[after]"])
    if plain.refine and config.refine and config.refine.held_out != plain.refine.held_out:
        raise ConfigError(
            "REFINE",
            f"refine.held_out: the run held out {plain.refine.held_out}, found {config.refine.held_out}; "
            "what training has seen cannot be held out any more",
        )
    return config


def seen(config: Config, result: RunResult, path: Path, source: str | None) -> Splits:
    """The rows of the run as it saw them; without a `source` with those that it held out.

    Raises:
        ConfigError: nothing was held out.
        DataError: the rows are no longer the same.
    """
    of_run = config_file.load(RunFolder(path).config).refine
    if source is None and not (of_run and of_run.parts):
        raise ConfigError(
            "REFINE",
            f"{path}: this run held no rows out, and a head is refined on rows that training has not seen: give "
            "--data FILE with such rows, or train with a refine section (`refine: {when: []}` only holds rows out)",
        )
    return run_rows(config.model_copy(update={"refine": config.refine if source is None else of_run}), result, path)


def run_rows(config: Config, result: RunResult, path: Path) -> Splits:
    """The rows of a finished run.

    Raises:
        DataError: they are no longer the same.
    """
    splits = load_splits(config.spec, config.data, seed=config.training["seed"], refine=config.refine)
    for split in result.rows:
        old, new = ((facts.get(split) or {}).get("sha256") for facts in (result.data, splits.facts))
        if old != new:
            raise DataError("DATA_CHANGED", f"{path}: the {split} rows changed after training; restore their file")
    return splits


def _rows(config: Config, splits: Splits, opened: OpenRun, source: str | None) -> tuple[Mapping[str, Dataset], str]:
    """The rows of each part, and what tells them apart from those of other sources."""
    refine = config.refine
    assert refine is not None  # noqa: S101 - for the type checker
    if source is None:
        return chosen(refine, splits), "train"
    rows, _ = load_rows(config.spec, source, config.data, opened.labels)
    known = splits.rows | splits.held_out
    seed = config.training["seed"]
    parts = deal_others(rows, known, config.spec, config.data.clean, refine, seed=seed, origin=source)
    return parts | ({FIT: splits.rows["train"]} if refine.rows == "train" else {}), source


def _scored(folder: RunFolder, splits: Splits, result: RunResult, record: dict[str, Any]) -> RunResult:
    """The record of the run as its model is now; written where it belongs."""
    opened = open_run(folder)
    found = {split: opened.predictions(rows, opened.encode(rows)) for split, rows in judged(splits).items()}
    names, resamples = opened.names, opened.config.report.bootstrap
    scores = {s: scoring.score_split(opened.task, rows, names, resamples=resamples) for s, rows in found.items()}
    refinement = compared(record, folder, opened.task, names, found)
    result = result.model_copy(update={**scoring.fields(scores), "refinement": refinement})
    keep(folder, result, found)
    return result
