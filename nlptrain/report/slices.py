"""Scores of parts of the rows: by the length of the texts, and by class or by true score."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain.predictions import Predictions
from nlptrain.report.axes import number
from nlptrain.report.bars import bars
from nlptrain.report.blocks import TO, Block, Cell, Section, Table
from nlptrain.report.facts import RunFacts
from nlptrain.report.means import NAMES, equal_parts, mean_interval, row_values
from nlptrain.report.source_texts import Texts
from nlptrain.score_lines import shown

Array = NDArray[Any]
MOST_BARS = 30
FIFTHS = 5


def section(facts: RunFacts, texts: Texts, why_not: str | None) -> Section:
    """Slices by length and by what is right.

    Args:
        facts: the run.
        texts: of the predicted rows, None where they are not to be had.
        why_not: then the reason.
    """
    found, missing = facts.predictions, [why_not] if why_not else []
    blocks: list[Block] = []
    if found is None:
        missing.append(facts.missing["predictions"])
    else:
        known = [row for row, text in enumerate(texts) if text is not None]
        if known:
            blocks.append(_by_length(facts.result.kind, found, texts, np.array(known)))
        if facts.result.kind == "regression":
            blocks.append(_by_score(found))
    if by_class := _by_class(facts):
        blocks += by_class
    elif facts.result.kind != "regression":
        missing.append("the record holds no scores by class")
    return Section("Slices", blocks, missing)


def _by_length(kind: str, found: Predictions, texts: Texts, known: Array) -> Block:
    lengths = np.array([sum(len(text.split()) for text in texts[row] or ()) for row in known])
    return _groups("By length in words", "words", kind, row_values(kind, found)[known], lengths)


def _by_score(found: Predictions) -> Block:
    return _groups("By true score", "true score", "regression", row_values("regression", found), found.labels)


def _groups(title: str, what: str, kind: str, values: Array, keys: Array) -> Block:
    """A bar for each fifth of the rows by `keys`, whose equal values stay together."""
    groups = equal_parts(keys, FIFTHS)
    names = [_span(keys[part]) for part in groups]
    means = [float(values[part].mean()) for part in groups]
    ends = [mean_interval(values[part]) for part in groups]
    rows = [
        [name, str(len(part)), number(mean), f"{number(low)}{TO}{number(high)}"]
        for name, part, mean, (low, high) in zip(names, groups, means, ends, strict=True)
    ]
    table = Table(title, [what, "rows", NAMES[kind], "95 % interval"], rows)
    return bars(title, NAMES[kind], names, means, ends, table, top=None if kind == "regression" else 1.0)


def _span(values: Array) -> str:
    low, high = float(values.min()), float(values.max())
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _by_class(facts: RunFacts) -> list[Block]:
    found = facts.result.per_class.get(facts.split or "", {})
    if not found:
        return []
    rows: list[list[Cell]] = [
        [name, *(shown(one[key], 0 if key == "rows" else 4) for key in ("rows", "precision", "recall", "f1"))]
        for name, one in found.items()
    ]
    by_tag = facts.result.kind == "token_classification"
    what = "entity type" if by_tag else "class"
    table = Table(f"By {what}", [what, "entities" if by_tag else "rows", "precision", "recall", "F1"], rows)
    defined = {name: f1 for name, one in found.items() if (f1 := one["f1"]) is not None}
    names = sorted(defined, key=lambda name: defined[name])[:MOST_BARS]
    if not names:
        return [table]
    names = [name for name in found if name in names]
    chart = bars(f"F1 by {what}", "F1", names, [defined[name] for name in names], [], table, top=1.0)
    left = len(found) - len(names)
    return [chart.saying(f"{left} with a higher or no F1 are in the table alone." if left else "")]
