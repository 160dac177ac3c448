"""What the outputs of a model mean: the scores of a split and the answers for its rows; one entry per kind of task."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import softmax
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from nlptrain.data import tags
from nlptrain.data.encode import NO_TOKEN
from nlptrain.metrics.scores import Scores, score
from nlptrain.predictions import objects
from nlptrain.tasks import OUTSIDE, Kind, TaskSpec

Array = NDArray[Any]
Names = Sequence[str]
Answers = Iterator[dict[str, Any]]


def score_logits(task: TaskSpec, outputs: Any, targets: Sequence[Any], names: Names = ()) -> Scores:
    """The task's metrics on all rows of a split.

    Args:
        task: names the metrics.
        outputs: as `OutputKind.by_row` gives them.
        targets: of every row: its class id, its score, or the class ids of its words.
        names: class names in the order of their ids, for tags.
    """
    return score(task.metrics, *OUTPUTS[task.kind].compared(outputs, targets, names))


def _row_outputs(logits: Array, _: Dataset) -> Array:
    return logits


def _word_outputs(logits: Array, rows: Dataset) -> list[Array]:
    """(words, classes) of each row: the logits of each word's first token, NaN where it has none."""
    found = []
    for row, places in zip(logits, rows["starts"], strict=True):
        starts = np.asarray(places, dtype=np.int64)
        words = row[starts]
        words[starts == NO_TOKEN] = np.nan
        found.append(words)
    return found


def _classes(logits: Array, targets: Sequence[int], _: Names) -> tuple[Array, Array]:
    return logits.argmax(axis=-1), np.asarray(targets, np.int64)


def _scores(scores: Array, targets: Sequence[float], _: Names) -> tuple[Array, Array]:
    return scores.reshape(-1).astype(np.float64), np.asarray(targets, np.float64)


def _kept_rows(outputs: Array, targets: Sequence[Any], _: Names) -> tuple[Array, Array]:
    return np.asarray(targets), outputs


def _kept_tags(outputs: list[Array], targets: Sequence[Sequence[int]], names: Names) -> tuple[Array, Array]:
    answers, labels = (objects(rows) for rows in _tag_rows(outputs, targets, names))
    return labels, answers


def _tag_rows(outputs: list[Array], targets: Sequence[Sequence[int]], names: Names) -> tuple[Any, Any]:
    return [_tags(row, names) for row in outputs], [[names[number] for number in target] for target in targets]


def _tags(words: Array, names: Names) -> list[str]:
    """The likeliest tag of each word; O for one the model has not seen."""
    return [OUTSIDE if np.isnan(word).any() else names[int(word.argmax())] for word in words]


def _class_answers(logits: Array, names: Names) -> Answers:
    for values in softmax(logits, axis=-1):
        probabilities = {f"probability_{name}": float(p) for name, p in zip(names, values, strict=True)}
        yield {"prediction": names[int(np.argmax(values))]} | probabilities


def _score_answers(scores: Array, _: Names) -> Answers:
    for values in scores:
        yield {"score": float(values[0])}


def _tag_answers(outputs: list[Array], names: Names) -> Answers:
    for words in outputs:
        yield {"tags": _tags(words, names)}


@dataclass(frozen=True)
class OutputKind:
    """How the outputs of one kind are read.

    Attributes:
        compared: of outputs, targets and names: predictions and references as the kind's metrics want them.
        kept: of the same: labels and outputs as `nlptrain.predictions.Predictions` keeps them.
        answers: of outputs and names: what a prediction says of each row.
        by_row: of logits as they were gathered, in the order of encoded rows, and these rows: the outputs, row by row.
        targets: the column of encoded rows that holds what is right.
        collator: makes batches of encoded rows.
        text: a text as a prediction shows it.
    """

    compared: Callable[[Any, Any, Names], tuple[Any, Any]]
    answers: Callable[[Any, Names], Answers]
    kept: Callable[[Any, Any, Names], tuple[Array, Array]] = _kept_rows
    by_row: Callable[[Array, Dataset], Any] = _row_outputs
    targets: str = "labels"
    collator: type[Any] = DataCollatorWithPadding
    text: Callable[[str], Any] = str


OUTPUTS: dict[Kind, OutputKind] = {
    "classification": OutputKind(_classes, _class_answers),
    "regression": OutputKind(_scores, _score_answers),
    "token_classification": OutputKind(
        _tag_rows,
        _tag_answers,
        kept=_kept_tags,
        by_row=_word_outputs,
        targets="targets",
        collator=DataCollatorForTokenClassification,
        text=tags.split,
    ),
}
