"""What the model answered: confusion matrix, or predicted versus true with residuals; and how far to trust it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from nlptrain.metrics import probabilities
from nlptrain.predictions import Predictions
from nlptrain.report.axes import number
from nlptrain.report.bars import histogram
from nlptrain.report.blocks import Block, Chart, Section, Table
from nlptrain.report.curves import Series, lines
from nlptrain.report.facts import RunFacts
from nlptrain.report.grids import cloud, heat_map
from nlptrain.report.means import equal_parts, mean_interval, row_values

Array = NDArray[Any]
MOST_CLASSES = 10
OTHERS = "all others"
TENTHS = 10
RESIDUAL_BINS = 20
SURE = 0.99


def section(facts: RunFacts) -> Section:
    """Right and predicted against each other."""
    found = facts.predictions
    title = "Predicted versus true" if facts.result.kind == "regression" else "Confusion matrix"
    if found is None:
        return Section(title, [], [facts.missing["predictions"]])
    if facts.result.kind == "regression":
        return Section(title, _regression(found))
    if facts.result.kind == "classification":
        return Section(title, _confusion(found.labels, found.outputs.argmax(axis=1), facts.classes, "class"))
    tags = sorted({tag for side in (found.labels, found.outputs) for row in side for tag in row})
    number_of = {tag: n for n, tag in enumerate(tags)}
    labels, answers = (
        np.array([number_of[tag] for row in side for tag in row]) for side in (found.labels, found.outputs)
    )
    return Section(title, _confusion(labels, answers, tags, "tag"))


def calibration(facts: RunFacts) -> Section:
    """How often the model is right where it is so sure, or what is right where it says so much."""
    found, kind = facts.predictions, facts.result.kind
    if found is None:
        return Section("Calibration", [], [facts.missing["predictions"]])
    if kind == "token_classification":
        return Section("Calibration", [], ["the predictions of a token classification hold tags, no probabilities"])
    return Section("Calibration", _score_calibration(found) if kind == "regression" else _reliability(found))


def _confusion(labels: Array, answers: Array, names: Sequence[str], what: str) -> list[Block]:
    counts = confusion_matrix(labels, answers, labels=range(len(names)))
    shown, grouped = _grouped(counts, names)
    chart = heat_map("Percent of each row", (f"predicted {what}", f"true {what}"), shown, grouped)
    notes = ["The table has the counts."]
    if len(shown) < len(names):
        notes.append(f"{len(names) - len(shown) + 1} rarer {what} names of {len(names)} are one row.")
    return [chart.saying(" ".join(notes))]


def _grouped(counts: Array, names: Sequence[str]) -> tuple[list[str], Array]:
    """The most frequent classes in their order, all others as one."""
    if len(names) <= MOST_CLASSES:
        return list(names), counts
    kept = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[: MOST_CLASSES - 1])
    to = np.full(len(names), len(kept))
    to[kept] = range(len(kept))
    grouped = np.zeros((len(kept) + 1, len(kept) + 1), counts.dtype)
    np.add.at(grouped, (to[:, None], to[None, :]), counts)
    return [*(names[at] for at in kept), OTHERS], grouped


def _regression(found: Predictions) -> list[Block]:
    right, answers = found.labels.astype(np.float64), found.outputs[:, 0]
    residuals = answers - right
    rows = [
        [
            f"{number(float(right[part].min()))} to {number(float(right[part].max()))}",
            str(len(part)),
            number(float(answers[part].mean())),
            number(float(residuals[part].mean())),
            number(float(residuals[part].std())),
        ]
        for part in equal_parts(right, TENTHS)
    ]
    head = ["true score", "rows", "mean predicted", "mean residual", "sd of residual"]
    edges = np.histogram_bin_edges(residuals, bins=RESIDUAL_BINS)
    counts = np.histogram(residuals, edges)[0]
    table = Table("By true score", head, rows)
    scatter = cloud("Scores", ("true score", "predicted score"), right, answers, table)
    spread = histogram("Residuals", ("predicted - true", "rows"), edges.tolist(), counts.tolist())
    return [
        scatter.saying("On the dashed line both are equal."),
        spread.saying(
            f"Mean {residuals.mean():+.4f}, standard deviation {residuals.std():.4f}, in the unit of the score."
        ),
    ]


def _score_calibration(found: Predictions) -> list[Block]:
    answers, right = found.outputs[:, 0], found.labels.astype(np.float64)
    groups = [(answers[part], right[part]) for part in equal_parts(answers, TENTHS)]
    points = [(float(a.mean()), float(r.mean())) for a, r in groups]
    ends = [mean_interval(r) for _, r in groups]
    values = [value for pair in (*points, *ends) for value in pair]
    square = (min(values), max(values)) if min(values) < max(values) else None
    title, labels = "Reliability", ("mean predicted score", "mean true score")
    chart = lines(title, labels, [Series("rows", points, dots=True, ends=ends)], square=square)
    rows = [
        [number(at), number(value), *(number(end) for end in pair), str(len(a))]
        for (at, value), pair, (a, _) in zip(points, ends, groups, strict=True)
    ]
    table = Table("Tenths of the rows by predicted score", [*labels, "low", "high", "rows"], rows)
    return [
        Chart(title, chart.svg, table, "Tenths of the rows; upright lines are 95 % intervals of the mean true score.")
    ]


def _reliability(found: Predictions) -> list[Block]:
    bin_of_row, _ = probabilities.bins(found.outputs, found.labels)
    confidence = softmax(found.outputs, axis=1).max(axis=1)
    right = row_values("classification", found)
    groups = [bin_of_row == place for place in np.unique(bin_of_row)]
    points = [(float(confidence[mine].mean()), float(right[mine].mean())) for mine in groups]
    ends = [mean_interval(right[mine]) for mine in groups]
    rows = [
        [*map(number, (*point, *pair)), str(int(mine.sum()))]
        for point, pair, mine in zip(points, ends, groups, strict=True)
    ]
    title, labels = "Reliability", ("mean confidence", "accuracy")
    chart = lines(title, labels, [Series("rows", points, dots=True, ends=ends)], square=(0.0, 1.0))
    table = Table("By confidence, 15 bins of equal width", [*labels, "low", "high", "rows"], rows)
    note = (
        f"Expected calibration error {probabilities.ece(found.outputs, found.labels):.4f}: the mean distance from the "
        f"dashed line, each row counted once. Upright lines are 95 % Wilson intervals. "
        f"{(confidence >= SURE).mean():.1%} of the rows have a confidence of {SURE} or more."
    )
    return [Chart(title, chart.svg, table, note)]
