"""Two processes with the same rows in each step learn and measure what one does."""

import json
from pathlib import Path
from typing import Any

from nlptrain.config.schema import Config
from nlptrain.errors import ConfigError
from nlptrain.results import RunResult
from nlptrain.run_folder import RunFolder
from nlptrain.training_arguments import DEFAULTS
from nlptrain.verify.check import Check
from nlptrain.verify.children import COMMAND, Job, run
from nlptrain.verify.small import Small, small

LOSS = 1e-5
METRIC = 1e-9
# as torchrun has it; with another number sums are rounded in another order
_THREADS = {"OMP_NUM_THREADS": "1"}
# float32, since bfloat16 rounds by more than the tolerance, and rows one by one, so that they are padded the same
_EXACT = {"bf16": False, "fp16": False, "per_device_eval_batch_size": 1}


def checks(config: Config) -> list[Check]:
    """Train in one process and in two, without dropout, and evaluate the same model in both ways.

    Raises:
        ConfigError: the loss compares the rows of a process, so that two of them learn something else.
    """
    if config.loss_name == "cosent":
        raise ConfigError("VERIFY", "loss cosent compares the rows of one process: with two it learns from other pairs")
    size = max(2, (config.training.get("per_device_train_batch_size") or DEFAULTS["per_device_train_batch_size"]))
    each = size // 2
    with small(config, selects=False, dropout=0.0, token_dropout=0.0) as case:
        first, one = case.variant("one", per_device_train_batch_size=2 * each, **_EXACT)
        run([*COMMAND, "train", first], environment=_THREADS)
        second, two = case.variant("two", per_device_train_batch_size=each, **_EXACT)
        digest = case.folder / "weights-"
        run(Job(str(second), digest=str(digest)).words, processes=2, environment=_THREADS)
        losses = [_losses(folder) for folder in (one, two)]
        return [
            Check("processes", float(len(_digests(digest))), "2", len(_digests(digest)) == 2),
            Check.at_most("training loss: largest difference between 1 and 2 processes", _gap(*losses), LOSS),
            Check.at_most("weights: processes that differ from the first", len(set(_digests(digest))) - 1),
            Check.at_most("metrics: largest difference between 1 and 2 processes", _metrics_gap(case, one), METRIC),
        ]


def _digests(prefix: Path) -> list[str]:
    return [path.read_text("utf-8") for path in sorted(prefix.parent.glob(f"{prefix.name}*"))]


def _losses(folder: RunFolder) -> dict[Any, float | None]:
    entries = map(json.loads, folder.history.read_text("utf-8").splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def _metrics_gap(case: Small, finished: RunFolder) -> float:
    """The model of one process, scored by one process when it was trained, and now by two."""
    words = [*COMMAND, "evaluate", finished.path, "--data", case.validation, "--json"]
    _, out = run(words, processes=2, environment=_THREADS)
    ours = RunResult.read(finished.results).metrics["validation"]
    return _gap(ours, json.loads(out)["metrics"])


def _gap(one: dict[Any, float | None], other: dict[Any, float | None]) -> float:
    """The largest difference; infinite where one has a value that the other lacks, or both have none at all."""
    if one.keys() != other.keys() or not one:
        return float("inf")
    pairs = [(one[key], other[key]) for key in one]
    if any((a is None) != (b is None) for a, b in pairs):
        return float("inf")
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
