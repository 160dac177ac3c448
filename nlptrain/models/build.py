"""Makes the model that is going to be trained: a pretrained encoder and a new head."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from nlptrain.config.heads import output_problem
from nlptrain.config.schema import ModelConfig
from nlptrain.errors import ConfigError, ModelError
from nlptrain.models.checkpoint import LOAD_ERRORS, default_name, load_tokenizer, locate, quiet, read_config
from nlptrain.models.classes import CLASSES, ModelClasses
from nlptrain.models.configuration import Architecture, NlpTrainConfig, Pooling
from nlptrain.models.heads import CosineHead, logit_of
from nlptrain.models.modeling import NlpTrainModel, encoder_arguments
from nlptrain.models.normalizer import check_kind
from nlptrain.models.target import TargetScale, attach
from nlptrain.tasks import TaskSpec

# One probability under the names that the encoders' configurations have for it.
ENCODER_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
ACTIVATIONS = ("hidden_act", "activation", "hidden_activation", "activation_function")
HEAD_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "cls_dropout")


def build(
    name: str | None,
    settings: ModelConfig,
    task: TaskSpec,
    labels: tuple[str, ...] | None,
    target: TargetScale | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model to train, float32, with the weights of a pretrained encoder, or random ones, and a newly initialised head.

    A regression answers in the user's unit; a stock one through `nlptrain.models.target.attach`, and has to be
    folded before it is saved.

    Args:
        name: a folder, a Hub id or ``package://import.name/path``; None: all-MiniLM-L6-v2.
        settings: architecture, head, output, normalisation and dropout.
        task: kind and number of texts.
        labels: class names in the order of their ids; None for a regression.
        target: unit and range of the scores; None where there are classes.

    Raises:
        ModelError: the checkpoint is missing, unsafe or incomplete, or does not fit `settings` and `task`.
        ConfigError: as `fit_config`, or the output does not fit the labels.
    """
    is_classification, classes = task.facts.names_classes, CLASSES[task.kind]
    if (labels is not None, target is not None) != (is_classification, not is_classification):
        raise ModelError("MODEL_LABELS", f"a {task.kind} needs {'labels' if is_classification else 'a target'} only")
    if settings.architecture == "bi_encoder" and not task.is_pair:
        raise ModelError("MODEL_PAIR", f"a bi_encoder needs a pair of texts, task {task.name!r} has one")
    folder = locate(name or default_name())
    if problem := output_problem(settings.output, replace(task, labels=labels)):
        raise ConfigError("MODEL", f"model: {problem}")
    with quiet():
        config = read_config(folder)
        _set_dropout(config, settings.dropout, ENCODER_DROPOUTS)
        tokenizer = load_tokenizer(folder, vocab_size(config, folder), by_word=task.facts.by_token)
        fit_config(config, settings)
        if settings.architecture == "stock":
            return _stock(folder, config, classes, settings, labels, target), tokenizer
        return _own(folder, config, classes, settings, labels, target, tokenizer), tokenizer


def _set_dropout(config: PreTrainedConfig, dropout: float, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(config, name):
            setattr(config, name, dropout)


def fit_config(config: PreTrainedConfig, settings: ModelConfig) -> None:
    """Set the encoder's activation, after a check of what depends on the encoder.

    Raises:
        ConfigError: more components than the embedding has, or an encoder whose activation has no name.
    """
    try:
        check_kind(settings.normalize, config.hidden_size, settings.normalize_components)
    except ValueError as error:
        raise ConfigError("MODEL", f"model.normalize_components: {error}") from error
    if settings.hidden_act is not None:
        names = [name for name in ACTIVATIONS if isinstance(getattr(config, name, None), str)]
        if not names:
            raise ConfigError("MODEL", f"model.hidden_act: {config.model_type} has no activation to set; leave it out")
        setattr(config, names[0], settings.hidden_act)


def vocab_size(config: PreTrainedConfig, folder: Path) -> int:
    """Embeddings of a text encoder; ModelError if `config` is none."""
    size = getattr(config, "vocab_size", None)
    if not isinstance(size, int):
        raise ModelError("MODEL_CONFIG", f"{folder}: expected a text encoder, found model type {config.model_type!r}")
    return size


def _label_fields(classes: ModelClasses, labels: tuple[str, ...] | None) -> dict[str, Any]:
    """The fields of a configuration that say what the outputs mean."""
    names = labels or ("score",)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": classes.problem_type,
    }


def _read_weights(auto: Any, folder: Path, **arguments: Any) -> tuple[Any, dict[str, set[str]]]:
    """Model and what its checkpoint lacked or had too much of."""
    safe = {"trust_remote_code": False, "use_safetensors": True, "local_files_only": True}
    try:
        model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **safe, **arguments)
    except LOAD_ERRORS as error:
        raise ModelError("MODEL_WEIGHTS", f"{folder}: the weights cannot be read: {error}") from error
    return model, info


def _refuse_part_of_encoder(folder: Path, encoder: PreTrainedModel, info: dict[str, set[str]]) -> None:
    """A pooler and a head may be new or left over; of the encoder every weight is needed, and none may be dropped."""
    prefix = f"{encoder.base_model_prefix}."  # stands before the encoder's names in checkpoints that have a head
    parts = {key.split(".")[0] for key in encoder.state_dict()} - {"pooler"}
    found = [
        f"{kind}: {key}"
        for kind in ("missing", "unexpected")
        for key in sorted(info[f"{kind}_keys"])
        if key.removeprefix(prefix).split(".")[0] in parts
    ]
    if found:
        raise ModelError(
            "MODEL_WEIGHTS",
            f"{folder}: the checkpoint must hold exactly the weights of its encoder, found {', '.join(found)}; "
            "use a complete checkpoint whose config.json belongs to it",
        )


def _stock(
    folder: Path,
    config: PreTrainedConfig,
    classes: ModelClasses,
    settings: ModelConfig,
    labels: tuple[str, ...] | None,
    target: TargetScale | None,
) -> PreTrainedModel:
    _set_dropout(config, settings.dropout, HEAD_DROPOUTS)
    for field, value in _label_fields(classes, labels).items():
        setattr(config, field, value)
    if settings.pretrained:
        model, info = _read_weights(classes.auto, folder, config=config)
        _refuse_part_of_encoder(folder, model.base_model, info)
    else:
        model = classes.auto.from_config(config, dtype=torch.float32)
        model.config.name_or_path = ""
    model.accepts_loss_kwargs = False  # its loss is a plain mean, although its forward takes any keyword
    if target is not None:
        attach(model, target)
    return cast(PreTrainedModel, model)


def _own(
    folder: Path,
    config: PreTrainedConfig,
    classes: ModelClasses,
    settings: ModelConfig,
    labels: tuple[str, ...] | None,
    target: TargetScale | None,
    tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    if settings.pretrained:
        encoder, info = _read_weights(AutoModel, folder, config=config, **encoder_arguments(config))
        _refuse_part_of_encoder(folder, encoder, info)
    else:
        encoder = AutoModel.from_config(config, dtype=torch.float32, **encoder_arguments(config))
    encoder.config.name_or_path = ""  # a trained model does not tell where on this disk it came from
    model = classes.ours(_own_config(encoder.config, classes, settings, labels, target, tokenizer))
    model.encoder = encoder
    if target is not None:
        _start_in_range(model, target)
    return model


def _start_in_range(model: NlpTrainModel, target: TargetScale) -> None:
    """A linear output starts at the mean by itself; a cosine spans the range, and a sigmoid starts at the mean."""
    if isinstance(model.head, CosineHead):
        model.head.span((target.low - target.mean) / target.scale, (target.high - target.mean) / target.scale)
    elif model.config.output == "sigmoid":
        torch.nn.init.constant_(model.head.bias, logit_of(target.mean, target.low, target.high))


def _own_config(
    encoder: PreTrainedConfig,
    classes: ModelClasses,
    settings: ModelConfig,
    labels: tuple[str, ...] | None,
    target: TargetScale | None,
    tokenizer: PreTrainedTokenizerBase,
) -> NlpTrainConfig:
    unit: dict[str, Any] = {} if target is None else {"target_mean": target.mean, "target_scale": target.scale}
    if target is not None and settings.output == "sigmoid":
        unit |= {"target_low": target.low, "target_high": target.high}
    if settings.head:
        inner = settings.head
        unit |= {"head_hidden": inner.hidden, "head_activation": inner.activation, "head_skip": inner.skip}
    try:
        return NlpTrainConfig(
            encoder=encoder,
            architecture=cast(Architecture, settings.architecture),
            pooling=cast(Pooling, classes.pooling or settings.pooling),
            output=settings.output,
            normalize=settings.normalize,
            normalize_components=settings.normalize_components,
            head_dropout=settings.dropout,
            token_dropout=settings.token_dropout,
            cls_token_id=tokenizer.cls_token_id,
            separator_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
            mask_token_id=tokenizer.mask_token_id,
            **unit,
            **_label_fields(classes, labels),
        )
    except StrictDataclassError as error:
        raise ModelError("MODEL_CONFIG", str(error)) from error
