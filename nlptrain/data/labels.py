"""From label texts to class ids, and from score texts to numbers, with nothing guessed."""

import difflib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from nlptrain.data.read import SHOWN, Where
from nlptrain.errors import DataError
from nlptrain.tasks import TaskSpec

UNLABELLED = "-1"
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class LabelMap:
    """Class names in the order of their ids.

    Attributes:
        names: one name per class; its position is the id.
        numbered: whether a class may also be given by its id, because the task fixes the order of the names.
    """

    names: tuple[str, ...]
    numbered: bool = False

    @classmethod
    def fit(cls, values: Iterable[str], task: TaskSpec) -> "LabelMap":
        """The names of the task, else the distinct training `values`, sorted; by number if all are integers."""
        if task.labels is not None:
            return cls(task.labels, numbered=True)
        found = {value for value in values if value.strip()}
        if all(_INTEGER.fullmatch(value) for value in found):
            return cls(tuple(sorted(found, key=int)))
        return cls(tuple(sorted(found)))

    @classmethod
    def refuse(cls, values: Sequence[str], where: Where) -> None:
        """Raise `DataError` where training labels cannot become the class names."""
        refuse_ambiguous(values, where)

    @classmethod
    def single(cls, values: Sequence[str], where: Where) -> tuple[Sequence[str], Where]:
        """The labels one by one, and where each stands; here a row is one label."""
        return values, where

    def encode(self, values: Sequence[str], where: Where) -> Sequence[Any]:
        """Class ids of the label texts: names, or, if `numbered` and none is a name, the ids written as integers.

        Raises:
            DataError: missing or unknown labels; each with its rows.
        """
        ids = {name: number for number, name in enumerate(self.names)}
        if self.numbered and not ids.keys() & set(values):
            ids = {str(number): number for number in range(len(self.names))}
        if problems := [*_missing(values, where), *self._unknown(values, where, ids)]:
            raise DataError("DATA_LABEL", problems)
        return [ids[value] for value in values]

    def ids(self, target: Any) -> Sequence[int]:
        """The class ids of one row of `encode`."""
        return (target,)

    def facts(self, targets: Sequence[Any]) -> dict[str, Any]:
        """How often each class occurs, JSON-ready."""
        counts = Counter(chain.from_iterable(map(self.ids, targets)))
        return {"labels": {name: counts[number] for number, name in enumerate(self.names)}}

    def notes(self, targets: Sequence[Any], where: Where) -> list[str]:
        """What a reader of the labels should know; nothing here."""
        return []

    def _unknown(self, values: Sequence[str], where: Where, ids: dict[str, int]) -> list[str]:
        rows = _rows_by_value(values, {value for value in set(values) - ids.keys() if value.strip()})
        known = ", ".join(map(repr, self.names[:20])) + (
            f" or the numbers 0 to {len(ids) - 1}" if self.numbered else ""
        )
        problems = [
            f"{where.origin}: unknown label {value!r} in {where.at(at)}; expected one of {known}{self._hint(value)}"
            for value, at in list(rows.items())[:SHOWN]
        ]
        return problems + ([f"{where.origin}: {len(rows)} unknown labels in all"] if len(rows) > SHOWN else [])

    def _hint(self, value: str) -> str:
        near = [name for name in self.names if _alike(name) == _alike(value)]
        near = near or difflib.get_close_matches(value, self.names, 1)
        return f"; write {near[0]!r}, exactly so" if near else "; correct the row, or list the label in task.labels"


def refuse_ambiguous(values: Sequence[str], where: Where) -> None:
    """Training labels that are to become the class names must differ by more than case, spaces or leading zeros.

    Raises:
        DataError: such labels, or ``-1``, which public data sets use for rows without a label.
    """
    problems = []
    if UNLABELLED in values:
        at = where.at([row for row, value in enumerate(values) if value == UNLABELLED])
        remedy = "remove these rows, or, if -1 is a class, list all classes in task.labels"
        problems.append(f"{where.origin}: unknown label '-1' in {at}, which stands for unlabelled; {remedy}")
    groups: dict[str, list[str]] = {}
    for value in sorted(set(values)):
        groups.setdefault(_alike(value), []).append(value)
    for group in (group for alike, group in groups.items() if alike and len(group) > 1):
        rows = _rows_by_value(values, set(group))
        found = " and ".join(f"{value!r} in {where.at(rows[value])}" for value in group)
        problems.append(f"{where.origin}: labels differ only by case, spaces or zeros: {found}; write them alike")
    if problems:
        raise DataError("DATA_LABEL", problems)


def is_unlabelled(values: Sequence[str], task: TaskSpec) -> bool:
    """Whether every row has the ``-1`` of public test sets, where -1 cannot be a class or score of the task."""
    if task.facts.names_classes:
        return set(values) == {UNLABELLED} and UNLABELLED not in (task.labels or ())
    possible = task.label_range is None or task.label_range[0] <= -1 <= task.label_range[1]
    return not possible and set(values) <= {UNLABELLED, "-1.0"}


def scores(values: Sequence[str], task: TaskSpec, where: Where) -> list[float]:
    """The score texts as finite numbers within the task's range.

    Raises:
        DataError: missing, unparsable, non-finite or out-of-range scores; each kind with its rows.
    """
    low, high = task.label_range or (-math.inf, math.inf)
    numbers = [float(value) if _NUMBER.fullmatch(value) else math.nan for value in values]
    rows: dict[str, list[int]] = {}
    for row, (value, number) in enumerate(zip(values, numbers, strict=True)):
        if value.strip() and not (math.isfinite(number) and low <= number <= high):
            rows.setdefault(_score_fault(value, number, task), []).append(row)
    problems = list(_missing(values, where))
    for fault, at in rows.items():
        found = ", ".join(repr(values[row]) for row in at[:SHOWN])
        problems.append(f"{where.origin}: {fault} in {where.at(at)}: {found}; correct or remove the rows")
    if problems:
        raise DataError("DATA_SCORE", problems)
    return numbers


def _score_fault(value: str, number: float, task: TaskSpec) -> str:
    if _NOT_FINITE.fullmatch(value.strip()) or math.isinf(number):
        return "a score that is not finite"
    if math.isnan(number):
        return "a score that is not a number (a decimal point, no spaces: 4.5)"
    low, high = task.label_range or (-math.inf, math.inf)
    return f"a score outside {low:g} to {high:g}"


def _missing(values: Sequence[str], where: Where) -> list[str]:
    rows = [row for row, value in enumerate(values) if not value.strip()]
    return [f"{where.origin}: no label in {where.at(rows)}; fill in or remove the rows"] if rows else []


def _rows_by_value(values: Sequence[str], wanted: set[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    if wanted:
        for row, value in enumerate(values):
            if value in wanted:
                rows.setdefault(value, []).append(row)
    return rows


def _alike(label: str) -> str:
    folded = unicodedata.normalize("NFC", label).strip().casefold()
    return str(int(folded)) if _INTEGER.fullmatch(folded) else folded
