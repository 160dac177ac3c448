"""The temperature at which a model serves probabilities."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from nlptrain.head.place import HeadPlace
from nlptrain.models.modeling import NlpTrainModel
from nlptrain.predictions import Predictions
from nlptrain.refine import ece, fit_temperature, nll, reliability

Array = NDArray[np.float64]


def calibrate(logits: Array, labels: NDArray[np.integer]) -> dict[str, Any]:
    """The best temperature for (n, classes) logits of rows that the model was not trained on, and what it does to them.

    Returns:
        JSON-ready: ``temperature``, ``rows``, and of these rows ``nll_before``, ``nll_after`` (nats), ``ece_before``
        and ``ece_after`` (15 bins); ``why`` no temperature was found, which is then 1, or None.
    """
    why: str | None = None
    found: dict[str, Any] = {"temperature": 1.0, "rows": len(labels), "nll_before": nll(logits, labels)}
    try:
        best = asdict(fit_temperature(logits, labels))
        found["temperature"] = best.pop("value")
        found |= best
    except ValueError as error:
        why = str(error)
    after = logits / found["temperature"]
    found["nll_after"] = nll(after, labels)
    for name, values in (("before", logits), ("after", after)):
        found[f"ece_{name}"] = ece(reliability(softmax(values, axis=1), labels))
    return found | {"why": why}


def table(found: Predictions) -> list[dict[str, Any]]:
    """The reliability of a model's answers, JSON-ready; see `nlptrain.refine.ReliabilityBin`."""
    return [asdict(row) for row in reliability(softmax(found.outputs, axis=1), found.labels)]


def serve_at(model: Any, place: HeadPlace, temperature: float) -> None:
    """Let the model divide its logits: by its configuration, or in a stock model by its last layer, for good."""
    if isinstance(model, NlpTrainModel):
        model.config.temperature = temperature
    elif temperature != 1:
        arrays = place.head.unpack(place.read())
        last = {name: arrays[name] / temperature for name in ("weight", "bias")}
        place.write(place.head.pack(arrays | last))
