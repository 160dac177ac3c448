"""The metrics as `evaluate.Metric` classes: thin, offline, 64-bit.

`load("nmse")` is a metric like those of `evaluate.load`, and `evaluate.combine` takes several of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from nlptrain.errors import ConfigError
from nlptrain.metrics import entities, functions
from nlptrain.metrics.registry import METRICS
from nlptrain.metrics.undefined import Undefined
from nlptrain.tasks import Kind


@dataclass(frozen=True)
class _Inputs:
    """What the metrics of one kind compare.

    Attributes:
        shown: one row of it, in words.
        feature: the same for `evaluate`.
        check: raises ValueError unless predictions and references, as the caller has them, are that.
        convert: one side, as `evaluate` hands it back, for `compute`.
        compute: name, predictions, references to the value.
    """

    shown: str
    feature: Any
    check: Callable[[Any, Any], None]
    convert: Callable[[Any], Any]
    compute: Callable[[str, Any, Any], float]


def _require_ids(predictions: functions.Vector, references: functions.Vector) -> None:
    functions.require_vectors(predictions, references)
    # evaluate would truncate 0.9 to class 0.
    if wrong := [str(v.dtype) for v in (predictions, references) if not np.issubdtype(v.dtype, np.integer)]:
        raise ValueError(f"expected integer class ids, found an array of {wrong[0]}: take the argmax first")


INPUTS: dict[Kind, _Inputs] = {
    "classification": _Inputs(
        "int64 value", datasets.Value("int64"), _require_ids, lambda v: np.asarray(v, "int64"), functions.compute
    ),
    "regression": _Inputs(
        "float64 value",
        datasets.Value("float64"),
        functions.require_vectors,
        lambda v: np.asarray(v, "float64"),
        functions.compute,
    ),
    "token_classification": _Inputs(
        "list of tags", datasets.List(datasets.Value("string")), entities.require_rows, list, entities.compute
    ),
}
_INPUTS = """
Args:
    predictions: one {shown} per row.
    references: one {shown} per row, in the same order.
Returns:
    {{"{name}": value}}; where it is undefined {{"{name}": None, "{name}_undefined": reason}}.
"""


class RegistryMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no annotations
    """Base of the classes; `metric` is a key of `METRICS`."""

    metric: ClassVar[str]

    def _info(self) -> evaluate.MetricInfo:
        spec = METRICS[self.metric]
        inputs = INPUTS[spec.kind]
        return evaluate.MetricInfo(
            description=spec.description,
            citation="",
            inputs_description=_INPUTS.format(name=spec.name, shown=inputs.shown),
            features=datasets.Features(dict.fromkeys(("predictions", "references"), inputs.feature)),
            # No format="numpy": it hands the values over as float32.
        )

    def _build_data_dir(self) -> str:
        # The base class makes a folder below ~/.cache even for a metric that never writes to it.
        return "" if self.keep_in_memory else str(super()._build_data_dir())

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        inputs = INPUTS[METRICS[self.metric].kind]
        try:
            value = inputs.compute(self.metric, inputs.convert(predictions), inputs.convert(references))
        # A raise would lose the other metrics of an evaluate.combine.
        except Undefined as reason:
            return {self.metric: None, f"{self.metric}_undefined": str(reason)}
        return {self.metric: value}


_CLASSES: dict[str, type[RegistryMetric]] = {name: type(name, (RegistryMetric,), {"metric": name}) for name in METRICS}


def load(name: str) -> RegistryMetric:
    """The metric `name`, which keeps its rows in memory and opens neither a file nor a connection.

    Raises:
        ConfigError: there is no such metric.
    """
    if name not in _CLASSES:
        raise ConfigError("METRIC", f"unknown metric {name!r}: choose one of {', '.join(METRICS)}")
    return _CLASSES[name](keep_in_memory=True)
