"""What can be trained: one frozen row per task; everything that differs between tasks by value stands here.

No other module asks for a task by name. A user's own task is a row as well, built from the YAML.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["classification", "regression", "token_classification"]

CLASSIFICATION_METRICS = ("accuracy", "f1_macro", "matthews_correlation")
REGRESSION_METRICS = ("pearson", "spearman", "mse", "rmse", "nmse")
ENTITY_METRICS = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
OUTSIDE = "O"  # the tag of a token in no entity
IGNORED = -100  # the label of what has none, as torch and transformers have it
STANDARD_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
MATCHED_SPLITS = {
    "train": "train",
    "validation": "validation_matched",
    "validation_mismatched": "validation_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}


def is_tag(name: str) -> bool:
    """Whether a name can be the tag of a token: O, or B- or I- and a type without spaces."""
    return re.fullmatch(r"O|[BI]-\S+", name) is not None


@dataclass(frozen=True)
class KindFacts:
    """What sets one kind of task apart from the others before any data is read.

    A new kind is one entry here and in each of: `nlptrain.data.targets` (reading rows), `nlptrain.data.encode` (making
    tokens of them), `nlptrain.models.classes`, `nlptrain.outputs` (what a model's outputs mean), `nlptrain.scoring`,
    and of its metrics in `nlptrain.metrics`: registry, modules, weighted.

    Attributes:
        metrics: those reported where a task names none; the first selects checkpoints.
        names_classes: whether targets are names of classes; else they are scores, which may have a range.
        by_token: whether a row is a list of tokens with a target for each.
    """

    metrics: tuple[str, ...]
    names_classes: bool
    by_token: bool = False


KINDS: dict[Kind, KindFacts] = {
    "classification": KindFacts(CLASSIFICATION_METRICS, names_classes=True),
    "regression": KindFacts(REGRESSION_METRICS, names_classes=False),
    "token_classification": KindFacts(ENTITY_METRICS, names_classes=True, by_token=True),
}


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Attributes:
        name: folder name below ``$NLPTRAIN_DATA`` and the name shown in results.
        kind: classification (two or more classes), regression (one real score) or token_classification (a tag, O,
            B-x or I-x, for each token of a list).
        text: the one or two text columns, in order.
        label: the column of labels or scores.
        label_aliases: other names that sources give that column.
        labels: class names in the order of their ids; None: learnt from the training rows, sorted.
        label_range: lowest and highest valid score of a regression; None: any finite number.
        metrics: names of the reported metrics, see `nlptrain.metrics`.
        primary: the metric that selects checkpoints; its direction is the metric's own.
        hub: data set id and configuration on the Hub, for tasks that live there.
        splits: our split name to the source's split name.
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    label: str = "label"
    label_aliases: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    label_range: tuple[float, float] | None = None
    metrics: tuple[str, ...] = CLASSIFICATION_METRICS
    primary: str = "accuracy"
    hub: tuple[str, str] | None = None
    splits: dict[str, str] = field(default_factory=lambda: dict(STANDARD_SPLITS))

    @property
    def is_pair(self) -> bool:
        """Whether a row is two texts."""
        return len(self.text) == 2

    @property
    def facts(self) -> KindFacts:
        """What sets its kind apart."""
        return KINDS[self.kind]


def _glue(name: str, *text: str, labels: tuple[str, ...], metrics: tuple[str, ...] = ("accuracy",)) -> TaskSpec:
    return TaskSpec(
        name, "classification", text, labels=labels, metrics=metrics, primary=metrics[0], hub=("nyu-mll/glue", name)
    )


_ENTAILMENT = ("entailment", "not_entailment")
_EQUIVALENT = ("not_equivalent", "equivalent")

_ROWS = (
    _glue("cola", "sentence", labels=("unacceptable", "acceptable"), metrics=("matthews_correlation", "accuracy")),
    _glue("sst2", "sentence", labels=("negative", "positive"), metrics=("accuracy", "f1", "matthews_correlation")),
    _glue("mrpc", "sentence1", "sentence2", labels=_EQUIVALENT, metrics=("accuracy", "f1")),
    TaskSpec(
        name="stsb",
        kind="regression",
        text=("sentence1", "sentence2"),
        label_aliases=("score",),
        label_range=(0.0, 5.0),
        metrics=REGRESSION_METRICS,
        primary="pearson",
        hub=("nyu-mll/glue", "stsb"),
    ),
    _glue("qqp", "question1", "question2", labels=("not_duplicate", "duplicate"), metrics=("accuracy", "f1")),
    TaskSpec(
        name="mnli",
        kind="classification",
        text=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        hub=("nyu-mll/glue", "mnli"),
        splits=MATCHED_SPLITS,
    ),
    _glue("qnli", "question", "sentence", labels=_ENTAILMENT),
    _glue("rte", "sentence1", "sentence2", labels=_ENTAILMENT),
    _glue("wnli", "sentence1", "sentence2", labels=("not_entailment", "entailment")),
)

TASKS: dict[str, TaskSpec] = {row.name: row for row in _ROWS}
