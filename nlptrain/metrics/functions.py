"""The maths of every metric, on whole arrays of one split, by scikit-learn and scipy.

A metric is never averaged over batches: correlations, F1 and NMSE do not decompose into batches.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

from nlptrain.metrics.undefined import Undefined

Vector = NDArray[Any]

# Below this spread relative to the mean, scipy calls a correlation inaccurate: rounding is all that is left.
_CONSTANT = 1e-13


def require_vectors(predictions: Vector, references: Vector) -> None:
    """Refuse anything but two vectors of one length.

    A model's (n, 1) output minus (n,) references broadcasts to (n, n) and gives a wrong number without an error.

    Raises:
        ValueError: the shapes differ or are not one-dimensional.
    """
    if predictions.ndim != 1 or predictions.shape != references.shape:
        raise ValueError(
            f"predictions and references must both have shape (n,), found {predictions.shape} and {references.shape}: "
            "squeeze the predictions to one value per row"
        )


def compute(name: str, predictions: Vector, references: Vector) -> float:
    """The metric `name` of `nlptrain.metrics.registry`.

    Args:
        name: key of `METRICS`.
        predictions: shape (n,), int64 class ids or float64 scores.
        references: shape (n,), same kind of values.

    Returns:
        A finite number.

    Raises:
        Undefined: no rows, values that are not finite, or a reason of the metric's own.
        ValueError: the shapes differ or are not one-dimensional.
    """
    require_vectors(predictions, references)
    if not len(references):
        raise Undefined("there are no rows")
    for role, values in (("predictions", predictions), ("references", references)):
        if broken := int(np.count_nonzero(~np.isfinite(values))):
            raise Undefined(f"{broken} of {len(values)} {role} are not finite")
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(_FUNCTIONS[name](predictions, references))
    if not np.isfinite(value):
        raise Undefined("the value is too large for a 64-bit float")
    return value


def accuracy(predictions: Vector, references: Vector) -> float:
    """Share of equal ids, in [0, 1]."""
    return float(sklearn_metrics.accuracy_score(references, predictions))


def f1(predictions: Vector, references: Vector) -> float:
    """F1 of class 1 in [0, 1], the positive class of the GLUE tasks.

    Raises:
        Undefined: ids other than 0 and 1, or no row of class 1 on either side (0/0).
    """
    ids = np.union1d(predictions, references)
    if not np.isin(ids, (0, 1)).all():
        raise Undefined(f"f1 is for the ids 0 and 1, found {_shown(ids)}: use f1_macro")
    if 1 not in ids:
        raise Undefined("neither predictions nor references hold class 1")
    return float(sklearn_metrics.f1_score(references, predictions, zero_division=0.0))


def f1_macro(predictions: Vector, references: Vector) -> float:
    """Unweighted mean F1 in [0, 1] over the classes that occur in predictions or references."""
    return float(sklearn_metrics.f1_score(references, predictions, average="macro", zero_division=0.0))


def precision_macro(predictions: Vector, references: Vector) -> float:
    """Unweighted mean precision in [0, 1] over the classes that occur on either side; 0 for one never predicted."""
    return float(sklearn_metrics.precision_score(references, predictions, average="macro", zero_division=0.0))


def recall_macro(predictions: Vector, references: Vector) -> float:
    """Unweighted mean recall in [0, 1] over the classes that occur on either side; 0 for one that no reference has."""
    return float(sklearn_metrics.recall_score(references, predictions, average="macro", zero_division=0.0))


def balanced_accuracy(predictions: Vector, references: Vector) -> float:
    """Mean recall in [0, 1] over the classes of the references.

    Equal to scikit-learn's balanced_accuracy_score, which warns when a class is predicted that no reference has.
    """
    classes = np.unique(references)
    return float(sklearn_metrics.recall_score(references, predictions, labels=classes, average="macro"))


def matthews_correlation(predictions: Vector, references: Vector) -> float:
    """Matthews correlation in [-1, 1] for any number of classes; 0 for a single class, as in scikit-learn."""
    if _constant(predictions) or _constant(references):
        return 0.0
    return float(sklearn_metrics.matthews_corrcoef(references, predictions))


def pearson(predictions: Vector, references: Vector) -> float:
    """Linear correlation in [-1, 1].

    Raises:
        Undefined: fewer than two rows, or constant predictions or references.
    """
    _require_spread(predictions, references)
    return float(stats.pearsonr(predictions, references).statistic)


def spearman(predictions: Vector, references: Vector) -> float:
    """Correlation of ranks in [-1, 1], ties averaged.

    Raises:
        Undefined: fewer than two rows, or constant predictions or references.
    """
    _require_spread(predictions, references)
    return float(stats.spearmanr(predictions, references).statistic)


def mse(predictions: Vector, references: Vector) -> float:
    """Mean squared error, at least 0, in squared units of the score."""
    return float(sklearn_metrics.mean_squared_error(references, predictions))


def rmse(predictions: Vector, references: Vector) -> float:
    """Root of the mean squared error, at least 0, in units of the score."""
    return float(sklearn_metrics.root_mean_squared_error(references, predictions))


def mae(predictions: Vector, references: Vector) -> float:
    """Mean absolute error, at least 0, in units of the score."""
    return float(sklearn_metrics.mean_absolute_error(references, predictions))


def nmse(predictions: Vector, references: Vector) -> float:
    """Squared error over the squared error of always predicting the references' mean: SSE / SST = 1 - R2.

    At least 0; 1 for the mean predictor. Divided rather than taken from R2, which would cancel digits near 0.

    Raises:
        Undefined: constant references.
    """
    if _constant(references):
        raise Undefined("constant references")
    return mse(predictions, references) / float(np.var(references))


def r2(predictions: Vector, references: Vector) -> float:
    """Coefficient of determination, at most 1.

    Raises:
        Undefined: constant references.
    """
    if _constant(references):
        raise Undefined("constant references")
    return float(sklearn_metrics.r2_score(references, predictions))


_FUNCTIONS: dict[str, Callable[[Vector, Vector], float]] = {
    function.__name__: function
    for function in (
        accuracy,
        f1,
        f1_macro,
        precision_macro,
        recall_macro,
        balanced_accuracy,
        matthews_correlation,
        pearson,
        spearman,
        mse,
        rmse,
        mae,
        nmse,
        r2,
    )
}


def _constant(values: Vector) -> bool:
    mean = values.mean()
    return bool(np.ptp(values) == 0 or np.linalg.norm(values - mean) < _CONSTANT * abs(mean))


def _require_spread(predictions: Vector, references: Vector) -> None:
    if len(references) < 2:
        raise Undefined("a correlation needs at least two rows, found 1")
    constant = [role for role, v in (("predictions", predictions), ("references", references)) if _constant(v)]
    if constant:
        raise Undefined(f"constant {' and '.join(constant)}")


def _shown(ids: Vector) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
