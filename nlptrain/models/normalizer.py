"""Normalisation of pooled embeddings, fitted once on the training rows and then frozen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from nlptrain.models.moments import Moments

Kind = Literal["l2", "standardize", "whiten", "all_but_the_top"]
EPSILON = 1e-12
# a feature, or a direction, below this share of the usual spread or the largest variance holds nothing but rounding
DEAD_STD, DEAD_EIGENVALUE = 1e-6, 1e-6
# where most features are dead, their median spread is itself rounding
ROUNDING = 1e-12


def check_kind(kind: str, size: int, components: int | None) -> None:
    """Refuse what cannot be done to embeddings of `size` numbers.

    Raises:
        ValueError: `components` belongs to another kind or is out of its range; says the nearest valid value.
    """
    if components is None:
        return
    most = {"whiten": size, "all_but_the_top": size - 1}.get(kind)
    if most is None:
        raise ValueError(f"components belongs to whiten and all_but_the_top, found {kind}: leave it out")
    if not 1 <= components <= most:
        near = min(max(components, 1), most)
        raise ValueError(
            f"{kind} of embeddings of size {size} takes 1 to {most} components, found {components}: "
            f"the nearest valid value is {near}"
        )


class EmbeddingNormalizer(nn.Module):
    """Normalise embeddings (B, H); all kinds but l2 are affine maps ``A (x - mean)`` of the training rows' moments.

    * l2: ``x / max(||x||, 1e-12)``.
    * standardize: ``(x - mean) / std`` with the population std; a dead feature, std up to 1e-6 of the median one,
      becomes exactly 0.
    * whiten: the first k principal components, each divided by its std (Su et al. 2021, arXiv:2103.15316); a direction
      with a variance up to 1e-6 of the largest becomes exactly 0.
    * all_but_the_top: ``x - mean`` without its first D principal components (Mu and Viswanath 2018, arXiv:1702.01417).

    Mean and map are buffers in float64, because a whitening in float32 misses unit covariance by far more than its
    outputs are rounded; the result has the precision of the input. Not for devices without float64 (MPS).

    Args:
        kind: as above.
        size: H.
        components: k, left out: H; or D, left out: H / 100, at least 1.

    Attributes:
        rows: number of embeddings it was fitted on; 0: not fitted, and then it refuses to normalise.

    Raises:
        ValueError: unknown kind, or components out of range.
    """

    mean: Tensor
    transform: Tensor
    rows: Tensor

    def __init__(self, kind: str, size: int, components: int | None = None) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, found {kind!r}")
        check_kind(kind, size, components)
        self.kind, self.size, self.components = kind, size, components
        self._observed: Moments | None = None
        if kind == "l2":
            return
        if kind == "all_but_the_top" and components is None:
            self.components = max(1, round(size / 100))
        shape = {"standardize": (size,), "whiten": (components or size, size)}.get(kind, (self.components or 0, size))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("transform", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))

    @property
    def output_size(self) -> int:
        """Numbers of a normalised embedding."""
        return len(self.transform) if self.kind == "whiten" else self.size

    @property
    def is_fitted(self) -> bool:
        """Whether it can normalise."""
        return self.kind == "l2" or bool(self.rows > 0)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, H) to (B, output_size); zeros while it observes.

        Raises:
            ValueError: it is not fitted.
        """
        if self._observed is not None:
            self._observed.update(embeddings)
            return embeddings.new_zeros(len(embeddings), self.output_size)
        if self.kind == "l2":
            return functional.normalize(embeddings, eps=EPSILON)
        if not self.is_fitted:
            raise ValueError(
                f"embeddings are to be normalised ({self.kind}), but nothing was fitted: train with the callback "
                f"nlptrain.callbacks.EmbeddingNormalization({self.kind!r})"
            )
        centred = embeddings.double() - self.mean
        if self.kind == "standardize":
            return (centred * self.transform).to(embeddings.dtype)
        projected = centred @ self.transform.T
        if self.kind == "all_but_the_top":
            projected = centred - projected @ self.transform
        return projected.to(embeddings.dtype)

    @contextmanager
    def observing(self) -> Iterator[Moments]:
        """Within the block embeddings are counted instead of normalised."""
        self._observed = Moments(self.size)
        try:
            yield self._observed
        finally:
            self._observed = None

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Fix the map by the moments of the training rows, in place.

        Raises:
            ValueError: fewer than two rows, or all the same.
        """
        if moments.rows < 2 or not bool(moments.scatter.diagonal().max() > 0):
            raise ValueError(
                f"embeddings cannot be normalised ({self.kind}): it takes at least two different ones, "
                f"found {moments.rows} rows"
            )
        found = _reciprocal_stds(moments) if self.kind == "standardize" else self._directions(moments)
        self.mean.copy_(moments.mean)
        self.transform.copy_(found)
        self.rows.fill_(moments.rows)

    def _directions(self, moments: Moments) -> Tensor:
        # ascending, and the vectors are columns
        found: tuple[Tensor, Tensor] = torch.linalg.eigh(moments.scatter / moments.rows)
        values = found[0].flip(0)[: len(self.transform)]
        vectors = found[1].flip(1)[:, : len(self.transform)].T
        if self.kind == "all_but_the_top":
            return vectors
        kept = values > DEAD_EIGENVALUE * values[0]
        scales = torch.where(kept, values.clamp(min=0).rsqrt(), 0.0)
        return vectors * scales.unsqueeze(1)

    def report(self) -> dict[str, int]:
        """What the fit found, for a log."""
        if self.kind == "standardize":
            return {"normalized_rows": int(self.rows), "dead_features": int((self.transform == 0).sum())}
        kept = int(self.transform.any(dim=1).sum())
        name = "kept_components" if self.kind == "whiten" else "removed_components"
        return {"normalized_rows": int(self.rows), name: kept}

    @torch.no_grad()
    def fold_into_linear(self, linear: nn.Linear) -> nn.Linear:
        """A layer that does to the plain embedding what `linear` does to the normalised one.

        Equal up to rounding in float32, which grows with |mean| / std of a feature.

        Args:
            linear: takes `output_size` inputs, or more of which the rest is always 0.

        Returns:
            H inputs; device and precision as `linear`.

        Raises:
            ValueError: l2 is no affine map; not fitted; or `linear` has no bias or too few inputs.
        """
        if self.kind == "l2" or not self.is_fitted:
            raise ValueError(f"only a fitted affine normalisation folds into a linear layer, found {self.kind}")
        if linear.bias is None or linear.in_features < self.output_size:
            raise ValueError(f"expected a layer with a bias and {self.output_size} inputs or more, found {linear}")
        weight = linear.weight.double()[:, : self.output_size]
        if self.kind == "standardize":
            weight = weight * self.transform
        else:
            weight = (
                weight @ self.transform
                if self.kind == "whiten"
                else weight - weight @ self.transform.T @ self.transform
            )
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        # without initial weights, which would draw random numbers in the midst of training
        make: Any = nn.utils.skip_init
        folded: nn.Linear = make(nn.Linear, self.size, linear.out_features, **like)
        folded.weight.copy_(weight)
        folded.bias.copy_(linear.bias.double() - weight @ self.mean)
        return folded


def _reciprocal_stds(moments: Moments) -> Tensor:
    stds = (moments.scatter.diagonal() / moments.rows).sqrt()
    floor = torch.maximum(DEAD_STD * stds.median(), ROUNDING * stds.max())
    return torch.where(stds > floor, stds.reciprocal(), 0.0)
