"""One cell of a grid: whether it is finished, and how it is run.

A cell is finished when its ``cell.json`` says so: that is written last, after the scores and after the model is gone.
A folder without it was torn and is made again from the start, so that its seconds are those of one whole run.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlptrain.config import load as config_file
from nlptrain.config.changes import changes
from nlptrain.config.grid import Cell
from nlptrain.errors import ConfigError, NlptrainError, StoppedError, named
from nlptrain.results import write_json
from nlptrain.run_folder import RunFolder

logger = logging.getLogger(__name__)
SEAL = "cell.json"
SHOWN = 20


def record(cell: Cell) -> dict[str, Any]:
    """What ``cell.json`` says: state (done or failed), error, config; empty where the cell is torn or not begun."""
    try:
        found = json.loads((cell.folder / SEAL).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_done(cell: Cell) -> bool:
    """Whether the cell is finished and scored."""
    return record(cell).get("state") == "done"


def has_failed(cell: Cell) -> bool:
    """Whether the cell ended with an error."""
    return record(cell).get("state") == "failed"


def unfinished(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are still to be run; failed ones are tried again.

    Raises:
        ConfigError: a finished cell was made with other settings, with key, old and new value; or a folder is not ours.
    """
    if foreign := [cell.folder for cell in cells if not _is_ours(cell.folder)]:
        raise ConfigError("GRID", [f"{folder}: holds no cell of a grid; name another output" for folder in foreign])
    done = [cell for cell in cells if is_done(cell)]
    problems = [f"{cell.folder}: finished with other settings: {line}" for cell in done for line in _changed(cell)]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        remedy = "put the settings back, name another output, or delete these folders"
        raise ConfigError("GRID", [*problems[:SHOWN], *more, remedy])
    return [cell for cell in cells if cell not in done]


def run(cell: Cell, *, keep_models: bool) -> NlptrainError | None:
    """Train and score a cell in this process, or in all those of a launcher, over what a torn one left.

    Returns:
        The error that ended it, which is also in its folder, or None.

    Raises:
        StoppedError: a signal came; the cell stays unfinished.
    """
    from nlptrain import pipeline, processes

    processes.start()
    if processes.is_main():
        _clear(cell.folder)
    processes.wait_for_all()
    logger.info("--- %s", cell.name)
    failure = None
    try:
        pipeline.run(cell.config)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - of whatever kind, it is this cell's alone
        failure = named(error)
        logger.error("%s", cell.name, exc_info=True)
    if processes.is_main():
        finish(cell, failure, keep_models=keep_models)
    if failure is None:
        processes.wait_for_all()
    return failure


def finish(cell: Cell, failure: NlptrainError | None, *, keep_models: bool) -> None:
    """Delete what a scored cell no longer needs, and seal it."""
    folder = RunFolder(cell.folder)
    if not keep_models:
        for heavy in (folder.model, folder.checkpoints):
            shutil.rmtree(heavy, ignore_errors=True)
    error = failure and {"code": failure.code, "message": str(failure), "exit_code": failure.exit_code}
    cell.folder.mkdir(parents=True, exist_ok=True)
    state = "failed" if failure else "done"
    write_json(cell.folder / SEAL, {"state": state, "error": error, "config": cell.config.model_dump(mode="json")})


def _changed(cell: Cell) -> list[str]:
    # checked again, so that settings which did not exist then have their defaults
    old = config_file.check(record(cell)["config"])
    return changes(old.model_dump(mode="json"), cell.config.model_dump(mode="json"))


def _clear(folder: Path) -> None:
    """Remove a run folder; a folder with anything else in it is left for the run to refuse."""
    if _is_ours(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is missing, empty, or what a cell left behind; it will be removed."""
    run = RunFolder(folder)
    if run.status.exists() or (folder / SEAL).exists():
        return True
    if not run.config.exists():
        return all(path.suffix == ".partial" for path in folder.glob("*"))
    try:
        return bool(config_file.load(run.config))
    except ConfigError:
        return False
