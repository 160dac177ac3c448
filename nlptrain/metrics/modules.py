"""The metrics as `evaluate.Metric` classes: thin, offline, 64-bit.

`load("nmse")` is a metric like those of `evaluate.load`, and `evaluate.combine` takes several of them.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from nlptrain.errors import ConfigError
from nlptrain.metrics.functions import Undefined, compute
from nlptrain.metrics.registry import METRICS

_DTYPES = {"classification": "int64", "regression": "float64"}
_INPUTS = """
Args:
    predictions: one {dtype} value per row.
    references: one {dtype} value per row, in the same order.
Returns:
    {{"{name}": value}}; where it is undefined {{"{name}": None, "{name}_undefined": reason}}.
"""


class RegistryMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no annotations
    """Base of the classes; `metric` is a key of `METRICS`."""

    metric: ClassVar[str]

    def _info(self) -> evaluate.MetricInfo:
        spec = METRICS[self.metric]
        dtype = _DTYPES[spec.kind]
        return evaluate.MetricInfo(
            description=spec.description,
            citation="",
            inputs_description=_INPUTS.format(name=spec.name, dtype=dtype),
            features=datasets.Features({side: datasets.Value(dtype) for side in ("predictions", "references")}),
            # No format="numpy": it hands the values over as float32.
        )

    def _build_data_dir(self) -> str:
        # The base class makes a folder below ~/.cache even for a metric that never writes to it.
        return "" if self.keep_in_memory else str(super()._build_data_dir())

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, Any]:
        dtype = _DTYPES[METRICS[self.metric].kind]
        try:
            value = compute(self.metric, np.asarray(predictions, dtype), np.asarray(references, dtype))
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
