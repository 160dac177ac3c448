"""The archive that the benchmark takes: a table of answers for every test split, made by the runs' own models."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain import processes
from nlptrain.config.schema import DataConfig
from nlptrain.data.load import unlabelled_rows
from nlptrain.data.sources import available
from nlptrain.errors import ConfigError, NlptrainError
from nlptrain.glue.benchmark import FILES, GLUE, TestFile
from nlptrain.glue.runs import GlueRun, Runs
from nlptrain.inference import OpenRun, open_run
from nlptrain.metrics.registry import METRICS
from nlptrain.results import check_file, write_bytes

# the first moment that an archive can hold: the same answers make the same bytes
_TIMELESS = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o644 << 16
_UNIX = 3


def check_output(output: Path) -> None:
    """Raise `ConfigError` where the archive cannot be written, before anything is predicted."""
    check_file("--submission", output, ".zip")


def submit(runs: Runs, output: Path) -> dict[str, Any]:
    """Predict the test rows of every task that has a run, and write the archive.

    Of several seeds the one with the best validation score answers. A file is a header ``index``, ``prediction`` and a
    line per row, numbered from 0 in the order of the source: names of the classes for MNLI, QNLI, RTE and AX, 0 or 1
    for the others, scores of STS-B clipped to their range.

    Returns:
        JSON-ready: ``output``, ``files`` (name to ``run`` and ``rows``), ``missing`` (name to reason), ``notes``.

    Raises:
        ConfigError: no file could be made; with the reason of each.
    """
    chosen = {name: best(name, list(seeds.values())) for name, seeds in runs.items()}
    opened: dict[str, OpenRun] = {}
    made, missing = {}, {}
    for file in FILES:
        try:
            made[file.name] = _answers(file, chosen, opened)
        except NlptrainError as error:
            missing[file.name] = str(error)
    if not made:
        reasons = [f"{name}: {reason}" for name, reason in missing.items()]
        raise ConfigError("GLUE", ["no file of the submission could be made", *reasons])
    if processes.is_main():
        write_bytes(output, archive(made))
    owners = {file.name: chosen[file.owner].folder.path for file in FILES if file.name in made}
    files = {name: {"run": str(owners[name]), "rows": len(made[name])} for name in made}
    return {"output": str(output), "files": files, "missing": missing, "notes": list(_notes(made, chosen))}


def best(name: str, runs: Sequence[GlueRun]) -> GlueRun:
    """The run with the best mean of the task's official validation scores; the first of equal ones."""

    def score(run: GlueRun) -> float:
        found = [(metric, run.result.metrics.get(split, {}).get(metric)) for split, metric in GLUE[name].measures]
        return mean(METRICS[metric].worst if value is None else value for metric, value in found)

    return max(runs, key=score)


def written(outputs: NDArray[Any], names: Sequence[str], label_range: tuple[float, float] | None) -> list[str]:
    """Outputs as the benchmark wants them written.

    Args:
        outputs: logits (n, classes), or scores (n, 1).
        names: of the classes; none: their numbers are written.
        label_range: of a regression, to which scores are clipped.
    """
    if label_range is not None:
        return [f"{score:.3f}" for score in np.clip(outputs[:, 0], *label_range) + 0.0]  # -0.0 becomes 0.0
    return [names[number] if names else str(number) for number in outputs.argmax(axis=1).tolist()]


def archive(files: dict[str, list[str]]) -> bytes:
    """A zip of a table per file name, the same bytes for the same answers."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as target:
        for name, answers in files.items():
            entry = zipfile.ZipInfo(name, _TIMELESS)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, _UNIX, _PLAIN_FILE
            table = "".join(f"{index}\t{answer}\n" for index, answer in enumerate(answers))
            target.writestr(entry, f"index\tprediction\n{table}")
    return memory.getvalue()


def _answers(file: TestFile, chosen: dict[str, GlueRun], opened: dict[str, OpenRun]) -> list[str]:
    if file.owner not in chosen:
        raise ConfigError("GLUE", f"no run of {file.owner}")
    run = chosen[file.owner]
    own = file.task.name == file.owner
    source = available(file.task, run.config.data if own else DataConfig()).get(file.split)
    if source is None:
        raise ConfigError("DATA_SOURCE", f"no {file.split} rows of {file.task.name} where the run has its data")
    if file.owner not in opened:
        opened[file.owner] = open_run(run.folder)
    model = opened[file.owner]
    rows, _ = unlabelled_rows(file.task, source, run.config.data)
    return written(model.logits(model.encode(rows)), model.names if file.by_name else (), file.task.label_range)


def _notes(made: dict[str, list[str]], chosen: dict[str, GlueRun]) -> Iterator[str]:
    for file in FILES:
        if file.name not in made:
            continue
        if len(made[file.name]) != file.rows:
            yield f"{file.name}: {len(made[file.name])} rows, the benchmark expects {file.rows}"
        if file.task.name == file.owner and file.split in chosen[file.owner].result.metrics:
            yield f"{file.name}: its rows are labelled, so their order may not be the benchmark's"
