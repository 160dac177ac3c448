"""What a grid says, as pure functions of the results and predictions of its cells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from nlptrain.comparison import check_same_rows, differences
from nlptrain.config.grid import Cell, Grid
from nlptrain.errors import DataError
from nlptrain.grid import cells as grid_cells
from nlptrain.metrics.registry import METRICS
from nlptrain.predictions import Predictions
from nlptrain.results import RunResult, write_json, write_text
from nlptrain.run_folder import RunFolder
from nlptrain.score_lines import shown

# what should be the same in all cells
CONDITIONS = ("python", "platform", "cpus", "processes", "packages", "commit")
METHOD = (
    "difference: to the first variant, paired by seed and row, with a 95 % interval: Student's t, variance over rows "
    "(paired bootstrap, 2000 resamples) plus variance over seeds (with one seed: bootstrap over rows, of that seed "
    "alone); time: median over seeds of the ratio of training seconds to the first variant; texts/s and tokens/s: "
    "median, evaluations while training counted in. Intervals are not corrected for the number of variants."
)


@dataclass(frozen=True)
class _Run:
    folder: RunFolder
    result: RunResult

    def predictions(self, split: str) -> Predictions:
        return Predictions.read(self.folder.predictions(split))


Runs = dict[int, _Run]


def tables(grid: Grid) -> dict[str, Any]:
    """A row for every task, scored split and variant, JSON-ready.

    Returns:
        ``rows``: task, split, variant, metric (the task's primary one), n, seeds, values, mean, sd (divisor seeds - 1),
        median (an undefined value counts as worst), difference (None for the first variant; else value, low, high,
        by_seed, better: whether the interval excludes 0 and for whom, reason where there is none), collapsed (seed to
        reason), seconds (median of training), time_ratio, texts_per_second, tokens_per_second (medians).
        ``method``: of the differences. ``missing``: cells without a result, by name, failed or not run. ``notes``.
    """
    left = [cell for cell in grid.cells if not grid_cells.is_done(cell)]
    missing = {cell.name: "failed" if grid_cells.has_failed(cell) else "not run" for cell in left}
    runs = {(cell.task, cell.variant, cell.seed): _opened(cell) for cell in grid.cells if cell not in left}
    rows = [row for task in dict.fromkeys(c.task for c in grid.cells) for row in _task_rows(grid, task, runs)]
    return {"rows": rows, "method": METHOD, "missing": missing, "notes": _notes([run.result for run in runs.values()])}


def _opened(cell: Cell) -> _Run:
    folder = RunFolder(cell.folder)
    return _Run(folder, RunResult.read(folder.results))


def _task_rows(grid: Grid, task: str, runs: dict[tuple[str, str, int], _Run]) -> Iterator[dict[str, Any]]:
    mine = [cell for cell in grid.cells if cell.task == task]
    metric = mine[0].config.spec.primary
    by_variant: dict[str, Runs] = {cell.variant: {} for cell in mine}
    for (owner, variant, seed), run in runs.items():
        if owner == task:
            by_variant[variant][seed] = run
    first = next(iter(by_variant))
    splits = dict.fromkeys(s for found in by_variant.values() for run in found.values() for s in run.result.metrics)
    for split in splits:
        for variant, found in by_variant.items():
            if found:
                names = {"task": task, "split": split, "variant": variant, "metric": metric}
                baseline = by_variant[first] if variant != first else {}
                yield names | _scores(found, split, metric) | _against(found, baseline, split, metric) | _speed(found)


def _scores(runs: Runs, split: str, metric: str) -> dict[str, Any]:
    results = {seed: run.result for seed, run in runs.items()}
    values = [result.metrics[split][metric] for result in results.values()]
    defined = [value for value in values if value is not None]
    whole = len(defined) == len(values)
    return {
        "n": next(iter(results.values())).rows[split],
        "seeds": list(results),
        "values": values,
        "mean": mean(defined) if whole else None,
        "sd": stdev(defined) if whole and len(defined) > 1 else None,
        "median": median(METRICS[metric].worst if value is None else value for value in values),
        "collapsed": {str(seed): r.collapsed[split] for seed, r in results.items() if split in r.collapsed},
    }


def _against(runs: Runs, baseline: Runs, split: str, metric: str) -> dict[str, Any]:
    """Difference and ratio of time to the first variant, over the seeds that both have."""
    seeds = [seed for seed in runs if seed in baseline]
    if not seeds:
        return {"difference": None, "time_ratio": None}
    ratios = [_seconds(runs[seed]) / _seconds(baseline[seed]) for seed in seeds]
    return {"difference": _difference(runs, baseline, seeds, split, metric), "time_ratio": median(ratios)}


def _difference(runs: Runs, baseline: Runs, seeds: Sequence[int], split: str, metric: str) -> dict[str, Any]:
    ours, theirs = ({seed: side[seed].predictions(split) for seed in seeds} for side in (runs, baseline))
    try:
        for seed in seeds:
            check_same_rows(theirs[seed], ours[seed], ("the first variant", "this one"))
    except DataError as error:
        return {"value": None, "low": None, "high": None, "by_seed": [], "better": None, "reason": str(error)}
    kind = runs[seeds[0]].result.kind
    (found,) = differences(kind, theirs, ours, metrics=[metric])
    better = {"a": "first", "b": "this", None: None}[found.shown_better]
    kept = {name: getattr(found, name) for name in ("value", "low", "high", "by_seed", "reason")}
    return kept | {"better": better}


def _speed(runs: Runs) -> dict[str, float]:
    training = [run.result.training for run in runs.values()]
    return {
        "seconds": median(map(_seconds, runs.values())),
        "texts_per_second": median(one["texts_per_second"] for one in training),
        "tokens_per_second": median(map(_tokens_per_second, runs.values())),
    }


def _seconds(run: _Run) -> float:
    return float(run.result.training["seconds"])


def _tokens_per_second(run: _Run) -> float:
    """Tokens of the texts; padding is not counted."""
    tokens = run.result.data["tokens"]["train"]["tokens"]
    return float(tokens * run.result.training["epochs"] / _seconds(run))


def _notes(results: Sequence[RunResult]) -> list[str]:
    """What differs between the cells although it should not."""
    notes = []
    found = {name: [result.environment.get(name) for result in results] for name in CONDITIONS}
    found["bf16"] = [result.training["bf16"] for result in results]
    for name, values in found.items():
        different = sorted({str(value) for value in values})
        if len(different) > 1:
            notes.append(f"cells differ in {name}: {' | '.join(different)}; times, and perhaps scores, do not compare")
    return notes


def write(folder: Path, found: dict[str, Any]) -> None:
    """Write table.json and table.md."""
    write_json(folder / "table.json", found)
    write_text(folder / "table.md", "\n".join(markdown(found)) + "\n")


def markdown(found: dict[str, Any]) -> list[str]:
    """The tables as lines of Markdown, one for every task and split, and of several tasks one over all."""
    lines: list[str] = []
    for task, split in dict.fromkeys((row["task"], row["split"]) for row in found["rows"]):
        rows = [row for row in found["rows"] if (row["task"], row["split"]) == (task, split)]
        direction = "higher" if METRICS[rows[0]["metric"]].greater_is_better else "lower"
        lines += [f"{task}, {split}, n = {rows[0]['n']}, {rows[0]['metric']} ({direction} is better)", ""]
        lines += ["| variant | seeds | mean | sd | median | difference | time | texts/s | tokens/s | collapsed |"]
        lines += ["|---|---|---|---|---|---|---|---|---|---|", *map(_line, rows), ""]
    lines += _overview(found["rows"])
    lines.append(found["method"])
    lines += ["", *found["notes"]] if found["notes"] else []
    return lines + (["", *(f"{n}: {why}" for n, why in found["missing"].items())] if found["missing"] else [])


def _overview(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every variant: its difference on the last split of every task, and the median of its times."""
    splits = {row["task"]: row["split"] for row in rows}
    if len(splits) < 2:
        return []
    chosen = {(row["variant"], row["task"]): row for row in rows if splits[row["task"]] == row["split"]}
    metrics = {task: row["metric"] for (_, task), row in chosen.items()}
    heads = [f"{task}, {split} {metrics[task]}" for task, split in splits.items()]
    lines = [f"| {' | '.join(['variant', *heads, 'time'])} |", "|---" * (len(heads) + 2) + "|"]
    for variant in dict.fromkeys(variant for variant, _ in chosen):
        found = [chosen.get((variant, task)) for task in splits]
        times = [row["time_ratio"] for row in found if row and row["time_ratio"] is not None]
        cells = [_overview_cell(row) for row in found]
        lines.append(f"| {' | '.join([variant, *cells, shown(median(times), 2) if times else ''])} |")
    return [*lines, ""]


def _overview_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return _shown_difference(row["difference"]) if row["difference"] else f"mean {shown(row['mean'])}"


def _line(row: dict[str, Any]) -> str:
    sd = "" if row["sd"] is None else shown(row["sd"])
    scores = [shown(row["mean"]), sd, shown(row["median"]), _shown_difference(row["difference"])]
    time = "" if row["time_ratio"] is None else shown(row["time_ratio"], 2)
    speed = [time, shown(row["texts_per_second"], 0), shown(row["tokens_per_second"], 0)]
    collapsed = f"{len(row['collapsed'])} of {len(row['seeds'])}" if row["collapsed"] else ""
    return f"| {' | '.join([row['variant'], str(len(row['seeds'])), *scores, *speed, collapsed])} |"


def _shown_difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return str(found["reason"])
    verdict = {"this": ", better", "first": ", worse", None: ""}[found["better"]]
    return f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]{verdict}"
