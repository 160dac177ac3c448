"""Predictions of a finished run for a file of texts: rows in = rows out, in their order."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import softmax

from nlptrain import processes
from nlptrain.data.cleaning import clean
from nlptrain.data.load import load_rows
from nlptrain.errors import ConfigError, ResourceError
from nlptrain.inference import OpenRun

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def predict(opened: OpenRun, source: str, output: Path) -> dict[str, Any]:
    """Predict every row of `source` and write `output` (.csv or .jsonl) under its name only when it is whole.

    A row holds the task's texts as they were given, then ``prediction`` and ``probability_<label>`` of each class, or
    ``score`` in the unit of the training scores, and ``flag`` (truncated, empty, or nothing). In CSV a text that a
    spreadsheet would run as a formula gets a leading apostrophe; JSONL is lossless.

    Raises:
        ConfigError: the output cannot be written or is of another format.
        DataError: unreadable rows.
    """
    _check_output(output, source)
    rows, notes = load_rows(opened.task, source, opened.config.data, opened.labels, need_labels=False)
    encoded = opened.encode(rows)
    logits = opened.logits(encoded)
    if processes.is_main():
        names = opened.labels.names if opened.labels else None
        texts, steps = rows.select_columns(list(opened.task.text)), opened.config.data.clean
        _write(output, _records(texts, steps, encoded, logits, names))
    processes.wait_for_all()
    return {"task": opened.task.name, "source": source, "rows": len(rows), "output": str(output), "notes": notes}


def _records(
    rows: Dataset, steps: Sequence[str], encoded: Dataset, logits: NDArray[Any], names: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    probabilities = softmax(logits, axis=-1) if names else logits
    for texts, truncated, values in zip(rows, encoded["truncated"], probabilities, strict=True):
        record = dict(texts)
        if names:
            record["prediction"] = names[int(np.argmax(values))]
            record |= {f"probability_{name}": float(p) for name, p in zip(names, values, strict=True)}
        else:
            record["score"] = float(values[0])
        empty = not any(clean(text, steps).strip() for text in texts.values())
        yield record | {"flag": "empty" if empty else "truncated" if truncated else ""}


def _check_output(output: Path, source: str) -> None:
    if output.resolve() == Path(source).resolve():
        raise ConfigError("OUTPUT", f"--output: {output} is the file to be predicted; name another one")
    if output.suffix not in (".csv", ".jsonl"):
        raise ConfigError("OUTPUT", f"--output: expected a .csv or .jsonl file, found {output}")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise ConfigError("OUTPUT", f"--output: folder {output.parent} does not exist or cannot be written")


def _write(output: Path, records: Iterator[dict[str, Any]]) -> None:
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            if output.suffix == ".jsonl":
                file.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
            else:
                _write_csv(csv.writer(file, lineterminator="\n"), records)
        partial.replace(output)
    except OSError as error:
        raise ResourceError("OUTPUT", f"{output}: cannot write predictions: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_csv(writer: Any, records: Iterator[dict[str, Any]]) -> None:
    for number, record in enumerate(records):
        if number == 0:
            writer.writerow(record)
        writer.writerow([_inert(value) if isinstance(value, str) else repr(value) for value in record.values()])


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
