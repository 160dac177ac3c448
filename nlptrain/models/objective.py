"""From the `loss` section to what training lowers, and the part a cosine head has in it."""

from collections import Counter
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers.modeling_utils import PreTrainedModel

from nlptrain.config.schema import Config
from nlptrain.data.balance import class_weights
from nlptrain.data.labels import LabelMap
from nlptrain.errors import ConfigError
from nlptrain.models.heads import CosineHead
from nlptrain.models.loss import Loss
from nlptrain.models.target import TargetScale


def objective(config: Config, train: Dataset, labels: LabelMap | None, target: TargetScale | None) -> Loss:
    """The loss of a run.

    Args:
        config: its `loss`, `data.balance` and `training.label_smoothing_factor`.
        train: training rows with ``label``.
        labels: the classes; None for a regression.
        target: unit and range of the scores; None for a classification.

    Raises:
        ConfigError: class weights that do not fit the labels, or a loss that does not fit their number.
    """
    name, chosen = config.loss_name, config.loss
    settings: dict[str, Any] = {}
    if labels and chosen.class_weights:
        settings["class_weights"] = list(class_weights(chosen.class_weights, _counts(config, train, labels)).values())
    if name == "bce" and labels and len(labels.names) != 2:
        problem = f"bce is for two classes, found {len(labels.names)}; probabilities are served by softmax"
        raise ConfigError("LOSS", f"loss.name: {problem}; use cross_entropy")
    if smoothing := config.training.get("label_smoothing_factor"):
        settings["label_smoothing"] = smoothing
    if chosen.delta is not None:
        settings["delta"] = chosen.delta
    if target:
        settings["scale"] = _slope(target, chosen.lowest_cosine) if chosen.needs_cosine else target.scale
    try:
        return Loss(name, **settings)
    except ValueError as error:
        raise ConfigError("LOSS", f"loss: {error}") from error


def facts(loss: Loss, labels: LabelMap | None) -> dict[str, Any]:
    """Name, settings and the weight of each label; JSON-ready."""
    weights = dict(zip(labels.names, loss.class_weights, strict=True)) if labels and loss.class_weights else None
    return {"name": loss.name, **loss.settings, "class_weights": weights}


def hold_cosine(model: PreTrainedModel, target: TargetScale, lowest: int) -> None:
    """Fix the line from cosine to score: `lowest` (-1 or 0) is the lowest score and 1 the highest.

    The loss is then one of the cosine itself. Left to be learnt, the slope of the line could take over from the
    temperature of a ranking loss.
    """
    head, at_zero = cast(CosineHead, model.head), target.high - _slope(target, lowest)
    head.span((at_zero - target.mean) / target.scale, (target.high - target.mean) / target.scale)
    head.requires_grad_(False)


@torch.no_grad()
def fit_cosine(model: PreTrainedModel, scores: NDArray[np.float64], labels: NDArray[np.float64]) -> None:
    """Move the line of a ranking loss, which says nothing about the unit, to where it is nearest the labels.

    Args:
        model: with a cosine head; gave the `scores`.
        scores: (n,) of the training rows, in the user's unit.
        labels: (n,) of the training rows, in the user's unit.
    """
    slope, offset = np.polyfit(scores, labels, 1)
    head, mean, scale = cast(CosineHead, model.head), model.config.target_mean, model.config.target_scale
    head.weight.mul_(slope)
    head.bias.mul_(slope).add_((slope * mean + offset - mean) / scale)


def _slope(target: TargetScale, lowest: int) -> float:
    """Score per unit of cosine."""
    return (target.high - target.low) / (1 - lowest)


def _counts(config: Config, train: Dataset, labels: LabelMap) -> dict[str, int]:
    found = Counter(chain.from_iterable(map(labels.ids, train["label"][:])))
    largest = max(found.values())
    drawn = {number: largest if config.data.balance == "oversample" else count for number, count in found.items()}
    return {name: drawn.get(number, 0) for number, name in enumerate(labels.names)}
