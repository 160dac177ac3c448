"""Every row judged by the head that was fitted without it, for linear heads, without fitting it again.

With C the inverse Hessian of the summed objective, X the derivative of a row's outputs in the parameters,
``B = X C X'``, and r and R the first two derivatives of its loss in the outputs, one Newton step from the fit on all
rows to the fit without the row moves its outputs by ``B (I - R B)^-1 r``. For squared error the objective is quadratic,
so that the step is exact and this is the identity of the hat matrix; for cross entropy it is an approximation (Rad and
Maleki 2020, arXiv:1801.10243).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine.derivatives import Data
from nlptrain.refine.losses import Rows

Array = NDArray[np.float64]


class LeftOut(NamedTuple):
    """Rows under the head fitted without them.

    Attributes:
        outputs: (m, K) outputs of the fitted head.
        loss: (m,).
        gain: (m,), `loss` minus the loss under the head fitted with the row, at least 0 up to rounding: by how much the
            row has bent the head towards itself.
    """

    outputs: Array
    loss: Array
    gain: Array


def spread(x: Array, covariance: Array) -> Array:
    """``X C X'`` of each row of a linear head, (m, K, K).

    Args:
        x: (m, d + 1) rows.
        covariance: C, (P, P), symmetric.
    """
    outputs = len(covariance) // x.shape[1]
    found = np.empty((len(x), outputs, outputs))
    blocks = covariance.reshape(outputs, x.shape[1], outputs, x.shape[1])
    for k in range(outputs):
        for other in range(k + 1):
            found[:, k, other] = found[:, other, k] = np.einsum("md,md->m", x @ blocks[k, :, other], x)
    return found


def left_out(data: Data, w: Array, covariance: Array) -> LeftOut:
    """The rows of this process; `covariance` is the (P, P) inverse Hessian at w of the sum over all processes."""
    parts = [LeftOut(*(np.zeros((0, *rest)) for rest in ((data.head.outputs,), (), ())))]
    for x, targets, done in data.batches(w, data.x.shape[1]):
        rows = data.loss(done.outputs, targets)
        outputs = done.outputs + _shift(rows, spread(x, covariance))
        loss = data.loss(outputs, targets).loss
        parts.append(LeftOut(outputs, loss, loss - rows.loss))
    return LeftOut(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def left_out_loss(data: Data, at: Array) -> Array:
    """(1,): the sum of the left-out losses; `at` holds the parameters and the inverse Hessian of the sum."""
    size = data.head.size
    return np.array([left_out(data, at[:size], at[size:].reshape(size, size)).loss.sum()])


def _shift(rows: Rows, b: Array) -> Array:
    system = np.eye(b.shape[1]) - rows.curvature() @ b
    return np.asarray((b @ np.linalg.solve(system, rows.residual[:, :, None]))[:, :, 0])
