"""How sure a finished run is of each prediction: the Laplace approximation of the last layer of its head."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.special import softmax

from nlptrain.config import load as config_file
from nlptrain.config.refine import FIT
from nlptrain.errors import ConfigError
from nlptrain.head.features import compute
from nlptrain.head.refit import Method, refit
from nlptrain.inference import OpenRun, open_run
from nlptrain.predict import predict
from nlptrain.refine import posterior
from nlptrain.refine.losses import CrossEntropy
from nlptrain.refine.posterior import Posterior
from nlptrain.refine_command import run_rows
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.run_head import RunHead, kept, packed

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Uncertainty:
    """Standard errors around what a run serves.

    Attributes:
        run: the run.
        posterior: of its last layer, from rows that fine-tuning never saw.
        temperature: at which the run serves its logits.
    """

    run: RunHead
    posterior: Posterior
    temperature: float = 1.0

    def columns(self, encoded: Dataset, served: Array) -> Iterator[dict[str, float]]:
        """What is added to each prediction; called by all processes.

        Of a score ``standard_error``, of its mean, and ``lower`` and ``upper``, which hold a new score with
        probability 0.95; of a class ``standard_error``, of its probability, by the delta method.
        """
        features = self.features(encoded)
        variance = features.whole(self.posterior.variance(features.x))
        if not self.run.serving.regression:
            # from the basis of the fit to the logits of the classes
            lift = CrossEntropy.of(self.posterior.refined.head.outputs).lift
            errors = class_errors(served, lift @ variance @ lift.T, self.temperature)
            return ({"standard_error": float(error)} for error in errors)
        errors = np.sqrt(variance[:, 0, 0]) * self.run.serving.scale
        reach = features.whole(self._reach(features.x))
        middle = np.asarray(served, np.float64)[:, 0]
        return (
            {"standard_error": float(e), "lower": float(m - r), "upper": float(m + r)}
            for e, m, r in zip(errors, middle, reach, strict=True)
        )

    def coverage(self, rows: Dataset) -> dict[str, Any]:
        """Share of labelled rows whose score lies in its interval, and how many rows; called by all processes."""
        encoded = self.run.opened.encode(rows)
        columns = self.columns(encoded, self.run.opened.logits(encoded))
        inside = [c["lower"] <= y <= c["upper"] for c, y in zip(columns, rows["label"][:], strict=True)]
        return {"level": LEVEL, "coverage": float(np.mean(inside)), "rows": len(inside), "split": "validation"}

    def features(self, encoded: Dataset) -> Any:
        """What the last layer gets of encoded rows."""
        trainer = self.run.opened.trainer
        size = trainer.args.per_device_eval_batch_size
        return compute(self.run.model, self.run.place, encoded, trainer.data_collator, size)

    def _reach(self, x: Array) -> Array:
        """(m,) half the width of the intervals, in the unit of the scores."""
        lower, upper = self.posterior.interval(x, LEVEL)
        return np.asarray((upper - lower)[:, 0] / 2 * self.run.serving.scale)


def class_errors(logits: Array, variance: Array, temperature: float = 1.0) -> Array:
    """(m,) standard error of the likeliest class's probability: ``p (e_c - p)`` is its gradient in the logits.

    Args:
        logits: (m, classes), as they are served.
        variance: (m, classes, classes) of the logits before the temperature divides them.
        temperature: above 0.
    """
    p = softmax(np.asarray(logits, np.float64), axis=1)
    best = p.argmax(axis=1)
    gradient = p[np.arange(len(p)), best, None] * (np.eye(p.shape[1])[best] - p) / temperature
    return np.asarray(np.sqrt(np.einsum("mk,mkl,ml->m", gradient, variance, gradient)))


def predict_with_uncertainty(path: Path, source: str, output: Path) -> dict[str, Any]:
    """As `nlptrain.predict.predict`, each row with its standard error; of a regression with an interval.

    Returns:
        JSON-ready: that of `predict`, and of a regression ``interval``: how many validation rows it covers.

    Raises:
        ConfigError: the run held no rows out for a fit.
        DataError: the rows of the run changed, or unreadable rows.
        ModelError: the run is not finished, or its model has no linear layer at its end.
    """
    folder = RunFolder(path)
    folder.check_finished()
    config, result = config_file.load(folder.config), RunResult.read(folder.results)
    if config.refine is None or FIT not in config.refine.parts:
        raise ConfigError(
            "UNCERTAINTY",
            f"--uncertainty: {path} held no rows out for a fit, and errors on rows that fine-tuning saw are too small: "
            "train with a refine section (`refine: {when: []}` only holds rows out)",
        )
    splits = run_rows(config, result, path)
    opened = open_run(folder)
    found = fitted(folder, opened, splits.held_out[FIT], result)
    done = predict(opened, source, output, found.columns)
    return done | ({"interval": found.coverage(splits.rows["validation"])} if found.run.serving.regression else {})


def fitted(folder: RunFolder, opened: OpenRun, rows: Dataset, result: RunResult) -> Uncertainty:
    """The posterior whose prior is centred on the head as fine-tuning left it; called by all processes.

    Where a hidden layer, or the one that makes the embedding, was refined too, that is kept as it is served, and the
    prior of the last layer is centred there.
    """
    run = RunHead(folder, opened, "last")
    before = kept(run)
    linear = before is not None and before.keys() == run.place.head.shapes().keys()
    centre = packed(run, run.place, before) if before is not None and linear else run.place.read()
    data = run.rows("fit_last", rows)
    refined = refit(run.place, data, run.serving, centre, Method(proximal=True))
    x, y = data.features.x, data.features.of(run.serving.targets(data.targets))
    calibration = (result.refinement or {}).get("calibration") or {}
    return Uncertainty(run, posterior(refined, x, y), calibration.get("temperature", 1.0))
