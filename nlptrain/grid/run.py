"""The stages of `nlptrain grid`: all cells by workers, or some of them as a job of a launcher."""

import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from nlptrain.config.grid import Cell, Grid
from nlptrain.errors import ConfigError, NlptrainError
from nlptrain.grid import cells as grid_cells
from nlptrain.grid import table, workers
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.score_lines import shown

logger = logging.getLogger(__name__)
LOGS = "logs"


def run_all(grid: Grid, *, jobs: int) -> dict[str, Any]:
    """Run every cell that is not finished, and write the tables.

    Returns:
        The tables, see `nlptrain.grid.table`.

    Raises:
        ConfigError: a finished cell was made with other settings.
        NlptrainError: cells failed; the others are finished and the tables written. Exit code: that of the first.
    """
    todo = grid_cells.unfinished(grid.cells)
    begun, total, done = perf_counter(), len(grid.cells), len(grid.cells) - len(todo)
    logger.info("%d cells, %d finished before", total, done)
    for ended, cell in enumerate(
        workers.run(todo, grid.output / LOGS, jobs=jobs, keep_models=grid.settings.keep_models), start=1
    ):
        left = (perf_counter() - begun) / ended * (len(todo) - ended) / 60
        logger.info("%d/%d  %s  %s  (%.0f min left)", done + ended, total, cell.name, outcome(cell), left)
    found = table.tables(grid)
    table.write(grid.output, found)
    refuse_failed(grid.cells, hint=f"; the tables of the others are in {grid.output}")
    return found


def run_some(grid: Grid, numbers: Sequence[int]) -> dict[str, Any]:
    """Run the cells with these numbers, counted from 1, in this process or in those of a launcher.

    Returns:
        ``cells``: name to state.

    Raises:
        ConfigError: there is no such cell, or a finished one was made with other settings.
        NlptrainError: cells failed.
    """
    if wrong := [number for number in numbers if not 1 <= number <= len(grid.cells)]:
        raise ConfigError("GRID", f"expected a cell from 1 to {len(grid.cells)}, found {wrong[0]}")
    chosen = [grid.cells[number - 1] for number in numbers]
    for cell in grid_cells.unfinished(chosen):
        failure = grid_cells.run(cell, keep_models=grid.settings.keep_models)
        if failure:
            raise failure
    return {"cells": {cell.name: grid_cells.record(cell)["state"] for cell in chosen}}


def shard(text: str, cells: int) -> list[int]:
    """Numbers of the cells of one of n jobs: ``i/n``, i from 1 to n.

    Raises:
        ConfigError: anything else.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError("USAGE", f"--shard: expected i/n with i from 1 to n, found {text!r}; e.g. 1/4")
    return list(range(int(part), cells + 1, int(parts)))


def refuse_failed(cells: Sequence[Cell], hint: str = "") -> None:
    """Raise one error with a line for every cell that failed."""
    failed = {cell.name: grid_cells.record(cell)["error"] for cell in cells if grid_cells.has_failed(cell)}
    if failed:
        lines = [f"{name}: {error['code']}: {error['message'].splitlines()[0]}" for name, error in failed.items()]
        problem = NlptrainError("GRID", [f"{len(failed)} of {len(cells)} cells failed{hint}", *lines])
        problem.exit_code = next(iter(failed.values()))["exit_code"]
        raise problem


def outcome(cell: Cell) -> str:
    """One line about a cell that ended."""
    if grid_cells.has_failed(cell):
        error = grid_cells.record(cell)["error"]
        return f"failed: {error['code']}: {error['message'].splitlines()[0]}"
    result, name = RunResult.read(RunFolder(cell.folder).results), cell.config.spec.primary
    values = [f"{split} {name} {shown(row[name])}" for split, row in result.metrics.items()]
    return f"{'  '.join(values)}  {sum(result.seconds.values()):.0f} s"
