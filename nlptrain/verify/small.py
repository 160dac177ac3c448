"""A run like the user's, but of a few steps on a few of the rows, in a folder that goes away."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from datasets import Dataset

from nlptrain import processes
from nlptrain.config import load as config_file
from nlptrain.config.report import ReportConfig
from nlptrain.config.schema import Config, EarlyStopping
from nlptrain.config.task import TaskConfig
from nlptrain.data.load import Splits, load_splits
from nlptrain.errors import ConfigError
from nlptrain.interruption import handled, interrupt
from nlptrain.run_folder import RunFolder
from nlptrain.training_arguments import DEFAULTS

EPOCHS = 2
# three whole windows and a part of one
WINDOWS = 3.5
VALIDATION_ROWS = 48
_OWN_STEPS = ("max_steps", "eval_steps", "save_steps", "eval_delay", "resume_from_checkpoint", "output_dir")


@dataclass(frozen=True)
class Small:
    """A small run.

    Attributes:
        config: of `EPOCHS` epochs, at whose ends it evaluates (where the user's run does at all) and saves.
        folder: where everything about it is written.
        validation: labelled rows, in a file of that folder.
    """

    config: Config
    folder: Path
    validation: Path

    def variant(self, name: str, **training: Any) -> tuple[Path, RunFolder]:
        """A configuration file with other `training`, and the run folder that it names."""
        folder = self.folder / name
        changed = {**self.config.training, **training, "output_dir": str(folder)}
        path = self.folder / f"{name}.yaml"
        path.write_text(config_file.dump(self.config.model_copy(update={"training": changed})), encoding="utf-8")
        return path, RunFolder(folder)


@contextmanager
def small(config: Config, *, selects: bool = True, **model: Any) -> Iterator[Small]:
    """A small run like that of `config`; its folder is deleted at the end, however that comes.

    Args:
        config: the user's; its folder of results is not looked at.
        selects: whether evaluations may stop the run and choose its weights, as they do in the user's.
        model: other settings of the model.

    Raises:
        NlptrainError: the data cannot be read; or a launcher started this process, which starts others itself.
    """
    if processes.launched():
        raise ConfigError("USAGE", "verify starts its processes itself: run it without a launcher")
    with TemporaryDirectory(prefix="nlptrain-verify-") as name, handled(interrupt):
        folder = Path(name)
        seed = config.training.get("seed") or DEFAULTS["seed"]
        splits = load_splits(config.spec, config.data, seed=seed)
        validation = _write_rows(config, splits, folder)
        data = {"train": str(folder / "train.jsonl"), "validation": str(validation), "test": None}
        data |= {"encoding": "utf-8", "delimiter": None, "leakage": "allow"}
        update = {
            "task": _with_labels(config, splits),
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update=model),
            "training": _few_steps(config.training) | ({} if selects else {"load_best_model_at_end": False}),
            "report": ReportConfig(bootstrap=0, baselines=[]),
            "early_stopping": config.early_stopping if selects else EarlyStopping(),
        }
        yield Small(config.model_copy(update=update), folder, validation)


def _few_steps(training: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in training.items() if key not in _OWN_STEPS}
    evaluates = kept.get("eval_strategy", "epoch") != "no"
    return kept | {
        "num_train_epochs": EPOCHS,
        "eval_strategy": "epoch" if evaluates else "no",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        # an interruption comes between two entries
        "logging_strategy": "steps",
        "logging_steps": 2,
        "report_to": "none",
    }


def _with_labels(config: Config, splits: Splits) -> Any:
    """The user's own task with its classes named, since some may be missing among a few rows."""
    if splits.labels is None or not isinstance(config.task, TaskConfig):
        return config.task
    return config.task.model_copy(update={"labels": list(splits.labels.names)})


def _write_rows(config: Config, splits: Splits, folder: Path) -> Path:
    training = {**DEFAULTS, **config.training}
    window = training["per_device_train_batch_size"] * training.get("gradient_accumulation_steps", 1)
    train = _some(splits.rows["train"], int(WINDOWS * window))
    learned = set(chain.from_iterable(map(_classes, train["label"][:])))
    validation = splits.rows["validation"]
    if splits.labels is not None:
        kept = [n for n, target in enumerate(validation["label"][:]) if learned.issuperset(_classes(target))]
        validation = validation.select(kept)
    for name, rows in {"train": train, "validation": _some(validation, VALIDATION_ROWS)}.items():
        _write(folder / f"{name}.jsonl", config, splits, rows)
    return folder / "validation.jsonl"


def _some(rows: Dataset, count: int) -> Dataset:
    """Rows spread evenly over all, and the first of each class."""
    chosen = set(np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int).tolist())
    targets = rows["label"][:]
    if len(targets) and isinstance(targets[0], int):
        chosen |= {targets.index(label) for label in set(targets)}
    return rows.select(sorted(chosen))


def _classes(target: Any) -> Sequence[Any]:
    return target if isinstance(target, list) else [target]


def _write(path: Path, config: Config, splits: Splits, rows: Dataset) -> None:
    task, names = config.spec, splits.labels.names if splits.labels else None
    with path.open("w", encoding="utf-8") as file:
        for row in rows.select_columns([*task.text, "label"]):
            found = dict(row)
            target = found.pop("label")
            if names is not None:
                # of tokens as of their tags, one text with spaces
                target = " ".join(names[number] for number in target) if isinstance(target, list) else names[target]
            file.write(json.dumps({**found, task.label: target}, ensure_ascii=False) + "\n")
