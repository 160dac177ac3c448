"""Predictions of a finished run for a file of texts: rows in = rows out, in their order."""

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, TextIO

from datasets import Dataset

from nlptrain import processes
from nlptrain.data.cleaning import clean
from nlptrain.data.load import stream_rows
from nlptrain.errors import ConfigError, DataError, ResourceError
from nlptrain.inference import OpenRun
from nlptrain.outputs import OUTPUTS
from nlptrain.results import check_file
from nlptrain.run_folder import RunFolder

# of encoded rows and their logits: what else is said of each row; called by all processes
More = Callable[[Dataset, Any], Iterable[dict[str, Any]]]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def predict(opened: OpenRun, source: str, output: Path, more: More | None = None) -> dict[str, Any]:
    """Predict every row of `source` and write `output` (.csv or .jsonl) under its name only when it is whole.

    The file is read twice, first for what is wrong with it, and chunk by chunk, in memory that does not grow with it.
    A row holds the task's texts as they were given, then ``prediction`` and ``probability_<label>`` of each class, or
    ``score`` in the unit of the training scores, or ``tags``; and ``flag`` (truncated, empty, or nothing). Tokens and
    their tags are lists, in CSV with a space between two; a token that was cut off has the tag O. In CSV a text that a
    spreadsheet would run as a formula gets a leading apostrophe; JSONL is lossless. What `more` says of a row stands
    before its flag.

    Raises:
        ConfigError: the output cannot be written or is of another format.
        DataError: unreadable rows.
    """
    check_output(opened.folder, output, source)
    # what is wrong with the file is said now, not after hours of predictions
    sizes, notes = zip(*((len(rows), notes) for rows, notes in _chunks(opened, source)), strict=True)
    records = _records(opened, source, sum(sizes), more)
    if processes.is_main():
        write_records(output, records)
    else:
        deque(records, maxlen=0)
    processes.wait_for_all()
    done = {"task": opened.task.name, "backend": opened.backend, "source": source, "rows": sum(sizes)}
    return done | {"output": str(output), "notes": notes[0]}


def _chunks(opened: OpenRun, source: str) -> Iterator[tuple[Dataset, list[str]]]:
    return stream_rows(opened.task, source, opened.config.data)


def _records(opened: OpenRun, source: str, count: int, more: More | None) -> Iterator[dict[str, Any]]:
    """One for each of `count` rows, chunk by chunk; to be drawn on every process, as all take part."""
    kind, steps, done = OUTPUTS[opened.task.kind], opened.config.data.clean, 0
    for rows, _ in _chunks(opened, source):
        done += len(rows)
        encoded = opened.encode(rows)
        logits = opened.logits(encoded)
        extra = more(encoded, logits) if more else repeat({}, len(rows))
        columns = zip(*(rows[name][:] for name in opened.task.text), strict=True)
        answers = kind.answers(logits, opened.names)
        for texts, truncated, answer, added in zip(columns, encoded["truncated"][:], answers, extra, strict=True):
            shown = {name: kind.text(text) for name, text in zip(opened.task.text, texts, strict=True)}
            empty = not any(clean(text, steps).strip() for text in texts)
            yield shown | answer | added | {"flag": "empty" if empty else "truncated" if truncated else ""}
    if done != count:
        raise DataError("DATA_FILE", f"{source}: had {count} rows, then {done}; leave it alone while it is read")


def check_output(run: RunFolder, output: Path, source: str = "") -> None:
    """Raise `ConfigError` unless rows of `source` can be written to `output`, which is no file of the run's own."""
    check_file("--output", output, ".csv", ".jsonl")
    if run.owns(output):
        raise ConfigError("OUTPUT", f"--output: {output} belongs to the run itself; name a file outside of {run.path}")
    if source and output.resolve() == Path(source).resolve():
        raise ConfigError("OUTPUT", f"--output: {output} is the file to be predicted; name another one")


def write_records(output: Path, records: Iterator[dict[str, Any]]) -> None:
    """Write records to a .csv, with inert cells, or a .jsonl file, whole or not at all."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            if output.suffix == ".jsonl":
                file.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
            else:
                _write_csv(file, records)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        raise ResourceError("OUTPUT", f"{output}: cannot write predictions: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(file: TextIO, records: Iterator[dict[str, Any]]) -> None:
    plain, quoted = (csv.writer(file, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for number, record in enumerate(records):
        if number == 0:
            plain.writerow(record)
        cells = [_cell(value) for value in record.values()]
        # the module forgets that a reader takes a bare carriage return for the end of a row
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return _inert(" ".join(value))
    return _inert(value) if isinstance(value, str) else repr(value)


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
