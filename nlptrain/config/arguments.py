"""What the installed transformers takes under `training:`, read from its source without importing it.

Importing TrainingArguments costs seconds; its field names and annotations stand in one file as plain text.
"""

import ast
import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nlptrain.config import reporters
from nlptrain.errors import ConfigError

_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
_AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "label_smoothing_factor": 0,
    "seed": 0,
    "data_seed": 0,
    "dataloader_num_workers": 0,
    "save_total_limit": 1,
}
_MORE_THAN: dict[str, float] = {
    "learning_rate": 0,
    "num_train_epochs": 0,
    "logging_steps": 0,
    "eval_steps": 0,
    "save_steps": 0,
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "eval_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch", "best"),
    "logging_strategy": ("no", "steps", "epoch"),
}
_FULL_EVAL = "it would leave the weights themselves in half precision; use bf16"
_METRIC = "the task's primary metric selects, in its own direction; set task.primary"
# a value of None: whatever it is
_REFUSED: dict[str, tuple[bool | None, str]] = {
    "bf16_full_eval": (True, _FULL_EVAL),
    "fp16_full_eval": (True, _FULL_EVAL),
    "remove_unused_columns": (False, "the model takes only its own columns"),
    "metric_for_best_model": (None, _METRIC),
    "greater_is_better": (None, _METRIC),
    "average_tokens_across_devices": (False, "the loss is the mean over the rows of all processes"),
    "auto_find_batch_size": (True, "it would change the batch size unseen"),
    "dataloader_drop_last": (True, "every row is trained on and scored"),
    "batch_eval_metrics": (True, "metrics are computed on whole arrays"),
    "prediction_loss_only": (True, "metrics need the predictions"),
    "hub_token": (None, "a secret would be written into the run folder; set HF_TOKEN in the environment"),
    "push_to_hub": (True, "training sends nothing anywhere; when it is done: hf upload NAME RUN/model"),
    "enable_jit_checkpoint": (
        True,
        "a signal already ends a run with a checkpoint, and with an exit code that says so",
    ),
    "accelerator_config": (None, "batches are divided among processes by their own rule"),
}


@cache
def training_fields() -> dict[str, str]:
    """Field name to annotation text of the installed ``transformers.TrainingArguments``."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("DEPENDENCY", "transformers is not installed; install nlptrain with its dependencies")
    source = (Path(spec.submodule_search_locations[0]) / "training_args.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    body = next(node.body for node in classes if node.name == "TrainingArguments")
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {node.target.id: ast.unparse(node.annotation) for node in fields if isinstance(node.target, ast.Name)}


def problem(key: str, value: Any) -> str | None:
    """What is wrong with ``training.key: value``, or None; unknown keys are not looked at here."""
    if value is None or (key == "bf16" and value == "auto"):
        return None
    if key in _REFUSED and _REFUSED[key][0] in (None, value):
        return f"not available: {_REFUSED[key][1]}"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    if key in _CHOICES and value not in _CHOICES[key]:
        return f"expected one of {', '.join(_CHOICES[key])}"
    if key == "report_to" and (wrong := reporters.problem(value)):
        return wrong
    if not _fits(training_fields()[key], value):
        return f"expected {training_fields()[key]}"
    if key in _AT_LEAST and value < _AT_LEAST[key]:
        return f"expected at least {_AT_LEAST[key]:g}"
    if key in _MORE_THAN and value <= _MORE_THAN[key]:
        return f"expected more than {_MORE_THAN[key]:g}"
    return None


def _fits(annotation: str, value: Any) -> bool:
    names = {node.id for node in ast.walk(ast.parse(annotation)) if isinstance(node, ast.Name)}
    known = [_TYPES[name] for name in names if name in _TYPES]
    if not known:
        return True
    if isinstance(value, bool):
        return bool in known
    if isinstance(value, int) and float in known:
        return True
    return isinstance(value, tuple(known)) or (isinstance(value, str) and names - _TYPES.keys() > {"None"})
