"""The unit of a regression: models learn scores in a unit of their own and answer in the user's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel

from nlptrain.errors import DataError, ModelError
from nlptrain.models.loss import usual
from nlptrain.tasks import TaskSpec

Unit = Literal["standardize", "min_max", "none"]
_ATTACHED: WeakKeyDictionary[nn.Module, tuple[RemovableHandle, "TargetScale"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class TargetScale:
    """Scores in the user's unit are ``z * scale + mean``; z is what a model learns, and the unit of its loss.

    Attributes:
        mean: the score at z = 0.
        scale: the difference of scores that is 1 in z, above 0.
        low: lowest score that can occur, in the user's unit.
        high: highest score that can occur.
    """

    mean: float
    scale: float
    low: float
    high: float

    @classmethod
    def fit(
        cls, scores: Sequence[float], label_range: tuple[float, float] | None, unit: Unit = "standardize"
    ) -> "TargetScale":
        """Unit of the training `scores`.

        Args:
            scores: of the training rows, in the user's unit.
            label_range: lowest and highest valid score, where the task has them.
            unit: standardize, by mean and population standard deviation of `scores`; min_max, to [0, 1] from the lowest
                to the highest of `label_range`, or else of `scores`; none, the user's unit as it is.

        Raises:
            DataError: no scores, a score that is not finite, or all scores the same.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all() or values.min() == values.max():
            raise DataError("DATA_LABEL", "training scores must be finite numbers, at least two of them different")
        low, high = map(float, label_range or (values.min(), values.max()))
        units = {
            "standardize": (float(values.mean()), float(values.std())),
            "min_max": (low, high - low),
            "none": (0.0, 1.0),
        }
        mean, scale = units[unit]
        return cls(mean=mean, scale=scale, low=low, high=high)

    @classmethod
    def of(cls, task: TaskSpec, targets: Sequence[Any], unit: Unit) -> "TargetScale | None":
        """`fit` for a regression; None for another task."""
        return cls.fit(targets, task.label_range, unit) if task.kind == "regression" else None


def attach(model: PreTrainedModel, target: TargetScale) -> None:
    """Let a stock regression model answer in the user's unit while it is trained; `fold` makes that permanent.

    Raises:
        ModelError: the model already does.
    """
    if model in _ATTACHED:
        raise ModelError("MODEL_TARGET", "the model already answers in the user's unit; attach a target once")

    def to_user_unit(
        _: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], output: SequenceClassifierOutput
    ) -> SequenceClassifierOutput:
        output.logits = cast(Tensor, output.logits).float() * target.scale + target.mean
        if inputs.get("labels") is not None:
            output.loss = usual(target.scale).rows(output.logits, inputs["labels"]).mean()
        return output

    _ATTACHED[model] = model.register_forward_hook(to_user_unit, with_kwargs=True), target


def attached(model: nn.Module) -> TargetScale | None:
    """The unit between the last layer and the answers of a stock model; None: they are the same."""
    return _ATTACHED[model][1] if model in _ATTACHED else None


@torch.no_grad()
def fold(model: PreTrainedModel, target: TargetScale) -> None:
    """Undo `attach` and put the unit into the last linear layer instead: the saved model is purely stock.

    Raises:
        ModelError: nothing is attached, or it is not clear which layer gives the score.
    """
    if model not in _ATTACHED:
        raise ModelError("MODEL_TARGET", "the model does not answer in the user's unit; there is nothing to fold")
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1 and m.bias is not None]
    if len(layers) != 1:
        raise ModelError(
            "MODEL_TARGET",
            f"expected one linear layer with a bias and one output in {type(model).__name__}, found {len(layers)}; "
            "use architecture cross_encoder for this encoder",
        )
    _ATTACHED.pop(model)[0].remove()
    layers[0].weight.mul_(target.scale)
    layers[0].bias.mul_(target.scale).add_(target.mean)
