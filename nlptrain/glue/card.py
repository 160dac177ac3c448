"""The nine tasks' table as a pure function of finished runs."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from nlptrain.glue.benchmark import GLUE, average
from nlptrain.glue.references import REFERENCES
from nlptrain.glue.runs import GlueRun, Runs
from nlptrain.metrics.registry import METRICS
from nlptrain.score_lines import shown

PERCENT = 100
METHOD = (
    "All values times 100. Ours: the validation rows, which also chose the checkpoint; of several seeds the median, an "
    "undefined value counted as the worst. A task's score is the mean of its metrics, the average that of nine tasks."
)


def card(runs: Runs, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The card of `runs`, JSON-ready.

    Args:
        runs: see `nlptrain.glue.runs.gather`.
        notes: what else a reader should know.

    Returns:
        ``rows``: task, title, split, metric, n, seeds, values, median, low and high (of several seeds the smallest and
        the largest value, of one its 95 % interval), collapsed (seed to reason) and references (name to value) of every
        official metric; without a run the first four and the references, the others empty or None. ``average`` (None
        unless all nine tasks are there), ``missing`` (tasks without a run), ``references`` (name, split, protocol,
        source, average), ``method``, ``notes``. Values are times 100.
    """
    rows = [row for name in GLUE for row in _rows(name, runs.get(name, {}))]
    return {
        "rows": rows,
        "average": _average(rows),
        "missing": [name for name in GLUE if name not in runs],
        "references": [
            {
                "name": one.name,
                "split": one.split,
                "protocol": one.protocol,
                "source": one.source,
                "average": one.average,
            }
            for one in REFERENCES
        ],
        "method": METHOD,
        "notes": [*notes, *_other_rows(runs)],
    }


def _rows(name: str, runs: dict[int, GlueRun]) -> Iterator[dict[str, Any]]:
    for place, (split, metric) in enumerate(GLUE[name].measures):
        scored = {seed: run for seed, run in runs.items() if split in run.result.metrics}
        references = {one.name: one.values[name][place] if name in one.values else None for one in REFERENCES}
        row = {"task": name, "title": GLUE[name].title, "split": split, "metric": metric}
        yield row | _scores(scored, split, metric) | {"references": references}


def _scores(runs: dict[int, GlueRun], split: str, metric: str) -> dict[str, Any]:
    results = {seed: run.result for seed, run in runs.items()}
    values = [result.metrics[split][metric] for result in results.values()]
    counted = [METRICS[metric].worst if value is None else value for value in values]
    low, high = (min(counted), max(counted)) if len(counted) > 1 else (None, None)
    if len(counted) == 1 and (ends := next(iter(results.values())).intervals.get(split, {}).get(metric)):
        low, high = ends.low, ends.high
    return {
        "n": next((result.rows[split] for result in results.values()), None),
        "seeds": list(results),
        "values": [_percent(value) for value in values],
        "median": _percent(median(counted)) if any(value is not None for value in values) else None,
        "low": _percent(low),
        "high": _percent(high),
        "collapsed": {str(seed): found.collapsed[split] for seed, found in results.items() if split in found.collapsed},
    }


def _percent(value: float | None) -> float | None:
    return None if value is None else PERCENT * value


def _average(rows: Sequence[dict[str, Any]]) -> float | None:
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["median"] is None:
            return None
        scores.setdefault(row["task"], []).append(row["median"])
    return average(scores)


def _other_rows(runs: Runs) -> Iterator[str]:
    """Validation rows that are not the benchmark's, so that the published figures are of others."""
    for name, seeds in runs.items():
        for split, expected in GLUE[name].validation.items():
            sizes = {run.result.rows[split] for run in seeds.values() if split in run.result.rows}
            held_out = any(run.result.data.get("validation_from_train") for run in seeds.values())
            if sizes - {expected} or held_out:
                found = "held-out training rows" if held_out else f"{', '.join(map(str, sizes))} rows"
                yield f"{name}, {split}: scored on {found}, not on the benchmark's {expected}, figures do not compare"


def markdown(found: dict[str, Any]) -> list[str]:
    """The card as lines of Markdown."""
    names = [one["name"] for one in found["references"]]
    lines = [f"| task | metric | n | ours | 95 % interval, or range of seeds | {' | '.join(names)} |"]
    lines += [f"|{'---|' * (5 + len(names))}", *(_line(row, names) for row in found["rows"])]
    published = [_shown(one["average"]) for one in found["references"]]
    lines += [f"| average | of nine tasks | | {_shown(found['average'])} | | {' | '.join(published)} |", ""]
    lines += [found["method"], ""]
    lines += [f"{one['name']}: {one['protocol']}. {one['source']}." for one in found["references"]]
    flags = [
        f"{row['task']}, {row['split']}, seed {seed}: collapsed: {reason}"
        for row in found["rows"]
        for seed, reason in row["collapsed"].items()
    ]
    missing = [f"no run of {', '.join(found['missing'])}"] if found["missing"] else []
    extra = list(dict.fromkeys([*missing, *flags, *found["notes"]]))
    return [*lines, "", *extra] if extra else lines


def _line(row: dict[str, Any], names: Sequence[str]) -> str:
    metric = row["metric"] + (" (mismatched)" if row["split"].endswith("mismatched") else "")
    ours = shown(row["median"], 1) if row["seeds"] else "missing"
    between = ""
    if row["low"] is not None:
        ends = f"{row['low']:.1f}", f"{row['high']:.1f}"
        between = (
            f"[{', '.join(ends)}]" if len(row["seeds"]) == 1 else f"{' to '.join(ends)}, {len(row['seeds'])} seeds"
        )
    cells = [row["title"], metric, str(row["n"] or ""), ours, between]
    return f"| {' | '.join([*cells, *(_shown(row['references'][name]) for name in names)])} |"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
