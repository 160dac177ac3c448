"""Training rows ranked by how little the head fitted without them believes their labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlptrain import processes
from nlptrain.config import load as config_file
from nlptrain.errors import ConfigError
from nlptrain.head.refit import Method, Rows, refit
from nlptrain.inference import open_run
from nlptrain.predict import check_output, write_records
from nlptrain.refine import posterior, suspects
from nlptrain.refine_command import run_rows
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.run_head import RunHead


def find_suspects(path: Path, output: Path, share: float = 0.1) -> dict[str, Any]:
    """Write the least plausible training rows of a finished run, the worst first.

    A linear head is fitted on what the run's encoder makes of its training rows, with the strength of the penalty
    chosen by leave-one-out; each row is judged by the head fitted without it (see `nlptrain.refine.leave_one_out`).

    Args:
        path: the run folder.
        output: a .csv or .jsonl file: ``rank``, ``line`` in the source, the texts, ``label``, ``loss`` (nats, or
            squared error over the variance of the scores) without the row, and ``gain``, by how much the row
            has lowered it by being there.
        share: of the training rows, in (0, 1].

    Returns:
        JSON-ready: ``rows`` (that were ranked), ``written``, ``output``, ``l2``.

    Raises:
        ConfigError: the output cannot be written, or a share out of range.
        DataError: the rows are no longer those of the training.
        ModelError: the run is not finished, or its model has no linear layer at its end.
    """
    folder = RunFolder(path)
    check_output(folder, output)
    if not 0 < share <= 1:
        raise ConfigError("USAGE", f"--share: expected a number above 0 and at most 1, found {share}")
    folder.check_finished()
    config, result = config_file.load(folder.config), RunResult.read(folder.results)
    texts = run_rows(config, result, path).rows["train"]
    run = RunHead(folder, open_run(folder), "last")
    rows = run.rows("train_last", texts)
    loss, gain, l2 = _left_out(run, rows)
    order = suspects(loss, max(1, round(share * len(loss))))
    names = run.opened.names
    if processes.is_main():
        write_records(output, _records(order, loss, gain, texts, run.opened.task.text, names))
    processes.wait_for_all()
    return {"rows": len(loss), "written": len(order), "output": str(output), "l2": l2}


def _left_out(run: RunHead, rows: Rows) -> tuple[Any, Any, float]:
    """Of every row, on all processes: the loss without it and the gain; and the strength of the penalty."""
    refined = refit(run.place, rows, run.serving, run.place.read(), Method())
    x, y = rows.features.x, rows.features.of(run.serving.targets(rows.targets))
    found = posterior(refined, x, y).left_out(x, y)
    loss, gain = (rows.features.whole(values) for values in (found.loss, found.gain))
    return loss, gain, refined.certificate.l2


def _records(order: Any, loss: Any, gain: Any, texts: Any, columns: Any, names: Any) -> Iterator[dict[str, Any]]:
    for rank, number in enumerate(np.asarray(order).tolist(), start=1):
        row = texts[number]
        label = names[row["label"]] if names else row["label"]
        yield {"rank": rank, "line": row["line"], **{name: row[name] for name in columns}, "label": label} | {
            "loss": float(loss[number]),
            "gain": float(gain[number]),
        }
