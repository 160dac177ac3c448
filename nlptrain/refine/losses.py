"""Losses of one row with their derivatives in the outputs of the head.

Softmax probabilities do not change when one number is added to all logits of a row, so a loss of all logits has a
flat direction and a singular Hessian. A head of C logits is therefore fitted with C - 1 outputs g, logits = B g, where
the columns of B are orthonormal and orthogonal to the direction of ones: no minimum is lost, the Euclidean length
of the weights stays, and two classes become one logistic regression.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.special import log_softmax

Array = NDArray[np.float64]


class Rows(NamedTuple):
    """Loss of m rows and its derivatives in their K outputs.

    Attributes:
        loss: (m,).
        residual: first derivative, (m, K).
        root: (m, K, q), of which ``root @ root.T`` is the second derivative R of a row.
    """

    loss: Array
    residual: Array
    root: Array

    def curvature(self) -> Array:
        """R, (m, K, K), symmetric and positive semidefinite."""
        return self.root @ self.root.transpose(0, 2, 1)


@dataclass(frozen=True)
class CrossEntropy:
    """``-log softmax(lift g)[class]`` in nats.

    Args:
        basis: (outputs of the head, K): the outputs as a function of the K that are fitted.
        lift: (classes, K): the logits as a function of the K fitted outputs.
    """

    basis: Array
    lift: Array

    @classmethod
    def of(cls, outputs: int) -> "CrossEntropy":
        """For a head of one logit per class, or of one logit for the second of two classes."""
        if outputs == 1:
            return cls(np.ones((1, 1)), np.array([[0.0], [1.0]]))
        basis = helmert(outputs).T
        return cls(basis, basis)

    def __call__(self, outputs: Array, targets: Array) -> Rows:
        """`targets`: (m,) class ids."""
        log_p = log_softmax(outputs @ self.lift.T, axis=1)
        at = np.arange(len(targets)), targets.astype(np.intp)
        p = np.exp(log_p)
        wrong = p.copy()
        wrong[at] -= 1
        # diag(p) - p p' is S S' with S = diag(sqrt p) - p sqrt(p)', since the p sum to 1: no difference is taken
        root_p = np.sqrt(p)
        root = self.lift.T * root_p[:, None, :] - (p @ self.lift)[:, :, None] * root_p[:, None, :]
        return Rows(-log_p[at], wrong @ self.lift, root)


@dataclass(frozen=True)
class SquaredError:
    """Squared error of a row, summed over its outputs; with one output its mean is torch's MSELoss.

    Args:
        basis: as in `CrossEntropy`, the identity, for every output counts.
    """

    basis: Array

    @classmethod
    def of(cls, outputs: int) -> "SquaredError":
        """For a head of `outputs` scores."""
        return cls(np.eye(outputs))

    def __call__(self, outputs: Array, targets: Array) -> Rows:
        """`targets`: (m, K) scores."""
        error = outputs - targets
        root = np.broadcast_to(np.sqrt(2) * self.basis, (len(error), *self.basis.shape))
        return Rows(np.einsum("mk,mk->m", error, error), 2 * error, root)


Loss = CrossEntropy | SquaredError
LOSSES: dict[str, type[CrossEntropy] | type[SquaredError]] = {"cross_entropy": CrossEntropy, "mse": SquaredError}
