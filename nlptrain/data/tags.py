"""Rows of tokens and the tag of each: lists, or one cell with a space between two tokens.

Inside the program such a row is a text whose tokens stand apart by exactly one space, whatever it was in the source,
so that everything which compares, counts and writes texts serves it too.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from nlptrain.data.columnar import LINE
from nlptrain.data.labels import LabelMap, refuse_ambiguous
from nlptrain.data.read import SHOWN, Table, Where
from nlptrain.errors import DataError
from nlptrain.metrics.entities import entities, is_orphan
from nlptrain.tasks import OUTSIDE, TaskSpec, is_tag

SPACE = " "


def split(text: str) -> list[str]:
    """The tokens of a row, or its tags."""
    return text.split(SPACE) if text else []


def joined(table: Table, column: str, *, numbers: bool = False) -> pa.ChunkedArray:
    """Each row of a column as one text with single spaces between its tokens; "" for a row without tokens.

    Args:
        table: its column holds lists, or cells with spaces.
        column: of tokens or of tags.
        numbers: whether lists may also hold whole numbers, as tags may be given by their ids.

    Raises:
        DataError: a value that is no list of texts, an empty token, or a token with a space in it.
    """
    where = Where(table.origin, table.rows[LINE][:], table.unit)
    cells = [value or "" for value in table.rows[column][:]]
    is_list = "object" in table.types.get(column, {})
    rows = [_listed(cell, (str, int) if numbers else (str,)) if is_list else split(cell) for cell in cells]
    shown = f"{where.origin}: column {column!r}"
    remedies = {
        f"{shown} must hold lists of texts, found something else": (
            lambda row: row is None,
            'give every row a list such as ["EU", "rejects"]',
        ),
        f"{shown} has an empty token": (
            lambda row: any(not token.strip() for token in row or ()),
            "remove it, and its tag" if is_list else "separate tokens by exactly one space",
        ),
        f"{shown} has a token with a space in it": (
            lambda row: any(SPACE in token for token in row or () if token.strip()),
            "make two tokens of it, or write it without the space",
        ),
    }
    _refuse(rows, remedies, where)
    return pa.chunked_array([[SPACE.join(row or ()) for row in rows]], pa.string())


def _listed(cell: str, kinds: tuple[type, ...]) -> list[str] | None:
    """The items of a list that was written as JSON, as texts; None if it is no list of these kinds."""
    if not cell:
        return []
    found = json.loads(cell) if cell.startswith("[") else None
    if not isinstance(found, list) or any(type(item) not in kinds for item in found):
        return None
    return [str(item) for item in found]


def _refuse(rows: Sequence[Any], faults: dict[str, tuple[Callable[[Any], bool], str]], where: Where) -> None:
    problems = []
    for fault, (is_so, remedy) in faults.items():
        if at := [number for number, row in enumerate(rows) if is_so(row)]:
            problems.append(f"{fault} in {where.at(at)}; {remedy}")
    if problems:
        raise DataError("DATA_TOKENS", problems)


def refuse_unequal(texts: Sequence[str], tags: Sequence[str], where: Where) -> None:
    """Every row has as many tags as tokens.

    Raises:
        DataError: rows that do not, each with its numbers.
    """
    sizes = [(len(split(text)), len(split(tag))) for text, tag in zip(texts, tags, strict=True)]
    wrong = [row for row, (tokens, found) in enumerate(sizes) if tokens != found]
    problems = [
        f"{where.origin}: expected as many tags as tokens, found {sizes[row][0]} tokens and {sizes[row][1]} tags in "
        f"{where.at([row])}; correct the row"
        for row in wrong[:SHOWN]
    ]
    if wrong:
        more = [f"{where.origin}: {len(wrong)} such rows in all"] if len(wrong) > SHOWN else []
        raise DataError("DATA_TOKENS", problems + more)


class TagMap(LabelMap):
    """Tags in the order of their ids: O, B-x for the first token of an entity of type x, I-x for the others."""

    @classmethod
    def fit(cls, values: Iterable[str], task: TaskSpec) -> "TagMap":
        """The tags of the task, else O and then the distinct tags of the training rows, sorted."""
        if task.labels is not None:
            return cls(task.labels, numbered=True)
        found = set(chain.from_iterable(map(split, values))) - {OUTSIDE}
        return cls((OUTSIDE, *sorted(found)))

    @classmethod
    def refuse(cls, values: Sequence[str], where: Where) -> None:
        """Training tags that are to become the class names must be tags, and differ by more than case."""
        tags, at = cls.single(values, where)
        refuse_ambiguous(tags, at)
        rows: dict[str, list[int]] = {}
        for row, tag in enumerate(tags):
            if not is_tag(tag):
                rows.setdefault(tag, []).append(row)
        problems = [
            f"{where.origin}: expected O, or B- or I- and a type, such as B-PER, found the tag {tag!r} in "
            f"{at.at(found)}; correct the rows"
            for tag, found in list(rows.items())[:SHOWN]
        ]
        if problems:
            raise DataError("DATA_LABEL", problems)

    @classmethod
    def single(cls, values: Sequence[str], where: Where) -> tuple[Sequence[str], Where]:
        """Each distinct tag of each row, and where it stands."""
        found = [
            (tag, line) for value, line in zip(values, where.lines, strict=True) for tag in dict.fromkeys(split(value))
        ]
        return [tag for tag, _ in found], Where(where.origin, [line for _, line in found], where.unit)

    def encode(self, values: Sequence[str], where: Where) -> list[tuple[int, ...]]:
        """Class ids of the tags of each row; otherwise as `LabelMap.encode`."""
        tags, at = self.single(values, where)
        ids = dict(zip(tags, super().encode(tags, at), strict=True))
        return [tuple(ids[tag] for tag in split(value)) for value in values]

    def ids(self, target: Sequence[int]) -> Sequence[int]:
        """The class ids of one row: one for each token."""
        return target

    def decode(self, target: Sequence[int]) -> list[str]:
        """The tags of a row of class ids."""
        return [self.names[number] for number in target]

    def facts(self, targets: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Tokens of each tag, entities of each type, and I-x that continue nothing and so begin an entity."""
        rows = [self.decode(target) for target in targets]
        found = Counter(kind for tags in rows for kind, *_ in entities(tags))
        orphans = sum(len(self._orphans(target)) for target in targets)
        return super().facts(targets) | {"entities": dict(sorted(found.items())), "inside_without_begin": orphans}

    def notes(self, targets: Sequence[Sequence[int]], where: Where) -> list[str]:
        """What a reader of the tags should know: I-x that continue nothing."""
        counts = [len(self._orphans(target)) for target in targets]
        at = where.at([row for row, count in enumerate(counts) if count])
        return [f"{sum(counts)} tags I-x continue no entity of type x, and begin one, in {at}"] if any(counts) else []

    def _orphans(self, target: Sequence[int]) -> list[int]:
        tags = self.decode(target)
        return [place for place in range(len(tags)) if is_orphan(tags, place)]
