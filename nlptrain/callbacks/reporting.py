"""Reporting to TensorBoard, trackio, MLflow and others by the Trainer's own integrations: what they leave open."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from nlptrain.config.reporters import NONE, REPORTERS, names

FOLDER_VARIABLE = "TENSORBOARD_LOGGING_DIR"


def check(report_to: Any) -> None:
    """Raise `ValueError` where a package that ``report_to`` needs is not installed, naming those that are there."""
    for name in names(report_to):
        packages = REPORTERS.get(name, ())
        if packages and not any(map(find_spec, packages)):
            there = [other for other, needed in REPORTERS.items() if any(map(find_spec, needed))]
            remedy = f"pip install {packages[0]}, or use one that is there: {', '.join([NONE, *there])}"
            raise ValueError(f"report_to {name}: needs the package {packages[0]}, which is not installed: {remedy}")


def settle(callbacks: list[TrainerCallback], folder: Path) -> None:
    """Put integrations last, and TensorBoard's files into `folder` unless the user's environment names another one.

    The Trainer calls them first, before the other callbacks have added their numbers to a log entry.
    """
    callbacks.sort(key=lambda callback: type(callback) in INTEGRATION_TO_CALLBACK.values())
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and FOLDER_VARIABLE not in os.environ:
            callback.logging_dir = str(folder)
