"""How sure a refined linear head is of each row: the Laplace approximation of its last layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from scipy.stats import t as student

from nlptrain.errors import ResourceError
from nlptrain.refine.derivatives import Data, gauss_newton, loss
from nlptrain.refine.fit import Refined
from nlptrain.refine.leave_one_out import LeftOut, left_out, spread
from nlptrain.refine.losses import LOSSES, CrossEntropy
from nlptrain.refine.matrices import inverse, require
from nlptrain.refine.reduction import add, refuse_together

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over the parameters of the fitted head, at the refined one (MacKay 1992; Daxberger et al. 2021).

    Attributes:
        refined: the head.
        covariance: (P', P') inverse Hessian of the summed objective; of squared error in units of twice the noise.
        noise: squared error, variance of a new score around its mean, ``SSE / freedom``; None for a cross entropy.
        freedom: rows minus effective dimension.
    """

    refined: Refined
    covariance: Array
    noise: float | None
    freedom: float

    def variance(self, features: Array) -> Array:
        """(m, K, K) variance of the fitted outputs of (m, d) raw features, without the noise of a new score."""
        return spread(self.refined.space.design(features), self.covariance) * (2 * self.noise if self.noise else 1)

    def probabilities(self, features: Array) -> Array:
        """(m, classes): the classes' probabilities, averaged over the posterior by the probit approximation.

        A logit f of variance v becomes ``f / sqrt(1 + pi v / 8)``; for two classes f is the difference of their
        logits, for more each logit is shrunk by its own variance.

        Raises:
            ValueError: the head is a regression.
        """
        if self.noise is not None:
            raise ValueError("probabilities are of a cross entropy, found mse; use interval")
        lift = CrossEntropy.of(self.refined.head.outputs).lift
        logits = self.refined.space.inside(self.refined.point, self.refined.space.design(features)[:, :-1]) @ lift.T
        variance = self.variance(features)
        if lift.shape[0] == 2:
            apart = lift[1] - lift[0]
            spread_of = np.einsum("k,mkl,l->m", apart, variance, apart)
            second = expit((logits[:, 1] - logits[:, 0]) / np.sqrt(1 + np.pi / 8 * spread_of))
            return np.stack([1 - second, second], axis=1)
        own = np.einsum("ck,mkl,cl->mc", lift, variance, lift)
        return np.asarray(softmax(logits / np.sqrt(1 + np.pi / 8 * own), axis=1))

    def interval(self, features: Array, level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper (m, outputs) ends that hold a new score with probability `level`.

        Raises:
            ValueError: the head is a classification, or `level` is not in (0, 1).
        """
        if self.noise is None:
            raise ValueError("an interval is of mse, found a cross entropy; use probabilities")
        if not 0 < level < 1:
            raise ValueError(f"level must be in (0, 1), found {level}")
        variance = np.diagonal(self.variance(features), axis1=1, axis2=2) + self.noise
        reach = student.ppf((1 + level) / 2, self.freedom) * np.sqrt(variance)
        middle = self.refined.outputs(features)
        return middle - reach, middle + reach

    def left_out(self, features: Array, targets: NDArray[Any]) -> LeftOut:
        """The rows of this process, which must be among those of the fit, under the head fitted without each.

        Exact for squared error, one Newton step a row for a cross entropy.
        """
        return left_out(_data(self.refined, features, targets), self.refined.point, self.covariance)


def posterior(refined: Refined, features: Array, targets: NDArray[Any]) -> Posterior:
    """The posterior from the rows that the head was refined on; called by all processes, each with its own.

    Raises:
        ValueError: the head is not linear.
        ResourceError: the matrices do not fit into memory.
        ProcessError: into that of another process.
    """
    if not refined.head.is_linear:
        raise ValueError("a posterior needs a linear head, found hidden units")
    data, w, size = _data(refined, features, targets), refined.point, refined.certificate.parameters
    refuse_together(_shortage(size))
    rows, l2 = refined.certificate.rows, refined.certificate.l2
    marks = np.where(data.head.biases() & (not refined.certificate.proximal), 0.0, 1.0)
    matrix = add(gauss_newton(data, w)[1 + size :]).reshape(size, size)
    matrix[np.diag_indices(size)] += rows * l2 * marks
    covariance = inverse(matrix)
    dimension = size - rows * l2 * float(np.sum(marks * np.diag(covariance)))
    freedom = rows - dimension / data.head.outputs
    noise = float(add(loss(data, w))[0]) / (freedom * data.head.outputs) if refined.loss == "mse" else None
    return Posterior(refined, covariance, noise, freedom)


def suspects(loss_without: Array, count: int) -> NDArray[np.int64]:
    """Indices of the `count` rows that the head fitted without them finds least plausible, the worst first.

    Args:
        loss_without: (n,), `LeftOut.loss`.
        count: at most n are given.
    """
    return np.argsort(-loss_without, kind="stable")[:count].astype(np.int64)


def _shortage(size: int) -> ResourceError | None:
    try:
        require("the posterior", size, 4, "reduce the features first")
    except ResourceError as error:
        return error
    return None


def _data(refined: Refined, features: Array, targets: NDArray[Any]) -> Data:
    space = refined.space
    wanted = targets if refined.loss == "cross_entropy" else np.reshape(targets, (-1, space.head.outputs))
    return Data(space.design(features), wanted, space.inside, LOSSES[refined.loss].of(space.head.outputs))
