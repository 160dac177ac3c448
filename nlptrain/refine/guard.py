"""Whether a refined head replaces the one before, decided on rows that were used for nothing else."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain.metrics.functions import compute
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.undefined import Undefined
from nlptrain.refine.calibration import nll

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """The record of one decision, JSON-able by `as_dict`.

    Attributes:
        accepted: whether the refined head is to be used.
        why: one sentence.
        rows: it was decided on.
        metric: name of the primary metric.
        before: its value for the head before; None where it is undefined.
        after: for the refined head.
        loss: nll (nats) of a classification, mse of a regression.
        loss_before: of the head before.
        loss_after: of the refined head.
        tolerance: by how much the metric may be worse.
    """

    accepted: bool
    why: str
    rows: int
    metric: str
    before: float | None
    after: float | None
    loss: str
    loss_before: float
    loss_after: float
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def accept(
    before: Array,
    after: Array,
    targets: NDArray[Any],
    metric: str,
    *,
    guard_ids: Collection[object],
    used_ids: Collection[object],
    tolerance: float = 0.0,
) -> Decision:
    """Accept where the metric is not worse by more than `tolerance`, and the loss is not worse at all.

    Args:
        before: (n, classes) logits or (n, 1) scores of the head before, on the guard's rows.
        after: of the refined head on the same rows.
        targets: (n,) class ids or scores.
        metric: key of `nlptrain.metrics.registry.METRICS`.
        guard_ids: what names the n rows.
        used_ids: what names every row that a parameter, penalty, temperature or checkpoint was chosen on, or that a
            report is made from.
        tolerance: >= 0, in the metric's unit.

    Raises:
        ValueError: rows that were used elsewhere, or arrays that do not belong together.
    """
    _check_rows(before, after, targets, guard_ids, used_ids)
    if metric not in METRICS or not 0 <= tolerance < np.inf:
        raise ValueError(f"expected one of {', '.join(METRICS)} and a tolerance >= 0, found {metric!r}, {tolerance!r}")
    classes = METRICS[metric].kind == "classification"
    old, new = (
        _metric(metric, values.argmax(axis=1) if classes else values[:, 0], targets) for values in (before, after)
    )
    name, of = ("nll", nll) if classes else ("mse", _mse)
    losses = of(before, targets), of(after, targets)
    why = _objection(metric, old, new, tolerance) or _worse(name, losses)
    good = f"neither {metric} nor {name} is worse on {len(targets)} rows used for nothing else"
    return Decision(why is None, why or good, len(targets), metric, old, new, name, *losses, tolerance)


def _objection(metric: str, old: float | None, new: float | None, tolerance: float) -> str | None:
    if old is None or new is None:
        return f"{metric} is undefined on these rows"
    if (old - new if METRICS[metric].greater_is_better else new - old) > tolerance:
        return f"{metric} is worse: {new:.6g} after {old:.6g}"
    return None


def _worse(name: str, losses: tuple[float, float]) -> str | None:
    return f"{name} is worse: {losses[1]:.6g} after {losses[0]:.6g}" if losses[1] > losses[0] else None


def _metric(name: str, predictions: NDArray[Any], targets: NDArray[Any]) -> float | None:
    try:
        return compute(name, predictions, targets)
    except Undefined:
        return None


def _mse(outputs: Array, targets: Array) -> float:
    return float(np.square(outputs[:, 0] - targets).mean())


def _check_rows(
    before: Array, after: Array, targets: NDArray[Any], guard_ids: Collection[object], used_ids: Collection[object]
) -> None:
    rows = len(targets)
    if before.ndim != 2 or before.shape != after.shape or targets.shape != (len(before),) or not rows:
        raise ValueError(
            f"expected outputs (n, k) of both heads and targets (n,), n > 0, found {before.shape}, {after.shape} "
            f"and {targets.shape}"
        )
    for name, outputs in (("before", before), ("after", after)):
        if not np.isfinite(outputs).all():
            raise ValueError(f"expected finite outputs of the head {name}, found others")
    if len(set(guard_ids)) != rows or len(guard_ids) != rows:
        raise ValueError(f"guard_ids must name each of the {rows} rows once, found {len(set(guard_ids))} names")
    if shared := set(guard_ids) & set(used_ids):
        example = min(map(str, shared))
        raise ValueError(
            f"the guard's rows must be used for nothing else, found {len(shared)} that are, e.g. {example}; "
            "hold out rows for the guard before anything is fitted or chosen"
        )
