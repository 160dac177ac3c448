"""What the rows are: sizes, lengths, truncation, duplicates, leakage, and how the labels are spread."""

from collections.abc import Mapping
from typing import Any

from nlptrain.report.axes import number
from nlptrain.report.blocks import Block, Cell, Section, Table
from nlptrain.report.facts import RunFacts

_COUNTS = {"duplicates": "repeated rows", "conflicting": "texts with two labels", "empty": "rows without text"}


def section(facts: RunFacts) -> Section:
    """A table of the splits, one of the labels, and sentences about leaks and dropped rows."""
    data = facts.result.data
    splits = {name: found for name, found in data.items() if isinstance(found, dict) and "rows" in found}
    if not splits:
        return Section("Data", [], ["the record holds no facts about the data"])
    tokens = data.get("tokens", {})
    rows = [[name, *_sizes(found), *_lengths(tokens.get(name, {}))] for name, found in splits.items()]
    head = ["split", "rows", *_COUNTS.values(), "characters, median", "longest"]
    head += ["tokens, median", "longest", "truncated"]
    blocks: list[Block] = [Table("Sizes and lengths", head, rows)]
    blocks += _spread(splits)
    blocks.append(_leakage(data))
    sources = [
        [name, str(f.get("sha256") or "unknown")[:16], str(f.get("source", "unknown"))] for name, f in splits.items()
    ]
    blocks.append(
        Table("Sources, and the beginning of their sha256", ["split", "sha256", "source"], sources, wide=True)
    )
    blocks += [f"{note}." for note in facts.result.notes]
    return Section("Data", blocks)


def _sizes(found: Mapping[str, Any]) -> list[str]:
    characters = found.get("characters", {})
    counts = [str(found.get(key, "unknown")) for key in _COUNTS]
    return [f"{found['rows']:,}", *counts, *(_known(characters, key) for key in ("median", "max"))]


def _lengths(found: Mapping[str, Any]) -> list[str]:
    share = f"{found['truncated_share']:.1%}" if "truncated_share" in found else "unknown"
    return [*(_known(found, key) for key in ("median_length", "max_length")), share]


def _known(found: Mapping[str, Any], key: str) -> str:
    return number(found[key]) if key in found else "unknown"


def _spread(splits: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Rows of each label by split, or the spread of the scores."""
    counts = {name: found["labels"] for name, found in splits.items() if isinstance(found.get("labels"), dict)}
    if counts:
        labels = list(dict.fromkeys(label for one in counts.values() for label in one))
        rows: list[list[Cell]] = [[label, *(str(one.get(label, 0)) for one in counts.values())] for label in labels]
        return [Table("Rows of each label", ["label", *counts], rows)]
    scores = {name: found["score"] for name, found in splits.items() if isinstance(found.get("score"), dict)}
    if not scores:
        return []
    keys = list(next(iter(scores.values())))
    return [
        Table("Scores", ["split", *keys], [[name, *(_known(one, key) for key in keys)] for name, one in scores.items()])
    ]


def _leakage(data: Mapping[str, Any]) -> str:
    shared = data.get("leakage")
    if shared is None:
        return "The record does not say whether rows stand in two splits."
    leaks = [
        f"{count} rows of {pair.split('/')[1]} also stand in {pair.split('/')[0]}"
        for pair, count in shared.items()
        if count
    ]
    dropped = [
        f"{count} {split} rows were dropped because of {reason}"
        for split, reasons in data.get("dropped", {}).items()
        for reason, count in reasons.items()
    ]
    return f"{'; '.join([*(leaks or ['No row stands in two splits']), *dropped])}."
