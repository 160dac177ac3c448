"""The normalised mean squared error over a run: its curve, its best step and, if wanted, the stop."""

import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

logger = logging.getLogger(__name__)
Point = Sequence[float]


def compute_nmse(eval_prediction: EvalPrediction) -> dict[str, float]:
    """``{"nmse": value}`` for the `compute_metrics` of a Trainer whose model gives one score a row.

    Args:
        eval_prediction: predictions (n,) or (n, 1), and label_ids of either shape.

    Returns:
        Squared error over that of always predicting the mean label: at least 0, 1 for the mean, equal to 1 - R2.

    Raises:
        Undefined: no rows, constant labels or values that are not finite.
        ValueError: other shapes.
    """
    # imported late: scikit-learn is needed for this alone
    from nlptrain.metrics import functions

    scores, labels = (_column(a) for a in (eval_prediction.predictions, eval_prediction.label_ids))
    return {"nmse": functions.compute("nmse", scores, labels)}


def best(curve: Sequence[Point]) -> Point | None:
    """The first point (step, value) of the lowest finite value; None where there is none."""
    return min((point for point in curve if math.isfinite(point[1])), key=lambda point: point[1], default=None)


def evaluations_without_improvement(curve: Sequence[Point], threshold: float) -> int:
    """How many of the newest points are not more than `threshold` below the lowest value before them."""
    lowest, waited = math.inf, 0
    for _, value in curve:
        waited = 0 if value < lowest - threshold else waited + 1
        lowest = min(lowest, value) if math.isfinite(value) else lowest
    return waited


class NMSE(TrainerCallback, ExportableState):
    """Keep the NMSE of every evaluation during training, and stop when it no longer falls.

    Evaluations after the end of training, for instance of the best model, do not belong to the curve. A resume
    continues the curve only with ``restore_callback_states_from_checkpoint=True``. One to a Trainer:
    the library does not restore two callbacks of one class.

    Args:
        metric: key of the evaluation metrics, ``eval_<data set>_nmse`` with several data sets.
        patience: evaluations in a row without improvement, at least 1, after which training stops; left out: never.
        threshold: by how much, at least 0, a value has to be below all before it to count as an improvement.

    Attributes:
        curve: [step, value] of every evaluation, a value that is not finite included.
        best_step: step of the lowest value; None before there is one.
        best_value: the lowest value.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, metric: str = "eval_nmse", patience: int | None = None, threshold: float = 0.0) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience must be at least 1 evaluation, found {patience}: the nearest valid value is 1")
        if not 0 <= threshold < math.inf:
            raise ValueError(
                f"threshold must be finite and at least 0, found {threshold}: the nearest valid value is 0"
            )
        self.metric, self.patience, self.threshold = metric, patience, threshold
        self.curve: list[list[float]] = []
        self.best_step: int | None = None
        self.best_value: float | None = None
        self.training_ = False
        self.offered_: list[str] = []

    def state(self) -> dict[str, Any]:
        """Arguments, curve and best point, for a checkpoint."""
        return {
            "args": {name: getattr(self, name) for name in ("metric", "patience", "threshold")},
            "attributes": {name: getattr(self, name) for name in ("curve", "best_step", "best_value")},
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a new curve, or go on with that of the checkpoint."""
        if not state.global_step:
            self.curve, self.best_step, self.best_value = [], None, None
        elif not self.curve:
            logger.warning("resumed without the %s curve of the steps up to %d", self.metric, state.global_step)
        self.training_, self.offered_ = True, []
        # a checkpoint made without this callback lacks its entry, and the library fails at the next save
        cast("dict[str, Any]", state.stateful_callbacks).setdefault(type(self).__name__, self.state())

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a point; other data sets' evaluations lack the key and are passed over."""
        if not self.training_:
            return
        metrics: dict[str, float] = kwargs["metrics"]
        self.offered_ = list(metrics)
        if self.metric not in metrics:
            return
        self.curve = [*self.curve, [state.global_step, float(metrics[self.metric])]]
        if (lowest := best(self.curve)) is not None:
            self.best_step, self.best_value = int(lowest[0]), lowest[1]
        if self.patience and evaluations_without_improvement(self.curve, self.threshold) >= self.patience:
            logger.info("%s: no improvement in %d evaluations, stopping", self.metric, self.patience)
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say the best value, and leave it in the Trainer's state."""
        self.training_ = False
        cast("dict[str, Any]", state.stateful_callbacks)[type(self).__name__] = self.state()
        if self.best_value is not None:
            logger.info("best %s %.6g at step %d", self.metric, self.best_value, self.best_step)
        elif self.offered_:
            logger.warning("no evaluation had a finite %s; the last one had: %s", self.metric, ", ".join(self.offered_))


def _column(values: Any) -> NDArray[Any]:
    array = np.asarray(values, dtype=np.float64)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
