"""The rows on which the model is most wrong, with their texts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from nlptrain.predictions import Predictions
from nlptrain.report.axes import number
from nlptrain.report.blocks import Block, Cell, Quoted, Section, Table
from nlptrain.report.facts import RunFacts
from nlptrain.report.safe_text import clipped
from nlptrain.report.source_texts import Texts

Array = NDArray[Any]
MOST = 20


def section(facts: RunFacts, texts: Texts, why_not: str | None) -> Section:
    """At most `MOST` rows, the worst first; texts that are not to be had are missing from them.

    Args:
        facts: the run.
        texts: of the predicted rows.
        why_not: why some are None.
    """
    found = facts.predictions
    title = "Largest errors" if facts.result.kind == "regression" else "Most confident mistakes"
    if found is None:
        return Section(title, [], [facts.missing["predictions"]])
    rows, wrong, head = _ROWS[facts.result.kind](found, facts)
    columns = facts.config.spec.text
    cells = [
        [str(found.lines[row]), *row_cells, *_texts(texts[row], len(columns))]
        for row, row_cells in zip(rows, wrong, strict=True)
    ]
    blocks: list[Block] = []
    if cells:
        caption = f"{len(cells)} rows of {facts.split}, the worst first; `line` is where a row stands in its source"
        blocks.append(Table(caption, ["line", *head, *columns], cells, wide=True))
    else:
        blocks.append("There are none.")
    return Section(title, blocks, [why_not] if why_not else [])


def _texts(row: tuple[str, ...] | None, columns: int) -> list[Cell]:
    return [Quoted(clipped(text)) for text in row] if row is not None else ["not there any more"] * columns


def _classes(found: Predictions, facts: RunFacts) -> tuple[Array, list[list[Cell]], list[str]]:
    shares, answers = softmax(found.outputs, axis=1), found.outputs.argmax(axis=1)
    wrong = np.flatnonzero(answers != found.labels)
    worst = wrong[np.argsort(-shares[wrong, answers[wrong]], kind="stable")][:MOST]
    names = facts.classes
    cells: list[list[Cell]] = [
        [f"{shares[row, answers[row]]:.4f}", Quoted(names[answers[row]]), Quoted(names[found.labels[row]])]
        for row in worst
    ]
    return worst, cells, ["confidence", "predicted", "true"]


def _scores(found: Predictions, _: RunFacts) -> tuple[Array, list[list[Cell]], list[str]]:
    residuals = found.outputs[:, 0] - found.labels
    worst = np.argsort(-np.abs(residuals), kind="stable")[:MOST]
    values = zip(residuals[worst], found.outputs[worst, 0], found.labels[worst], strict=True)
    cells: list[list[Cell]] = [[number(float(value)) for value in row] for row in values]
    return worst, cells, ["predicted - true", "predicted", "true"]


def _tags(found: Predictions, facts: RunFacts) -> tuple[Array, list[list[Cell]], list[str]]:
    wrong = np.array(
        [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(found.labels, found.outputs, strict=True)]
    )
    worst = np.argsort(-wrong, kind="stable")[:MOST]
    worst = worst[wrong[worst] > 0]
    cells: list[list[Cell]] = [
        [str(wrong[row]), *(Quoted(clipped(" ".join(side[row]))) for side in (found.outputs, found.labels))]
        for row in worst
    ]
    return worst, cells, ["wrong tags", "predicted", "true"]


_ROWS = {"classification": _classes, "regression": _scores, "token_classification": _tags}
