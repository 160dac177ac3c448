"""What a run folder holds, read once; a part that is not there is named, not missed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlptrain.config import load as config_file
from nlptrain.config.schema import Config
from nlptrain.errors import ModelError
from nlptrain.metrics.registry import MetricSpec, spec
from nlptrain.predictions import Predictions
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder


@dataclass(frozen=True)
class RunFacts:
    """A finished run.

    Attributes:
        folder: where it is.
        config: its resolved configuration.
        result: its record.
        history: log entries in their order.
        predictions: of the split that is looked at closely; None: there are none.
        missing: part of the folder to the reason why it cannot be shown.
    """

    folder: RunFolder
    config: Config
    result: RunResult
    history: Sequence[dict[str, Any]]
    predictions: Predictions | None
    missing: dict[str, str]

    @property
    def split(self) -> str | None:
        """The rows that are looked at closely: of test where they are labelled, else of the first scored split."""
        return _split(self.result)

    @property
    def primary(self) -> MetricSpec:
        """The metric that selects checkpoints."""
        return spec(self.config.spec.primary)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of their ids; none for a regression."""
        return tuple(self.result.model.get("labels") or ())

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every log entry that has a finite number under `key`."""
        return [
            (float(entry["step"]), float(entry[key]))
            for entry in self.history
            if isinstance(entry.get(key), int | float) and isinstance(entry.get("step"), int)
        ]

    @classmethod
    def read(cls, path: Path) -> "RunFacts":
        """The run at `path`.

        Raises:
            ModelError: not a run folder, or the run is not finished, or its record cannot be read.
            ConfigError: its configuration cannot be read.
        """
        folder = RunFolder(path)
        folder.check_run()
        if not folder.results.is_file():
            raise ModelError("RUN", f"{path}: no results.json yet; finish the run with `nlptrain train ... --resume`")
        config, result = config_file.load(folder.config), RunResult.read(folder.results)
        missing: dict[str, str] = {}
        history = _history(folder.history, missing)
        found, split = None, _split(result)
        try:
            found = Predictions.read(folder.predictions(split)) if split else None
        except ModelError as error:
            missing["predictions"] = str(error)
        if split is None:
            missing["predictions"] = "no split but the training rows was labelled, so nothing was scored"
        return cls(folder, config, result, history, found, missing)


def _split(result: RunResult) -> str | None:
    return "test" if "test" in result.metrics else next(iter(result.metrics), None)


def _history(path: Path, missing: dict[str, str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            try:
                entries.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                missing["history"] = f"{path}:{number} is not a log entry: {error}; shown is what stands before it"
                return entries
    except (OSError, UnicodeDecodeError) as error:
        missing["history"] = f"{path} cannot be read: {error}"
    if not entries:
        missing.setdefault("history", f"{path} is empty")
    return entries
