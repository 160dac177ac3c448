"""Everything about a run that can be known before it trains: rows, lengths, labels, steps, memory."""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from nlptrain import callbacks, optim, training_arguments
from nlptrain.callbacks import reporting
from nlptrain.config.schema import Config
from nlptrain.data.balance import epoch_rows
from nlptrain.data.encode import encode, length_facts, length_limit
from nlptrain.data.load import load_splits
from nlptrain.errors import ConfigError
from nlptrain.metrics.registry import METRICS
from nlptrain.models.build import fit_config, vocab_size
from nlptrain.models.checkpoint import default_name, load_tokenizer, locate, read_config
from nlptrain.models.objective import facts, objective
from nlptrain.models.target import TargetScale
from nlptrain.run_folder import RunFolder

BYTES_PER_FLOAT = 4
# weights, gradients and the two moments of Adam, all in float32
COPIES_OF_THE_WEIGHTS = 4


def check(config: Config) -> dict[str, Any]:
    """Read data, tokenizer and model configuration, but no weights; write nothing.

    Returns:
        JSON-ready facts: ``data``, ``tokens`` per split, ``loss``, ``steps``, ``memory`` (an estimate), ``training``
        (resolved).

    Raises:
        NlptrainError: whatever `run` would stop with before training.
    """
    folder = RunFolder(Path(config.training["output_dir"]))
    folder.check_free(resume=False)
    training = training_arguments.resolve(config.training, folder.path, config.replaced)
    check_parts(config.model_copy(update={"training": training}), folder)
    metric = METRICS[config.spec.primary]
    training_arguments.build(training, metric=metric.name, greater_is_better=metric.greater_is_better)
    splits = load_splits(config.spec, config.data, seed=training["seed"], refine=config.refine)
    train = splits.rows["train"]
    loss = objective(config, train, splits.labels, TargetScale.of(config.spec, train["label"][:], config.model.target))
    folder_of_model = locate(config.model.name or default_name())
    model_config = read_config(folder_of_model)
    vocabulary = vocab_size(model_config, folder_of_model)
    tokenizer = load_tokenizer(folder_of_model, vocabulary, by_word=config.spec.facts.by_token)
    fit_config(model_config, config.model)
    limit = length_limit(tokenizer, model_config, config.data.max_length)
    clean = config.data.clean
    lengths = {
        s: length_facts(encode(rows, config.spec, tokenizer, limit, clean=clean)) for s, rows in splits.rows.items()
    }
    return {
        "task": config.spec.name,
        "data": splits.facts,
        "tokens": lengths,
        "loss": facts(loss, splits.labels),
        "steps": steps(training, epoch_rows(train["label"][:]) if config.data.balance == "oversample" else len(train)),
        "memory": _memory(model_config, training, lengths["train"]),
        "training": training,
        "notes": splits.notes,
    }


def check_parts(config: Config, folder: RunFolder) -> None:
    """Raise `ConfigError` where a technique cannot be built; `config` has its training resolved."""
    callbacks.build(config, folder)
    evaluates = config.training["eval_strategy"] != "no"
    problems = []
    if config.early_stopping.patience is not None and not config.training["load_best_model_at_end"]:
        problems.append("early_stopping needs evaluations and load_best_model_at_end: true")
    if config.schedule and config.schedule.name == "plateau" and not evaluates:
        problems.append("schedule: plateau needs evaluations; set training.eval_strategy")
    try:
        reporting.check(config.training["report_to"])
    except ValueError as error:
        problems.append(f"training.{error}")
    if problems:
        raise ConfigError("CONFIG", problems)
    if config.optim:
        decay, chosen = config.training["weight_decay"], config.optim
        optim.check(chosen.name, weight_decay=decay, decoupled=chosen.decoupled, settings=chosen.settings)


def steps(training: dict[str, Any], rows: int) -> dict[str, Any]:
    """Optimizer steps of a run of one process over so many training rows."""
    window = training["per_device_train_batch_size"] * training.get("gradient_accumulation_steps", 1)
    per_epoch = ceil(rows / window)
    total = training.get("max_steps", -1)
    return {
        "rows_per_step_and_process": window,
        "rows_per_epoch": rows,
        "per_epoch": per_epoch,
        "total": total if total > 0 else ceil(per_epoch * training["num_train_epochs"]),
    }


def _memory(model_config: Any, training: dict[str, Any], lengths: dict[str, float]) -> dict[str, Any]:
    """Bytes: four copies of the weights, and the activations of the longest batch.

    Activations by Korthikanti et al. 2022 (arXiv 2205.05198, eq. 2): s·b·h·(34 + 5·a·s/h) bytes a layer in 16 bits,
    twice that in 32.
    """
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AutoModel.from_config(model_config).parameters())
    size, length = training["per_device_train_batch_size"], lengths["max_length"]
    hidden, heads, layers = (
        getattr(model_config, name, None) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    activations = None
    if hidden and heads and layers:
        per_layer = length * size * hidden * (34 + 5 * heads * length / hidden)
        activations = per_layer * layers * (1 if training["bf16"] else 2)
    weights = parameters * BYTES_PER_FLOAT * COPIES_OF_THE_WEIGHTS
    return {
        "parameters": parameters,
        "weights_gradients_moments": weights,
        "activations": activations,
        "total": weights + (activations or 0),
        "note": "an estimate for one process; the runtime itself takes about half a gigabyte more",
    }
