"""The shape of a head, its activations with their first two derivatives, and the order of its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

Array = NDArray[np.float64]

NEGATIVE_SLOPE = 0.01


def leaky_relu(a: Array) -> tuple[Array, Array, Array]:
    """``max(a, 0.01 a)``, as torch's LeakyReLU; its second derivative is 0 wherever it exists."""
    slope = np.where(a > 0, 1.0, NEGATIVE_SLOPE)
    return slope * a, slope, np.zeros_like(a)


def relu(a: Array) -> tuple[Array, Array, Array]:
    """``max(a, 0)``."""
    slope = np.where(a > 0, 1.0, 0.0)
    return slope * a, slope, np.zeros_like(a)


def gelu(a: Array) -> tuple[Array, Array, Array]:
    """``a Phi(a)`` with the normal distribution function Phi, as torch's GELU without its tanh approximation."""
    below, density = ndtr(a), np.exp(-a * a / 2) / np.sqrt(2 * np.pi)
    return a * below, below + a * density, density * (2 - a * a)


def sigmoid(a: Array) -> tuple[Array, Array, Array]:
    """``1 / (1 + exp(-a))``."""
    value = expit(a)
    slope = value * (1 - value)
    return value, slope, slope * (1 - 2 * value)


def tanh(a: Array) -> tuple[Array, Array, Array]:
    """Hyperbolic tangent."""
    value = np.tanh(a)
    slope = 1 - value * value
    return value, slope, -2 * value * slope


ACTIVATIONS: dict[str, Callable[[Array], tuple[Array, Array, Array]]] = {
    function.__name__: function for function in (leaky_relu, relu, gelu, sigmoid, tanh)
}


class Pass(NamedTuple):
    """What a forward pass of m rows leaves behind.

    Attributes:
        z: what the last layer sees, (m, hidden + d + 1).
        slope: first derivative of the activation at each hidden unit, (m, hidden).
        bend: second derivative, (m, hidden).
        outputs: (m, outputs).
    """

    z: Array
    slope: Array
    bend: Array
    outputs: Array


@dataclass(frozen=True)
class Head:
    """``f(x) = W2 phi(W1 x + b1) + Ws x + b``; without hidden units ``f(x) = Ws x + b``, the linear head.

    As a vector: the rows of ``[W1 b1]`` (hidden, d + 1), then the rows of ``[W2 Ws b]`` (outputs, hidden + d + 1).

    Args:
        features: d, at least 1.
        outputs: number of outputs, at least 1.
        hidden: number of hidden units; 0: a linear head.
        activation: key of `ACTIVATIONS`.
        skip: whether the last layer also sees x; always for a linear head.

    Raises:
        ValueError: a size or a name out of range.
    """

    features: int
    outputs: int
    hidden: int = 0
    activation: str = "leaky_relu"
    skip: bool = True

    def __post_init__(self) -> None:
        if self.features < 1 or self.outputs < 1 or self.hidden < 0:
            raise ValueError(
                "a head needs 1 or more features and outputs and 0 or more hidden units, found "
                f"{self.features}, {self.outputs} and {self.hidden}"
            )
        if self.activation not in ACTIVATIONS:
            near = (get_close_matches(self.activation, ACTIVATIONS, 1) or list(ACTIVATIONS))[0]
            raise ValueError(f"activation: no {self.activation!r}; the nearest valid name is {near!r}")
        if not (self.hidden or self.skip):
            raise ValueError("a head without hidden units needs skip=True, or its outputs see nothing")

    @property
    def is_linear(self) -> bool:
        """Whether there are no hidden units, so that the penalised loss is convex."""
        return self.hidden == 0

    @property
    def inner_shape(self) -> tuple[int, int]:
        """Shape of ``[W1 b1]``."""
        return self.hidden, self.features + 1

    @property
    def outer_shape(self) -> tuple[int, int]:
        """Shape of ``[W2 Ws b]``."""
        return self.outputs, self.hidden + (self.features if self.skip else 0) + 1

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return int(np.prod(self.inner_shape) + np.prod(self.outer_shape))

    def split(self, vector: Array) -> tuple[Array, Array]:
        """``[W1 b1]`` and ``[W2 Ws b]`` as views of a (P,) vector.

        Raises:
            ValueError: another length.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"this head has {self.size} parameters, found a vector of shape {vector.shape}")
        border = int(np.prod(self.inner_shape))
        return vector[:border].reshape(self.inner_shape), vector[border:].reshape(self.outer_shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of this head, as `pack` takes and `unpack` gives them."""
        found: dict[str, tuple[int, ...]] = {"bias": (self.outputs,)}
        if self.is_linear:
            return {"weight": (self.outputs, self.features), **found}
        found |= {"hidden_weight": (self.hidden, self.features), "hidden_bias": (self.hidden,)}
        found |= {"weight": (self.outputs, self.hidden)}
        return found | ({"skip_weight": (self.outputs, self.features)} if self.skip else {})

    def pack(self, arrays: Mapping[str, Array]) -> Array:
        """The (P,) float64 vector of named arrays: weight and bias; hidden_weight, hidden_bias and skip_weight.

        `weight` is ``Ws`` of a linear head and ``W2`` of another. Rows are outputs, as in ``torch.nn.Linear``.

        Raises:
            ValueError: other names or shapes than `shapes`.
        """
        found = {name: np.shape(array) for name, array in arrays.items()}
        if found != self.shapes():
            raise ValueError(f"this head has the arrays {self.shapes()}, found {found}")
        names = ("weight", "skip_weight") if self.hidden else ("weight",)
        outer = [arrays[name] for name in names if name in arrays] + [np.asarray(arrays["bias"])[:, None]]
        parts = [np.hstack(outer)]
        if self.hidden:
            parts.insert(0, np.hstack([arrays["hidden_weight"], np.asarray(arrays["hidden_bias"])[:, None]]))
        return np.concatenate([part.ravel() for part in parts]).astype(np.float64)

    def unpack(self, vector: Array) -> dict[str, Array]:
        """The named arrays of a (P,) vector; the inverse of `pack`."""
        inner, outer = self.split(vector)
        if self.is_linear:
            return {"weight": outer[:, :-1].copy(), "bias": outer[:, -1].copy()}
        found = {"hidden_weight": inner[:, :-1].copy(), "hidden_bias": inner[:, -1].copy()}
        found |= {"weight": outer[:, : self.hidden].copy(), "bias": outer[:, -1].copy()}
        return found | ({"skip_weight": outer[:, self.hidden : -1].copy()} if self.skip else {})

    def biases(self) -> NDArray[np.bool_]:
        """(P,), True where the parameter multiplies a constant."""
        marks = np.zeros(self.size)
        inner, outer = self.split(marks)
        inner[:, -1] = outer[:, -1] = 1
        return marks.astype(bool)

    def forward(self, vector: Array, x: Array) -> Pass:
        """Pass of m rows through the head.

        Args:
            vector: (P,) parameters.
            x: (m, d + 1), features and a last column of ones.
        """
        inner, outer = self.split(vector)
        if self.is_linear:
            return Pass(x, x[:, :0], x[:, :0], x @ outer.T)
        value, slope, bend = ACTIVATIONS[self.activation](x @ inner.T)
        z = np.hstack([value, x if self.skip else x[:, -1:]])
        return Pass(z, slope, bend, z @ outer.T)

    def __call__(self, vector: Array, features: Array) -> Array:
        """(m, outputs) of (m, d) features."""
        return self.forward(vector, np.hstack([features, np.ones((len(features), 1))])).outputs
