"""Dense matrices of second derivatives: what they need, and what they say."""

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from nlptrain.errors import ResourceError

Array = NDArray[np.float64]


def needed(parameters: int, matrices: int) -> int:
    """Bytes of `matrices` float64 matrices of that size."""
    return matrices * 8 * parameters * parameters


def available() -> int:
    """Bytes of memory that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def shown(size: int) -> str:
    """Bytes for messages."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def require(method: str, parameters: int, matrices: int, instead: str) -> None:
    """Refuse rather than swap; `instead` says what to do then.

    Raises:
        ResourceError: the matrices do not fit into memory.
    """
    need, free = needed(parameters, matrices), available()
    if need > free:
        raise ResourceError(
            "MEMORY",
            f"{method} needs {shown(need)} for {matrices} matrices of {parameters} x {parameters} numbers, "
            f"{shown(free)} are available; {instead}",
        )


def inverse(matrix: Array) -> Array:
    """Inverse of a symmetric positive definite matrix, itself exactly symmetric.

    Raises:
        scipy.linalg.LinAlgError: it is not positive definite.
    """
    factor, _ = cho_factor(matrix)
    upper = np.triu(lapack.dpotri(factor, overwrite_c=True)[0])
    upper += np.triu(upper, 1).T
    return np.asarray(upper)


def solve(matrix: Array, right: Array) -> Array:
    """``matrix^-1 right`` for a symmetric positive definite matrix.

    Raises:
        scipy.linalg.LinAlgError: it is not positive definite.
    """
    return np.asarray(cho_solve(cho_factor(matrix), right))
