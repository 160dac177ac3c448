"""The head fitted anew, and the decision whether it is used."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlptrain.head.features import Features
from nlptrain.head.place import HeadPlace
from nlptrain.models.target import attached
from nlptrain.refine import AUTO, Decision, Refined, accept, refine

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Some rows, as every process knows them.

    Attributes:
        features: of this process's share of them.
        targets: (n,) class ids, or scores in the user's unit.
        ids: (n,), what names each row.
    """

    features: Features
    targets: NDArray[Any]
    ids: Sequence[object]


@dataclass(frozen=True)
class Serving:
    """From the outputs of the head to what the model answers, at temperature 1.

    Attributes:
        regression: whether that is a score; else it is the logits of classes.
        mean: of a regression: the score is ``output * scale + mean``.
        scale: as `mean`, above 0.
    """

    regression: bool
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, model: Any) -> "Serving":
        """That of a model, ours or a stock one that answers in another unit."""
        config, target = model.config, attached(model)
        regression = config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1)
        mean = target.mean if target else getattr(config, "target_mean", 0.0)
        scale = target.scale if target else getattr(config, "target_scale", 1.0)
        return cls(regression, mean, scale)

    def answers(self, outputs: Array) -> Array:
        """(n, classes) logits or (n, 1) scores, from (n, outputs)."""
        if self.regression:
            return outputs * self.scale + self.mean
        return outputs if outputs.shape[1] > 1 else np.hstack([np.zeros_like(outputs), outputs])

    def targets(self, targets: NDArray[Any]) -> NDArray[Any]:
        """What the head is fitted to."""
        return (targets - self.mean) / self.scale if self.regression else targets


@dataclass(frozen=True)
class Method:
    """How a head is fitted, as in `nlptrain.refine.refine`."""

    method: str = AUTO
    l2: float | Literal["auto"] = "auto"
    proximal: bool = False


def refit(place: HeadPlace, rows: Rows, serving: Serving, before: Array, method: Method) -> Refined:
    """Fit the head on these rows; called by all processes. The model stays as it is.

    Args:
        place: of the head.
        rows: to fit on.
        serving: the unit of the targets.
        before: (P,) head to start from, and to pull towards where the method is proximal.
        method: which.

    Raises:
        ValueError, ResourceError, ProcessError: as `nlptrain.refine.refine`.
    """
    return refine(
        rows.features.x,
        rows.features.of(serving.targets(rows.targets)),
        place.head,
        before,
        loss="mse" if serving.regression else "cross_entropy",
        proximal=method.proximal,
        method=method.method,
        l2=method.l2,
    )


def outputs(place: HeadPlace, rows: Rows, vector: Array) -> Array:
    """(n, outputs) of a head on all rows, on all processes; called by all at once."""
    return rows.features.whole(place.head(vector, rows.features.x))


def decide(
    place: HeadPlace,
    guard: Rows,
    serving: Serving,
    refined: Array,
    metric: str,
    *,
    used: Collection[object],
    tolerance: float = 0.0,
) -> Decision:
    """Whether a refined head is to replace the one in the model; called by all processes, and the same on all.

    Args:
        place: of the head in the model, which is the one before.
        guard: rows that were used for nothing else.
        serving: what the model answers.
        refined: (P,).
        metric: that may not get worse.
        used: names of all rows that were used for anything.
        tolerance: as in `nlptrain.refine.accept`.

    Raises:
        ValueError: rows of the guard were used.
    """
    # the refined one as it would be stored
    before, after = (
        serving.answers(outputs(place, guard, vector)) for vector in (place.read(), place.rounded(refined))
    )
    return accept(
        before, after, guard.targets, metric, guard_ids=list(guard.ids), used_ids=set(used), tolerance=tolerance
    )
