"""Which model classes serve which kind of task."""

from dataclasses import dataclass
from typing import Any

from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification, AutoModelForTokenClassification

from nlptrain.models.modeling import (
    NlpTrainForSequenceClassification,
    NlpTrainForTokenClassification,
    NlpTrainModel,
)
from nlptrain.tasks import Kind


@dataclass(frozen=True)
class ModelClasses:
    """The classes of one kind.

    Attributes:
        auto: finds the library's own model, and a trained one of ours.
        ours: encoder and head.
        pooling: what the kind needs in place of the configured pooling; None: nothing.
        problem_type: as in the configuration of the model.
    """

    auto: Any
    ours: type[NlpTrainModel]
    problem_type: str | None
    pooling: str | None = None


_SEQUENCE = (AutoModelForSequenceClassification, NlpTrainForSequenceClassification)
_TOKENS = (AutoModelForTokenClassification, NlpTrainForTokenClassification)

CLASSES: dict[Kind, ModelClasses] = {
    "classification": ModelClasses(*_SEQUENCE, "single_label_classification"),
    "regression": ModelClasses(*_SEQUENCE, "regression"),
    "token_classification": ModelClasses(*_TOKENS, "single_label_classification", pooling="none"),
}
