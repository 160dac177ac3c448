"""What can be wrong with readable rows: columns, empty texts, repeats, contradictions, leaks between splits."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nlptrain.data.columnar import LINE
from nlptrain.data.read import Table
from nlptrain.data.targets import COLUMNS
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TaskSpec

RESERVED = ("label", "line")
_DELIMITERS = {";": "';'", "\t": "a tab", ",": "','", "|": "'|'"}


def check_texts(table: Table, task: TaskSpec) -> None:
    """The text columns of the task are there and hold text.

    Raises:
        DataError: a column is missing or holds something else.
        ConfigError: a text column has a name that the program needs, or is the label.
    """
    if wrong := [name for name in task.text if name in (*RESERVED, task.label, *task.label_aliases)]:
        raise ConfigError("TASK_TEXT", f"task.text: column {wrong[0]!r} is the label or a reserved name; rename it")
    if missing := [_missing(table, name) for name in task.text if name not in table.rows.column_names]:
        raise DataError("DATA_COLUMN", missing)
    for name in task.text:
        for kind, line in table.types.get(name, {}).items():
            if kind not in COLUMNS[task.kind].types:
                found = f"found {kind} in {table.unit} {line}"
                problem = f"{table.origin}: column {name!r} must hold text, {found}"
                raise DataError("DATA_TEXT", f"{problem}; write every value as a string, or name another column")


def label_column(table: Table, task: TaskSpec) -> str:
    """The task's label column, or the first of its aliases that is there; scalars, or lists where its kind has them.

    Raises:
        DataError: there is none, or it holds lists or objects.
    """
    names = [name for name in (task.label, *task.label_aliases) if name in table.rows.column_names]
    if not names:
        raise DataError("DATA_COLUMN", _missing(table, task.label, *task.label_aliases))
    line = table.types.get(names[0], {}).get("object")
    if line is not None and "object" not in COLUMNS[task.kind].types:
        problem = f"{table.origin}: column {names[0]!r} must hold labels, found a list or object in {table.unit} {line}"
        raise DataError("DATA_LABEL", f"{problem}; give one name or number per row")
    return names[0]


def _missing(table: Table, *names: str) -> str:
    present = [name for name in table.rows.column_names if name != LINE]
    problem = f"{table.origin}: no column {' or '.join(map(repr, names))}; there is {', '.join(map(repr, present))}"
    delimiter = next((shown for char, shown in _DELIMITERS.items() if char in present[0]), None)
    if len(present) == 1 and delimiter:
        return f"{problem}, a single column that contains {delimiter}: set data.delimiter"
    near = difflib.get_close_matches(names[0], present, 1)
    hint = f", the nearest is {near[0]!r}" if near else ""
    return f"{problem}{hint}; rename the column, or name it in task.text or task.label"


def row_key(texts: Sequence[str]) -> str:
    """Equal for rows whose texts are the same after NFC, strip and casefold, in either order; "" if all are blank."""
    folded = sorted(unicodedata.normalize("NFC", text).strip().casefold() for text in texts)
    return "\x1f".join(folded) if folded[-1] else ""


def blank(keys: Sequence[str]) -> list[int]:
    """Rows without any text."""
    return [row for row, key in enumerate(keys) if not key]


def repeats(keys: Sequence[str], targets: Sequence[Any] | None) -> list[int]:
    """Rows whose texts and target, if there are targets, already stood in an earlier row; blank rows do not count."""
    seen = set()
    rows = []
    for row, identity in enumerate(zip(keys, targets or [0] * len(keys), strict=True)):
        if identity in seen and identity[0]:
            rows.append(row)
        seen.add(identity)
    return rows


def contradictions(keys: Sequence[str], targets: Sequence[Any] | None) -> int:
    """Number of texts that have more than one target; blank rows do not count."""
    distinct = set(zip(keys, targets or (), strict=targets is not None))
    return sum(count > 1 for key, count in Counter(key for key, _ in distinct).items() if key)


def shared(keys: Sequence[str], others: Sequence[str]) -> list[int]:
    """Rows of `keys` whose texts also stand in `others`; blank rows do not count."""
    found = set(others) - {""}
    return [row for row, key in enumerate(keys) if key in found]
