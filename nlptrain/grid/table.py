"""What a grid says, as pure functions of the results of its cells."""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from nlptrain.config.grid import Cell, Grid
from nlptrain.grid import cells as grid_cells
from nlptrain.metrics.registry import METRICS
from nlptrain.results import RunResult, write_json, write_text
from nlptrain.run_folder import RunFolder
from nlptrain.score_lines import shown

Results = dict[int, RunResult]


def tables(grid: Grid) -> dict[str, Any]:
    """A row for every task, scored split and variant, JSON-ready.

    Returns:
        ``rows``: task, split, variant, metric, n, seeds, values, mean, sd (divisor seeds - 1), median, seconds (median
        of training), time_ratio (median over seeds of the ratio to the first variant), texts_per_second,
        tokens_per_second. ``missing``: cells without a result, by name, with the reason.
    """
    missing = {
        cell.name: "failed" if grid_cells.has_failed(cell) else "not run"
        for cell in grid.cells
        if not grid_cells.is_done(cell)
    }
    rows = [row for task in grid.settings.base for row in _task_rows(grid, task)]
    return {"rows": rows, "missing": missing}


def _task_rows(grid: Grid, task: str) -> Iterator[dict[str, Any]]:
    found = {name: _results(grid, task, name) for name in grid.settings.variants}
    first = next(iter(found))
    metric = next(cell.config.spec.primary for cell in grid.cells if cell.task == task)
    for split in dict.fromkeys(s for runs in found.values() for run in runs.values() for s in run.metrics):
        for variant, runs in found.items():
            if runs:
                yield {"task": task, "split": split, "variant": variant, "metric": metric} | _row(
                    runs, found[first], split, metric
                )


def _results(grid: Grid, task: str, variant: str) -> Results:
    chosen: list[Cell] = [c for c in grid.cells if (c.task, c.variant) == (task, variant) and grid_cells.is_done(c)]
    return {cell.seed: RunResult.read(RunFolder(cell.folder).results) for cell in chosen}


def _row(runs: Results, baseline: Results, split: str, metric: str) -> dict[str, Any]:
    values = [run.metrics[split][metric] for run in runs.values()]
    defined = [value for value in values if value is not None]
    whole = len(defined) == len(values)
    spec = METRICS[metric]
    ratios = [runs[seed].training["seconds"] / baseline[seed].training["seconds"] for seed in runs if seed in baseline]
    return {
        "n": next(iter(runs.values())).rows[split],
        "seeds": list(runs),
        "values": values,
        "mean": mean(defined) if whole else None,
        "sd": stdev(defined) if whole and len(defined) > 1 else None,
        "median": median(spec.worst if value is None else value for value in values),
        "seconds": median(run.training["seconds"] for run in runs.values()),
        "time_ratio": median(ratios) if ratios else None,
        "texts_per_second": median(run.training["texts_per_second"] for run in runs.values()),
        "tokens_per_second": median(map(_tokens_per_second, runs.values())),
    }


def _tokens_per_second(run: RunResult) -> float:
    """Tokens of the texts, padding not counted."""
    return float(run.data["tokens"]["train"]["tokens"] * run.training["epochs"] / run.training["seconds"])


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write table.json and table.md."""
    write_json(folder / "table.json", found)
    write_text(folder / "table.md", "\n".join(markdown(found)) + "\n")


def markdown(found: dict[str, Any]) -> list[str]:
    """The tables as lines of Markdown, one table for every task and split."""
    lines: list[str] = []
    for task, split in dict.fromkeys((row["task"], row["split"]) for row in found["rows"]):
        rows = [row for row in found["rows"] if (row["task"], row["split"]) == (task, split)]
        lines += ["", f"{task}, {split}, n = {rows[0]['n']}, {rows[0]['metric']}", ""]
        lines += [
            "| variant | seeds | mean | sd | median | time | texts/s | tokens/s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += map(_line, rows)
    lines += ["", *(f"{name}: {reason}" for name, reason in found["missing"].items())] if found["missing"] else []
    return lines[1:]


def _line(row: dict[str, Any]) -> str:
    numbers = [shown(row[name]) for name in ("mean", "sd", "median")]
    speed = [shown(row["time_ratio"], 2), shown(row["texts_per_second"], 0), shown(row["tokens_per_second"], 0)]
    return f"| {' | '.join([row['variant'], str(len(row['seeds'])), *numbers, *speed])} |"
