"""From `training:` to TrainingArguments, with defaults that do not lie.

Each default that differs from the library's says why; every one can be set to something else by its own name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from nlptrain.config.reporters import asked_for
from nlptrain.errors import ConfigError

DEFAULTS: dict[str, Any] = {
    "seed": 42,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.06,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "group_by_length",
    "logging_steps": 10,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    # one checkpoint besides the best: enough to resume, little enough for a disk
    "save_total_limit": 1,
    "bf16": "auto",
    "report_to": "none",
    # a non-finite loss has to be seen; the library replaces it by the running mean
    "logging_nan_inf_filter": False,
    # states of clipping, plateau and early stopping belong to an exact resume; off in the library
    "restore_callback_states_from_checkpoint": True,
    # every parameter of our models takes part in the loss; searching for unused ones costs a graph pass a step
    "ddp_find_unused_parameters": False,
    # our own progress display
    "disable_tqdm": True,
}
# these of the library's optimizers add weight decay to the gradient (Loshchilov & Hutter 2019, arXiv 1711.05101)
_COUPLED_DECAY = ("rmsprop", "adagrad", "sgd")
_PLATEAU = "reduce_lr_on_plateau"
_OURS = ("output_dir", "save_total_limit", "resume_from_checkpoint", "use_cpu", "average_tokens_across_devices")


def resolve(training: Mapping[str, Any], run: Path, replaced: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The user's settings over the defaults, with every ``auto`` decided; JSON-ready.

    Args:
        training: the user's settings.
        run: the run folder.
        replaced: values that switch off what a part takes the place of.
    """
    given = {key: value for key, value in training.items() if value is not None}
    values = {**DEFAULTS, **given, **(replaced or {}), "output_dir": str(run)}
    if values["lr_scheduler_type"] == _PLATEAU:
        values["warmup_steps"] = training.get("warmup_steps", 0)
    if values.get("optim") in _COUPLED_DECAY:
        values["weight_decay"] = training.get("weight_decay", 0.0)
    values.setdefault("use_cpu", not torch.cuda.is_available())
    values.setdefault("dataloader_pin_memory", not values["use_cpu"])
    if values["bf16"] == "auto":
        values["bf16"] = not values.get("fp16") and has_bf16(cpu=values["use_cpu"])
    if values["load_best_model_at_end"] and "no" in (values["eval_strategy"], values["save_strategy"]):
        values["load_best_model_at_end"] = False
    return values


def has_bf16(*, cpu: bool) -> bool:
    """Whether the hardware multiplies in bfloat16; emulated, it is far slower than float32."""
    if cpu:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def build(
    values: Mapping[str, Any], *, metric: str, greater_is_better: bool, checkpoints: str = "checkpoints"
) -> TrainingArguments:
    """TrainingArguments from `resolve`'s values; checkpoints go to the folder of that name in the run folder.

    Raises:
        ConfigError: the library refuses a value or a combination, in its own words.
    """
    _refuse_contradictions(values)
    chosen = {key: value for key, value in values.items() if key not in _OURS}
    if values["lr_scheduler_type"] == _PLATEAU:
        # the library lowers the rate when the metric falls, whichever way is better
        mode = {"mode": "max" if greater_is_better else "min"}
        chosen["lr_scheduler_kwargs"] = mode | (values.get("lr_scheduler_kwargs") or {})
    try:
        args = TrainingArguments(
            output_dir=str(Path(values["output_dir"]) / checkpoints),
            use_cpu=values["use_cpu"],
            metric_for_best_model=f"eval_{metric}",
            # the library guesses the direction from the name and would keep the worst NMSE
            greater_is_better=greater_is_better,
            # our loss does it
            average_tokens_across_devices=False,
            **chosen,
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError("TRAINING", f"training: {' '.join(str(error).split())}") from error
    args.report_to = asked_for(values["report_to"], list(args.report_to or ()))
    return args


def _refuse_contradictions(values: Mapping[str, Any]) -> None:
    problems = []
    if values.get("optim") in _COUPLED_DECAY and values["weight_decay"]:
        problems.append(
            f"weight_decay with optim {values['optim']} would be added to the gradient; set it to 0 or use AdamW"
        )
    if str(values.get("optim")).startswith("schedule_free"):
        problems.append(
            f"optim {values['optim']} would save weights that are not the averaged ones, and its rate would fall; "
            "use the section optim: {name: schedule_free_adamw}"
        )
    if values["lr_scheduler_type"] == _PLATEAU and values["warmup_steps"]:
        problems.append(f"warmup_steps has no effect with lr_scheduler_type {_PLATEAU}; set it to 0")
    if values.get("fp16") and values["use_cpu"]:
        problems.append("fp16 has no effect on a CPU; use bf16 or leave it out")
    if problems:
        raise ConfigError("TRAINING", [f"training: {problem}" for problem in problems])
