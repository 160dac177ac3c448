"""The stage of `nlptrain compare`: runs, or folders of one run per seed, against the first one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nlptrain.comparison import Difference, check_same_rows, differences, mcnemar, seed_test
from nlptrain.config import load as config_file
from nlptrain.errors import ConfigError, ModelError
from nlptrain.metrics.registry import spec
from nlptrain.predictions import Predictions
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.tasks import TaskSpec


@dataclass(frozen=True)
class Runs:
    """Runs of one way of training.

    Attributes:
        path: the run folder, or the folder of run folders.
        task: what they were trained for.
        folders: seed to run folder.
        results: seed to record.
        unfinished: names of run folders without a record.
    """

    path: Path
    task: TaskSpec
    folders: dict[int, RunFolder]
    results: dict[int, RunResult]
    unfinished: list[str]

    @classmethod
    def open(cls, path: Path) -> "Runs":
        """The run at `path`, or all runs in the folder `path`.

        Raises:
            ModelError: there is no finished run, two have one seed, or they are of different tasks.
        """
        found = [RunFolder(path)]
        if not found[0].config.is_file():
            found = [RunFolder(one.parent) for one in sorted(path.glob("*/config.yaml"))]
        finished = [run for run in found if run.results.is_file()]
        if not finished:
            raise ModelError("RUN", f"{path}: expected a finished run, or a folder of one finished run per seed")
        records = [RunResult.read(run.results) for run in finished]
        folders = {record.seed: run for record, run in zip(records, finished, strict=True)}
        tasks = {record.task for record in records}
        if len(folders) < len(finished) or len(tasks) > 1:
            seeds = [record.seed for record in records]
            problem = f"{path}: expected runs of one task with different seeds"
            raise ModelError("RUN", f"{problem}, found seeds {seeds} of {', '.join(sorted(tasks))}")
        task = config_file.load(finished[0].config).spec
        unfinished = [run.path.name for run in found if run not in finished]
        return cls(path, task, folders, {record.seed: record for record in records}, unfinished)

    def predictions(self, split: str) -> dict[int, Predictions]:
        """Seed to the predictions of `split`."""
        return {seed: Predictions.read(run.predictions(split)) for seed, run in self.folders.items()}

    @property
    def splits(self) -> list[str]:
        """Scored by every run."""
        return [
            s for s in next(iter(self.results.values())).metrics if all(s in r.metrics for r in self.results.values())
        ]


def compare(paths: Sequence[Path], split: str | None = None) -> dict[str, Any]:
    """Compare every other run with the first.

    Args:
        paths: two or more; run folders, or folders of one run per seed.
        split: on which rows; None: test where all have it, else validation.

    Returns:
        JSON-ready: ``split``, ``task``, ``metric`` (the primary one), ``comparisons`` (``a``, ``b``, ``differences``,
        ``mcnemar`` by seed, ``seed_test``, ``collapsed``, ``verdict``) and ``notes``.

    Raises:
        DataError: the rows are not the same.
        ModelError: not finished, or of different tasks or classes.
        ConfigError: fewer than two paths, or a split that one of them has not scored.
    """
    if len(paths) < 2:
        raise ConfigError("USAGE", "expected two runs or more; e.g. nlptrain compare runs/a runs/b")
    first, *others = [Runs.open(path) for path in paths]
    chosen = _split([first, *others], split)
    notes = [
        f"{runs.path}: not finished, left out: {', '.join(runs.unfinished)}"
        for runs in (first, *others)
        if runs.unfinished
    ]
    if len(others) > 1:
        notes.append(f"{len(others)} comparisons: each interval is of its own, and one in twenty misses by chance")
    comparisons = [_against(first, other, chosen, notes) for other in others]
    metric = first.task.primary
    return {"split": chosen, "task": first.task.name, "metric": metric, "comparisons": comparisons, "notes": notes}


def _split(all_runs: list[Runs], split: str | None) -> str:
    common = [name for name in all_runs[0].splits if all(name in runs.splits for runs in all_runs)]
    chosen = split or ("test" if "test" in common else next(iter(common), None))
    if chosen not in common:
        raise ConfigError("USAGE", f"--split: expected one of {', '.join(common) or 'none'}, found {chosen!r}")
    return str(chosen)


def _against(a: Runs, b: Runs, split: str, notes: list[str]) -> dict[str, Any]:
    _check_same_task(a, b)
    ours, theirs = _paired(a, b, split, notes)
    for seed in ours:
        check_same_rows(ours[seed], theirs[seed], (str(a.path), str(b.path)))
    found = differences(a.task.kind, ours, theirs)
    primary = next(one for one in found if one.metric == a.task.primary)
    classification = a.task.kind == "classification"
    flags = {str(r.path): {s: x.collapsed[split] for s, x in r.results.items() if split in x.collapsed} for r in (a, b)}
    return {
        "a": str(a.path),
        "b": str(b.path),
        "differences": [asdict(one) for one in found],
        "mcnemar": {seed: mcnemar(ours[seed], theirs[seed]) for seed in ours} if classification else {},
        "seed_test": seed_test(primary.by_seed),
        "collapsed": {path: seeds for path, seeds in flags.items() if seeds},
        "verdict": verdict(primary, str(a.path), str(b.path)),
    }


def _check_same_task(a: Runs, b: Runs) -> None:
    def facts(runs: Runs) -> tuple[str, str, object]:
        return runs.task.name, runs.task.primary, next(iter(runs.results.values())).model.get("labels")

    if facts(a) != facts(b):
        raise ModelError("COMPARE", f"expected one task, found {facts(a)} in {a.path} and {facts(b)} in {b.path}")


def _paired(a: Runs, b: Runs, split: str, notes: list[str]) -> tuple[dict[int, Predictions], dict[int, Predictions]]:
    """Predictions of the seeds that both have; of one run each, whatever their seeds."""
    ours, theirs = a.predictions(split), b.predictions(split)
    if len(ours) == len(theirs) == 1:
        seed = next(iter(ours))
        return ours, {seed: next(iter(theirs.values()))}
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        problem = f"no seed in common: {sorted(ours)} in {a.path}, {sorted(theirs)} in {b.path}"
        raise ModelError("COMPARE", f"{problem}; train one of them with the seeds of the other")
    if left := sorted((ours.keys() | theirs.keys()) - set(common)):
        notes.append(f"{b.path}: without seeds {left}, which only one side has")
    return {seed: ours[seed] for seed in common}, {seed: theirs[seed] for seed in common}


def verdict(found: Difference, a: str, b: str) -> str:
    """The primary difference as one sentence."""
    of = f"{found.rows} rows, {'one seed' if len(found.seeds) == 1 else f'{len(found.seeds)} seeds'}"
    if found.value is None or found.low is None or found.high is None:
        sides = {a: found.a, b: found.b}
        broken = [path for path, value in sides.items() if value is None]
        if len(broken) == 1:
            other = b if broken[0] == a else a
            return f"{other} is better: {found.metric} of {broken[0]} is {found.reason}, which counts as worst ({of})"
        return f"no difference shown: {found.metric} is {found.reason} ({of})"
    numbers = f"{found.metric} of {b} is {abs(found.value):.4f} {'higher' if found.value > 0 else 'lower'}"
    numbers += f" (95 % interval of the difference {found.low:+.4f} to {found.high:+.4f}; {of})"
    if found.shown_better is None:
        return f"no difference shown: {numbers}"
    direction = "" if spec(found.metric).greater_is_better else ", and lower is better"
    return f"{b if found.shown_better == 'b' else a} is better: {numbers}{direction}"
