"""Metrics of the logits of a classification, on whole arrays of one split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from nlptrain.metrics.undefined import Undefined

Array = NDArray[Any]
BINS = 15


def compute(name: str, logits: Array, labels: Array) -> float:
    """A metric of `PROBABILITY_METRICS`.

    Args:
        name: auroc, nll or ece.
        logits: (n, classes), finite.
        labels: class ids (n,).

    Raises:
        Undefined: auroc of labels that are all the same.
    """
    return float({"auroc": auroc, "nll": nll, "ece": ece}[name](logits, labels))


def row_nll(logits: Array, labels: Array) -> Array:
    """-log(probability of the right class) of every row, (n,), in nats."""
    return -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]


def nll(logits: Array, labels: Array) -> float:
    """Mean negative log likelihood, at least 0."""
    return float(row_nll(logits, labels).mean())


def bins(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Bin of every row by its highest probability, in `BINS` of equal width, and confidence minus hit; both (n,)."""
    probabilities = softmax(logits, axis=1)
    confidence = probabilities.max(axis=1)
    # a bin is open below and closed above, so that 1 lies in the last one
    found = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return found, confidence - (logits.argmax(axis=1) == labels)


def ece(logits: Array, labels: Array) -> float:
    """Expected calibration error in [0, 1]: mean over rows of |confidence - accuracy| of their bin.

    Guo et al. 2017 (arXiv 1706.04599, eq. 3), with 15 bins of equal width of the predicted class's probability.
    """
    bin_of_row, gaps = bins(logits, labels)
    return float(np.abs(np.bincount(bin_of_row, gaps, BINS)).sum() / len(labels))


def rankings(logits: Array, labels: Array) -> list[tuple[Array, Array]]:
    """What auroc ranks: the score (n,) of each class against the rest, and which rows (n,) are of it.

    The second of two classes alone; of more, those that some label has and some has not.
    """
    # of two classes the difference of the logits ranks as the probability does, and never rounds to 1
    if logits.shape[1] == 2:
        return [(logits[:, 1] - logits[:, 0], labels == 1)]
    probabilities = softmax(logits, axis=1)
    mine = [(probabilities[:, k], labels == k) for k in range(logits.shape[1])]
    return [(score, right) for score, right in mine if right.any() and not right.all()]


def auroc(logits: Array, labels: Array) -> float:
    """Mean over the classes of the area under the ROC curve of the class against the rest, in [0, 1].

    Raises:
        Undefined: all labels are the same.
    """
    if np.ptp(labels) == 0:
        raise Undefined("all labels are the same")
    return float(np.mean([roc_auc_score(right, score) for score, right in rankings(logits, labels)]))
