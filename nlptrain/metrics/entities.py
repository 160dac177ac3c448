"""Entities in rows of tags, and how many of them are found: the counts of the CoNLL shared tasks.

A tag is O (outside), B-x (the first token of an entity of type x) or I-x (inside one). An I-x that continues nothing
begins an entity, as in conlleval, the evaluation program of CoNLL-2000 (Tjong Kim Sang and Buchholz 2000), and in
seqeval; rows in which B-x only parts an entity from the one before (IOB1) are thus read rightly too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from nlptrain.metrics.undefined import Undefined
from nlptrain.tasks import OUTSIDE

Rows = Sequence[Sequence[str]]
Entity = tuple[str, int, int]


def entities(tags: Sequence[str]) -> list[Entity]:
    """(type, first token, token behind the last) of every entity of a row."""
    starts = [place for place, tag in enumerate(tags) if tag.startswith("B-") or is_orphan(tags, place)]
    return [(tags[start][2:], start, _end(tags, start)) for start in starts]


def is_orphan(tags: Sequence[str], place: int) -> bool:
    """Whether the tag is an I-x that continues nothing."""
    tag, before = tags[place], tags[place - 1] if place else OUTSIDE
    return tag.startswith("I-") and before not in (tag, f"B-{tag[2:]}")


def _end(tags: Sequence[str], start: int) -> int:
    inside = f"I-{tags[start][2:]}"
    return next((place for place in range(start + 1, len(tags)) if tags[place] != inside), len(tags))


def require_rows(predictions: Rows, references: Rows) -> None:
    """Refuse rows of unequal numbers of tags.

    Raises:
        ValueError: another number of rows, or a row that has not one prediction for each of its tags.
    """
    if len(predictions) != len(references):
        raise ValueError(f"expected as many rows on both sides, found {len(predictions)} and {len(references)}")
    for row, (ours, theirs) in enumerate(zip(predictions, references, strict=True)):
        if len(ours) != len(theirs):
            raise ValueError(f"row {row}: expected {len(theirs)} predictions, one for each tag, found {len(ours)}")


def compute(name: str, predictions: Rows, references: Rows) -> float:
    """The metric `name` of rows of tags; micro-averaged over all entities, or tokens, of all rows.

    Raises:
        Undefined: there is nothing to count.
        ValueError: rows of unequal numbers of tags.
    """
    require_rows(predictions, references)
    return _FUNCTIONS[name](predictions, references)


def entity_precision(predictions: Rows, references: Rows) -> float:
    """Share of the predicted entities that are right in type, first and last token, in [0, 1]; 0 if there are none."""
    right, predicted, _ = _counts(predictions, references)
    return right / predicted if predicted else 0.0


def entity_recall(predictions: Rows, references: Rows) -> float:
    """Share of the references' entities that are predicted exactly, in [0, 1]; 0 if there are none."""
    right, _, wanted = _counts(predictions, references)
    return right / wanted if wanted else 0.0


def entity_f1(predictions: Rows, references: Rows) -> float:
    """Harmonic mean of precision and recall of exact entities, in [0, 1]: 2 right / (predicted + wanted)."""
    right, predicted, wanted = _counts(predictions, references)
    return 2 * right / (predicted + wanted)


def token_accuracy(predictions: Rows, references: Rows) -> float:
    """Share of tokens with the right tag, in [0, 1]; where most are O, never to be read alone."""
    flat = zip(chain.from_iterable(predictions), chain.from_iterable(references), strict=True)
    right = [ours == theirs for ours, theirs in flat]
    if not right:
        raise Undefined("there are no tokens")
    return sum(right) / len(right)


def matched(
    predictions: Iterable[Sequence[str]], references: Iterable[Sequence[str]]
) -> Iterator[tuple[set[Entity], set[Entity], set[Entity]]]:
    """Of each row the entities that are right, predicted and wanted."""
    for ours, theirs in zip(predictions, references, strict=True):
        found, wanted = set(entities(ours)), set(entities(theirs))
        yield found & wanted, found, wanted


def _counts(predictions: Rows, references: Rows) -> tuple[int, int, int]:
    """Entities that are right, predicted, wanted."""
    rows = list(matched(predictions, references))
    right, predicted, wanted = (sum(len(row[side]) for row in rows) for side in range(3))
    if not predicted + wanted:
        raise Undefined("neither predictions nor references hold an entity")
    return right, predicted, wanted


_FUNCTIONS: dict[str, Callable[[Rows, Rows], float]] = {
    function.__name__: function for function in (entity_precision, entity_recall, entity_f1, token_accuracy)
}
