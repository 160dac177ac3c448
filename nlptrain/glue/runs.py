"""The runs that a card is about: finished runs of GLUE tasks, by task and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlptrain.config import load as config_file
from nlptrain.config.changes import changes
from nlptrain.config.schema import Config
from nlptrain.errors import ModelError
from nlptrain.glue.benchmark import GLUE
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.tasks import TASKS


@dataclass(frozen=True)
class GlueRun:
    """One finished run of a GLUE task."""

    folder: RunFolder
    config: Config
    result: RunResult


Runs = dict[str, dict[int, GlueRun]]
"""Task to seed to run, in the order of the benchmark and of the seeds."""


def gather(paths: Sequence[Path]) -> tuple[Runs, list[str]]:
    """The runs at `paths`, and sentences that a reader of their scores should know.

    Args:
        paths: run folders, or folders with run folders anywhere below them.

    Raises:
        ModelError: no run of a GLUE task is finished, or two of one task have the same seed.
    """
    found: Runs = {name: {} for name in GLUE}
    notes = []
    for folder in dict.fromkeys(run for path in paths for run in _below(path)):
        config = config_file.load(folder.config)
        name = config.spec.name
        if name not in GLUE or config.spec != TASKS[name]:
            notes.append(f"{folder.path}: task {name!r} is not one of GLUE's by name; left out")
        elif not folder.results.is_file():
            notes.append(f"{folder.path}: not finished; left out")
        else:
            result = RunResult.read(folder.results)
            if other := found[name].get(result.seed):
                both = f"{other.folder.path} and {folder.path}"
                raise ModelError("GLUE", f"{both} are both of {name} with seed {result.seed}; name only one of them")
            found[name][result.seed] = GlueRun(folder, config, result)
    runs = {name: dict(sorted(seeds.items())) for name, seeds in found.items() if seeds}
    if not runs:
        problem = f"expected finished runs of {', '.join(GLUE)} in {', '.join(map(str, paths))}, found none"
        raise ModelError("GLUE", [problem, *notes])
    return runs, [*notes, *(note for seeds in runs.values() for note in _unlike(list(seeds.values())))]


def _below(path: Path) -> list[RunFolder]:
    if RunFolder(path).config.is_file():
        return [RunFolder(path)]
    return [RunFolder(config.parent) for config in sorted(path.rglob("config.yaml"))]


def _unlike(runs: Sequence[GlueRun]) -> list[str]:
    """What differs between runs of one task besides the seed."""
    first, *others = [run.config.model_dump(mode="json") for run in runs]
    lines = []
    for run, other in zip(runs[1:], others, strict=True):
        changed = [line.split(":")[0] for line in changes(first, other) if not line.startswith("training.seed:")]
        if changed:
            lines.append(f"{runs[0].folder.path} and {run.folder.path} differ in more than the seed: {changed[0]}")
    return lines
