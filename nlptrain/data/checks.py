"""What can be wrong with readable rows: columns, empty texts, repeats, contradictions, leaks between splits."""

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain.data.columnar import LINE
from nlptrain.data.keys import BLANK
from nlptrain.data.read import Table
from nlptrain.data.targets import COLUMNS
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TaskSpec

RESERVED = ("label", "line")
Rows = NDArray[np.int64]
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


def blank(keys: Rows) -> Rows:
    """Rows without any text."""
    return np.flatnonzero(keys == BLANK)


def repeats(keys: Rows, targets: Sequence[Any] | None) -> Rows:
    """Rows whose texts and target, if there are targets, already stood in an earlier row; blank rows do not count."""
    _, first = np.unique(_identities(keys, targets), return_index=True)
    again = keys != BLANK
    again[first] = False
    return np.flatnonzero(again)


def contradictions(keys: Rows, targets: Sequence[Any] | None) -> int:
    """Number of texts that have more than one target; blank rows do not count."""
    _, first = np.unique(_identities(keys, targets), return_index=True)
    several, counts = np.unique(keys[first], return_counts=True)
    return int(((counts > 1) & (several != BLANK)).sum())


def shared(keys: Rows, others: Rows) -> Rows:
    """Rows of `keys` whose texts also stand in `others`; blank rows do not count."""
    return np.flatnonzero(np.isin(keys, others) & (keys != BLANK))


def _identities(keys: Rows, targets: Sequence[Any] | None) -> Rows:
    """The same number for rows that have the same texts and target."""
    if targets is None:
        return keys
    codes: dict[Any, int] = {}
    numbers = np.fromiter((codes.setdefault(one, len(codes)) for one in targets), np.int64, len(keys))
    return keys * max(len(codes), 1) + numbers
