"""Loss, gradient, Hessian and Hessian-vector product, summed over the rows of this process.

Everything is in closed form. With J the derivative of a row's outputs in the parameters, R the second and r the first
derivative of its loss in the outputs, the Hessian of a row is ``J' R J + sum_k r_k d2f_k`` (Schraudolph 2002, "Fast
curvature matrix-vector products"). Its first term is the Gauss-Newton matrix, positive semidefinite, and all there is
for a linear head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine.head import Head, Pass
from nlptrain.refine.losses import Loss, Rows

Array = NDArray[np.float64]

# numbers in one temporary: a few megabytes stay in the cache, and memory does not grow with the rows
CHUNK = 2**19


class Batch(NamedTuple):
    """Consecutive rows: their features (m, d + 1), targets, and forward pass."""

    x: Array
    targets: Array
    done: Pass


@dataclass(frozen=True)
class Data:
    """The rows of this process as the fit sees them.

    Args:
        x: (n, d + 1), standardised features and a last column of ones.
        targets: (n,) class ids, or (n, K) scores.
        head: its outputs are the K of the loss.
        loss: of one row.
    """

    x: Array
    targets: Array
    head: Head
    loss: Loss

    def batches(self, vector: Array, width: int) -> Iterator[Batch]:
        """The rows in order, few enough at a time for a temporary of `width` numbers a row."""
        step = max(1, CHUNK // width)
        for start in range(0, len(self.x), step):
            x = self.x[start : start + step]
            yield Batch(x, self.targets[start : start + step], self.head.forward(vector, x))

    def passes(self, vector: Array, width: int) -> Iterator[tuple[Array, Pass, Rows]]:
        """As `batches`, with the loss of every row in place of its target."""
        for x, targets, done in self.batches(vector, width):
            yield x, done, self.loss(done.outputs, targets)


def loss(data: Data, at: Array) -> Array:
    """(1,): the sum of the losses at the parameters `at`."""
    return np.array([sum(rows.loss.sum() for _, _, rows in data.passes(at, data.x.shape[1]))], dtype=np.float64)


def gradient(data: Data, at: Array) -> Array:
    """(1 + P,): the sum of the losses, then its gradient."""
    total = np.zeros(1 + len(at))
    for x, done, rows in data.passes(at, data.x.shape[1]):
        total[0] += rows.loss.sum()
        total[1:] += _gradient(data.head, at, x, done, rows)
    return total


def gauss_newton(data: Data, at: Array) -> Array:
    """(1 + P + P * P,): the sum of the losses, its gradient, and the Gauss-Newton matrix row by row."""
    return _second(data, at, exact=False)


def hessian(data: Data, at: Array) -> Array:
    """(1 + P + P * P,): the sum of the losses, its gradient, and the exact Hessian row by row."""
    return _second(data, at, exact=True)


def product(data: Data, at: Array) -> Array:
    """(P,): the exact Hessian at the first half of `at` times its second half."""
    vector, direction = np.split(at, 2)
    head, (v_inner, v_outer) = data.head, data.head.split(direction)
    total, w2, v2 = np.zeros(len(vector)), head.split(vector)[1][:, : head.hidden], v_outer[:, : head.hidden]
    for x, done, rows in data.passes(vector, data.x.shape[1]):
        inner, outer = np.zeros(head.inner_shape), np.zeros(head.outer_shape)
        turn = x @ v_inner.T
        moved = done.z @ v_outer.T + (done.slope * turn) @ w2.T
        residual = np.einsum("mkq,mlq,ml->mk", rows.root, rows.root, moved)
        outer += residual.T @ done.z
        outer[:, : head.hidden] += rows.residual.T @ (done.slope * turn)
        inner += ((residual @ w2 + rows.residual @ v2) * done.slope + rows.residual @ w2 * done.bend * turn).T @ x
        total += np.concatenate([inner.ravel(), outer.ravel()])
    return total


def _gradient(head: Head, vector: Array, x: Array, done: Pass, rows: Rows) -> Array:
    back = rows.residual @ head.split(vector)[1][:, : head.hidden]
    return np.concatenate([((back * done.slope).T @ x).ravel(), (rows.residual.T @ done.z).ravel()])


def _second(data: Data, at: Array, *, exact: bool) -> Array:
    head, size = data.head, len(at)
    total = np.zeros(1 + size + size * size)
    matrix = total[1 + size :].reshape(size, size)
    for x, done, rows in data.passes(at, data.x.shape[1] if head.is_linear else size * (head.outputs + 1)):
        total[0] += rows.loss.sum()
        total[1 : 1 + size] += _gradient(head, at, x, done, rows)
        if head.is_linear:
            _add_linear(matrix, done.z, rows.curvature())
        else:
            _add_gauss_newton(matrix, head, at, x, done, rows)
            if exact:
                _add_second_derivatives(matrix, head, at, x, done, rows)
    return total


def _add_linear(matrix: Array, z: Array, curvature: Array) -> None:
    """``sum R_kl z z'`` for every pair of outputs; a product of a matrix with its own transpose takes half the time."""
    width = z.shape[1]
    blocks = [slice(k * width, (k + 1) * width) for k in range(curvature.shape[1])]
    for k, row in enumerate(blocks):
        root = z * np.sqrt(curvature[:, k, k])[:, None]
        matrix[row, row] += root.T @ root
        for other, column in enumerate(blocks[:k]):
            block = z.T @ (z * curvature[:, k, other][:, None])
            matrix[row, column] += block
            matrix[column, row] += block.T


def _add_gauss_newton(matrix: Array, head: Head, vector: Array, x: Array, done: Pass, rows: Rows) -> None:
    """``A' A`` with ``A = root' J``, which no rounding can make indefinite."""
    w2, root = head.split(vector)[1][:, : head.hidden], rows.root.transpose(0, 2, 1)
    inner = (root @ w2 * done.slope[:, None, :])[..., None] * x[:, None, None, :]
    outer = root[..., None] * done.z[:, None, None, :]
    lines = x.shape[0] * root.shape[1]
    a = np.hstack([inner.reshape(lines, -1), outer.reshape(lines, -1)])
    matrix += a.T @ a


def _add_second_derivatives(matrix: Array, head: Head, vector: Array, x: Array, done: Pass, rows: Rows) -> None:
    """``sum_k r_k d2f_k``: each hidden unit with itself, and with the weights that lead from it to the outputs."""
    w2 = head.split(vector)[1][:, : head.hidden]
    bent = rows.residual @ w2 * done.bend
    border, (height, width) = int(np.prod(head.inner_shape)), head.outer_shape
    for unit in range(head.hidden):
        own = slice(unit * x.shape[1], (unit + 1) * x.shape[1])
        block = x.T @ (x * bent[:, unit, None])
        matrix[own, own] += (block + block.T) / 2
        cross = (rows.residual * done.slope[:, unit, None]).T @ x
        columns = border + unit + width * np.arange(height)
        matrix[own, columns] += cross.T
        matrix[columns, own] += cross
