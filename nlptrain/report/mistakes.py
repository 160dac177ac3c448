"""The rows on which the model is most wrong, with their texts."""

from collections.abc import Sequence
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
    rows, wrong = _ROWS[facts.result.kind](found, facts)
    columns = facts.config.spec.text
    cells: list[list[Cell]] = [
        [str(found.lines[row]), answer, _text(texts[row], columns)] for row, answer in zip(rows, wrong, strict=True)
    ]
    blocks: list[Block] = []
    if cells:
        caption = f"{len(cells)} rows of {facts.split}, the worst first; the line is that of the source"
        blocks.append(Table(caption, ["line", "answer", " + ".join(columns)], cells, wide=True))
    else:
        blocks.append("There are none.")
    return Section(title, blocks, [why_not] if why_not else [])


def _text(row: tuple[str, ...] | None, columns: Sequence[str]) -> Cell:
    if row is None:
        return "not there any more"
    names = [f"{name}: " for name in columns] if len(columns) > 1 else [""]
    return tuple(Quoted(clipped(text), name) for text, name in zip(row, names, strict=True))


def _classes(found: Predictions, facts: RunFacts) -> tuple[Array, list[Cell]]:
    shares, answers = softmax(found.outputs, axis=1), found.outputs.argmax(axis=1)
    wrong = np.flatnonzero(answers != found.labels)
    worst = wrong[np.argsort(-shares[wrong, answers[wrong]], kind="stable")][:MOST]
    names = facts.classes
    cells: list[Cell] = [
        (
            Quoted(names[answers[row]], "predicted "),
            f"confidence {shares[row, answers[row]]:.4f}",
            Quoted(names[found.labels[row]], "true "),
        )
        for row in worst
    ]
    return worst, cells


def _scores(found: Predictions, _: RunFacts) -> tuple[Array, list[Cell]]:
    residuals = found.outputs[:, 0] - found.labels
    worst = np.argsort(-np.abs(residuals), kind="stable")[:MOST]
    cells: list[Cell] = [
        (
            f"predicted {number(float(found.outputs[row, 0]))}",
            f"true {number(float(found.labels[row]))}",
            f"difference {residuals[row]:+.4g}",
        )
        for row in worst
    ]
    return worst, cells


def _tags(found: Predictions, _: RunFacts) -> tuple[Array, list[Cell]]:
    pairs = zip(found.labels, found.outputs, strict=True)
    wrong = np.array([sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs])
    worst = np.argsort(-wrong, kind="stable")[:MOST]
    worst = worst[wrong[worst] > 0]
    cells: list[Cell] = [
        (
            f"{wrong[row]} wrong tags",
            Quoted(clipped(" ".join(found.outputs[row])), "predicted "),
            Quoted(clipped(" ".join(found.labels[row])), "true "),
        )
        for row in worst
    ]
    return worst, cells


_ROWS = {"classification": _classes, "regression": _scores, "token_classification": _tags}
