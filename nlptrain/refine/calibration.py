"""Probabilities that mean what they say: temperature, expected calibration error, reliability table.

These take the (n, classes) logits or probabilities of all rows; they are small enough to be gathered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

Array = NDArray[np.float64]
Ids = NDArray[np.integer]

_MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by `value`; the most probable class stays.

    Attributes:
        value: T > 0; above 1 the probabilities were too sure.
        nll_before: mean negative log-likelihood in nats at T = 1.
        nll_after: at `value`.
        slope: derivative of the mean negative log-likelihood in T at `value`.
        rows: that it was fitted on.
        iterations: of Newton.
    """

    value: float
    nll_before: float
    nll_after: float
    slope: float
    rows: int
    iterations: int


def nll(logits: Array, labels: Ids) -> float:
    """Mean negative log-likelihood in nats of (n, classes) logits and (n,) class ids."""
    _check(logits, labels)
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Array, labels: Ids, tolerance: float = 1e-10) -> Temperature:
    """The temperature of the lowest negative log-likelihood (Guo et al. 2017, arXiv:1706.04599), by Newton in 1/T.

    The likelihood is concave in 1/T, so there is at most one, and rows decide whether it exists.

    Args:
        logits: (n, classes) of rows that the model was not trained on.
        labels: (n,) class ids.
        tolerance: on the derivative in 1/T.

    Raises:
        ValueError: no finite T > 0 is best: every row is right, or the logits say nothing of the labels.
    """
    _check(logits, labels)
    margins = logits - logits[np.arange(len(labels)), labels][:, None]
    if margins.max() <= 0:
        raise ValueError(f"temperature: all {len(labels)} rows are right, so the best T is 0; use more or harder rows")
    if _slope(margins, 0.0)[1] >= 0:
        raise ValueError(
            "temperature: the logits of the labels are no larger than the mean logit, so no T > 0 is best; "
            "check that labels and logits belong to each other"
        )
    beta, iterations = _root(margins, tolerance)
    value, slope, _ = _slope(margins, beta)
    return Temperature(1 / beta, _slope(margins, 1.0)[0], value, -slope * beta**2, len(labels), iterations)


def _root(margins: Array, tolerance: float) -> tuple[float, int]:
    """The 1/T where the derivative is 0: Newton inside a bracket, halved where a step would leave it."""
    scale = 1 / max(float(margins.std()), np.finfo(np.float64).tiny)
    low, high = 0.0, scale
    while _slope(margins, high)[1] < 0:
        low, high = high, 2 * high
    beta = (low + high) / 2
    for iteration in range(1, _MAX_ITERATIONS + 1):
        _, slope, curvature = _slope(margins, beta)
        # the derivative in 1/T carries the unit of the logits
        if abs(slope) * scale <= tolerance:
            return beta, iteration
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else low
        beta = step if low < step < high else (low + high) / 2
    return beta, _MAX_ITERATIONS


def _slope(margins: Array, beta: float) -> tuple[float, float, float]:
    """Mean negative log-likelihood at 1/T = `beta` and its first two derivatives; margins are 0 at the label."""
    p = softmax(beta * margins, axis=1)
    mean = (p * margins).sum(axis=1)
    variance = (p * np.square(margins - mean[:, None])).sum(axis=1)
    return float(logsumexp(beta * margins, axis=1).mean()), float(mean.mean()), float(variance.mean())


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose confidence lies in (low, high], the first bin with its lower end.

    Attributes:
        low: lower end.
        high: upper end.
        rows: how many; 0 leaves the means None.
        confidence: their mean confidence.
        accuracy: share of them that is right.
    """

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


def reliability(probabilities: Array, labels: Ids, bins: int = 15) -> list[ReliabilityBin]:
    """Bins of equal width of the probability of the most probable class.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: (n,) class ids.
        bins: at least 1.

    Raises:
        ValueError: shapes or values that do not fit.
    """
    _check(probabilities, labels)
    if bins < 1 or probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-6):
        raise ValueError("reliability: expected 1 bin or more and probabilities >= 0 whose rows sum to 1")
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    table = []
    for number in range(bins):
        inside = place == number
        count = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (None, None)
        table.append(ReliabilityBin(number / bins, (number + 1) / bins, count, *means))
    return table


def ece(table: list[ReliabilityBin]) -> float:
    """Expected calibration error in [0, 1]: mean distance of confidence and accuracy over rows (Naeini et al. 2015)."""
    rows = sum(row.rows for row in table)
    return sum(row.rows / rows * abs((row.confidence or 0) - (row.accuracy or 0)) for row in table)


def _check(values: Array, labels: Ids) -> None:
    if values.ndim != 2 or values.shape[1] < 2 or labels.shape != (len(values),) or not len(values):
        raise ValueError(
            f"expected (n, classes) values with 2 or more classes and (n,) labels, n > 0, found {values.shape} "
            f"and {labels.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("expected finite values, found others")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"labels: expected class ids 0 to {values.shape[1] - 1}, found others")
