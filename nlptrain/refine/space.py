"""From the user's features and head to the ones that are fitted, and back: standardised, without the flat direction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlptrain.refine.derivatives import CHUNK
from nlptrain.refine.head import Head
from nlptrain.refine.reduction import add

Array = NDArray[np.float64]

# a feature whose standard deviation is this small beside the median one is rounding, and dividing by it makes it noise
DEAD = 1e-6


@dataclass(frozen=True)
class Space:
    """The map between a head on raw features and the head that is fitted on standardised ones.

    Args:
        head: the head on raw features.
        basis: (outputs, K) of the loss, with orthonormal columns.
        mean: (d,) of all rows of all processes.
        scale: (d,) standard deviation over all rows; 0 for a dead feature, which is 0 in every standardised row.
    """

    head: Head
    basis: Array
    mean: Array
    scale: Array

    @classmethod
    def fit(cls, head: Head, basis: Array, features: Array) -> "Space":
        """Mean and scale of the features of all processes, each with its own (n, d); called by all at once."""
        rows = add(np.array([float(len(features))]))[0]
        mean = add(features.sum(axis=0)) / rows
        squares = np.zeros(head.features)
        for part in np.array_split(features, 1 + features.size // CHUNK):
            squares += np.square(part - mean).sum(axis=0)
        scale = np.sqrt(add(squares) / rows)
        dead = scale <= DEAD * max(np.median(scale), DEAD * scale.max())
        return cls(head, basis, mean, np.where(dead, 0.0, scale))

    @property
    def inside(self) -> Head:
        """The head that is fitted."""
        head = self.head
        return Head(head.features, self.basis.shape[1], head.hidden, head.activation, head.skip)

    def design(self, features: Array) -> Array:
        """(n, d + 1): standardised features and a column of ones."""
        x = np.ones((len(features), self.head.features + 1))
        np.subtract(features, self.mean, out=x[:, :-1])
        x[:, :-1] *= self._inverse()
        return x

    def enter(self, vector: Array) -> Array:
        """The fitted head's (P',) parameters of a raw head's (P,)."""
        inner, outer = self._standardised(vector)
        return np.concatenate([inner.ravel(), (self.basis.T @ outer).ravel()])

    def leave(self, vector: Array, anchor: Array) -> Array:
        """The raw head's (P,) parameters of a fitted head's (P',): on standardised rows the same outputs.

        Args:
            vector: of the fitted head.
            anchor: raw head that supplies what the fit cannot see: weights on dead features, and what all outputs
                share under softmax; zeros, or the head before the fit.
        """
        inner, outer = (part.copy() for part in self.inside.split(vector))
        shared = self._standardised(anchor)[1]
        outer = self.basis @ outer + (shared - self.basis @ (self.basis.T @ shared))
        for part, old in zip(self._on_features(inner, outer), self._on_features(*self.head.split(anchor)), strict=True):
            part[:, :-1] = np.where(self.scale > 0, part[:, :-1] * self._inverse(), old[:, :-1])
            part[:, -1] -= part[:, :-1] @ self.mean
        return np.concatenate([inner.ravel(), outer.ravel()])

    def _standardised(self, vector: Array) -> tuple[Array, Array]:
        inner, outer = (part.copy() for part in self.head.split(vector))
        for part in self._on_features(inner, outer):
            part[:, -1] += part[:, :-1] @ self.mean
            part[:, :-1] *= self.scale
        return inner, outer

    def _inverse(self) -> Array:
        return np.divide(1, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)

    def _on_features(self, inner: Array, outer: Array) -> list[Array]:
        """Views ``[W b]`` of the weights that multiply features, with their bias."""
        parts = [inner] if self.head.hidden else []
        return parts + ([outer[:, self.head.hidden :]] if self.head.skip else [])
