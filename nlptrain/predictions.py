"""What a model answered for every row of a split, kept so that comparisons and reports need no model."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nlptrain.errors import ModelError
from nlptrain.results import write_text

DIGITS = 16


@dataclass(frozen=True)
class Predictions:
    """Rows of one split in their order.

    Attributes:
        lines: where each row stands in its source, (n,) int64.
        texts: `digest` of each row's texts, n of them; finds the row again whatever its line.
        labels: what is right: class ids (n,) int64, scores (n,) float64 in the user's unit, or a list of tags for each
            row, (n,) object.
        outputs: logits (n, classes) in the order of the class ids, or scores (n, 1) in the user's unit; float64. Of a
            token classification, where logits would be those of every word, the predicted tags, as in `labels`.
    """

    lines: NDArray[np.int64]
    texts: tuple[str, ...]
    labels: NDArray[Any]
    outputs: NDArray[Any]

    def __len__(self) -> int:
        return len(self.lines)

    def write(self, path: Path) -> None:
        """Write strict JSON lines ``{"line", "text", "label", "output"}``, whole or not at all.

        Numbers are written so that they are read back bit by bit.

        Raises:
            ModelError: a number is not finite; nothing was written.
            ResourceError: the file system refused.
        """
        if self.outputs.dtype != object and not np.isfinite(self.outputs).all():
            broken = self.lines[~np.isfinite(self.outputs).all(axis=1)]
            raise ModelError("PREDICTIONS", f"{path} was not written: the output of line {broken[0]} is not finite")
        columns = (self.lines.tolist(), self.texts, self.labels.tolist(), self.outputs.tolist())
        names = ("line", "text", "label", "output")
        rows = (json.dumps(dict(zip(names, row, strict=True)), allow_nan=False) for row in zip(*columns, strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{row}\n" for row in rows))

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """The rows at `path`.

        Raises:
            ModelError: the file is missing or not as `write` makes it; with the line.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError("PREDICTIONS", f"{path} cannot be read: {error}. Run the training again") from error
        rows = [_row(line, f"{path}:{number}") for number, line in enumerate(text.splitlines(), start=1)]
        labels, outputs = ([row[side] for row in rows] for side in ("label", "output"))
        tagged = {isinstance(label, list) for label in labels}
        if len(tagged) != 1 or (tagged == {False} and len({len(output) for output in outputs}) != 1):
            raise ModelError("PREDICTIONS", f"{path}: expected rows with equally many outputs")
        return cls(
            lines=np.asarray([row["line"] for row in rows], np.int64),
            texts=tuple(row["text"] for row in rows),
            labels=objects(labels) if tagged == {True} else np.asarray(labels),
            outputs=objects(outputs) if tagged == {True} else np.asarray(outputs, np.float64),
        )


def objects(rows: Sequence[Any]) -> NDArray[Any]:
    """(n,) of lists, whatever their lengths."""
    return np.fromiter(rows, dtype=object, count=len(rows))


def digest(texts: Iterable[str]) -> str:
    """The first hexadecimal digits of the sha256 of a row's texts."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:DIGITS]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse)
        whole = isinstance(row["line"], int) and isinstance(row["text"], str) and isinstance(row["output"], list)
        if whole and (_are_tags(row["label"], row["output"]) or _are_finite(row["label"], row["output"])):
            return dict(row)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError("PREDICTIONS", f"{where}: not a prediction: {error!r}") from error
    raise ModelError("PREDICTIONS", f'{where}: expected {{"line", "text", "label", "output"}}, found {line[:80]!r}')


def _are_tags(label: Any, output: list[Any]) -> bool:
    same = isinstance(label, list) and len(label) == len(output)
    return same and all(isinstance(tag, str) for tag in [*label, *output])


def _are_finite(label: Any, output: list[Any]) -> bool:
    return all(math.isfinite(value) for value in [label, *output])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
