"""Which metrics exist, for which kind of task, and which direction is better; nothing heavy."""

import sys
from dataclasses import dataclass

from nlptrain.tasks import ENTITY_METRICS, Kind


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: the key in configurations and results.
        kind: what it compares: class ids (classification), real scores (regression) or rows of tags
            (token_classification).
        greater_is_better: the direction that selects checkpoints.
        worst: finite value that stands for an undefined metric when checkpoints are selected, never in a report.
        description: one line for listings and reports.
    """

    name: str
    kind: Kind
    greater_is_better: bool
    worst: float
    description: str


_LARGEST = sys.float_info.max

_ROWS = (
    MetricSpec("accuracy", "classification", True, 0.0, "share of rows whose class is right"),
    MetricSpec("f1", "classification", True, 0.0, "F1 of class 1 of two classes, as GLUE counts it"),
    MetricSpec("f1_macro", "classification", True, 0.0, "unweighted mean of the F1 of every class that occurs"),
    MetricSpec("precision_macro", "classification", True, 0.0, "unweighted mean of the precision of every class"),
    MetricSpec("recall_macro", "classification", True, 0.0, "unweighted mean of the recall of every class"),
    MetricSpec("balanced_accuracy", "classification", True, 0.0, "mean recall of the classes of the references"),
    MetricSpec("matthews_correlation", "classification", True, -1.0, "Matthews correlation, 0 for one class only"),
    MetricSpec("pearson", "regression", True, -1.0, "linear correlation"),
    MetricSpec("spearman", "regression", True, -1.0, "correlation of ranks, ties averaged"),
    MetricSpec("mse", "regression", False, _LARGEST, "mean squared error, in squared units of the score"),
    MetricSpec("rmse", "regression", False, _LARGEST, "root of the mean squared error, in units of the score"),
    MetricSpec("mae", "regression", False, _LARGEST, "mean absolute error, in units of the score"),
    MetricSpec("nmse", "regression", False, _LARGEST, "squared error over that of the references' mean: 1 - R2"),
    MetricSpec("r2", "regression", True, -_LARGEST, "coefficient of determination"),
    MetricSpec("entity_f1", "token_classification", True, 0.0, "F1 of entities found exactly, over all entities"),
    MetricSpec("entity_precision", "token_classification", True, 0.0, "share of predicted entities that are right"),
    MetricSpec("entity_recall", "token_classification", True, 0.0, "share of the entities that are found exactly"),
    MetricSpec("token_accuracy", "token_classification", True, 0.0, "share of tokens whose tag is right"),
)

METRICS: dict[str, MetricSpec] = {row.name: row for row in _ROWS}

# Of the probabilities of the classes: reported beside the others, and no use for selecting checkpoints.
PROBABILITY_METRICS: dict[str, MetricSpec] = {
    row.name: row
    for row in (
        MetricSpec(
            "auroc", "classification", True, 0.0, "area under the ROC curve, mean of each class against the rest"
        ),
        MetricSpec("nll", "classification", False, _LARGEST, "mean of -log(probability of the right class), in nats"),
        MetricSpec("ece", "classification", False, 1.0, "expected calibration error of the predicted class, 15 bins"),
    )
}

# What is reported of every run, besides the metrics of its task.
REPORTED: dict[str, tuple[str, ...]] = {
    "classification": (
        *("accuracy", "f1_macro", "precision_macro", "recall_macro", "balanced_accuracy", "matthews_correlation"),
        *PROBABILITY_METRICS,
    ),
    "regression": ("pearson", "spearman", "mse", "rmse", "mae", "nmse", "r2"),
    "token_classification": ENTITY_METRICS,
}


def spec(name: str) -> MetricSpec:
    """The row of a metric of either table."""
    return METRICS.get(name) or PROBABILITY_METRICS[name]
