"""Parameter groups: which parameter decays, and at which rate each part of a model learns.

A model is its encoder (``base_model`` of a transformers model, else all of it) and the head, which is the rest. With
layer-wise rates the encoder is split further: layer l of L learns at ``base * decay ** (L - 1 - l)``, what lies below
the layers at ``base * decay ** L``, what lies above them (a pooling layer, a last norm) at ``base``
(Howard & Ruder 2018, arXiv 1801.06146, section 3.2).
"""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn
from transformers.trainer_pt_utils import get_parameter_names

from nlptrain.errors import ConfigError

# Trainer.get_decay_parameter_names: these names and nn.LayerNorm; the other norms of torch are ours
SPARED_NAMES = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
NORMS = [nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase]
HEAD, EMBEDDINGS = "head", "embeddings"
DECAY, NO_DECAY = "decay", "no_decay"


class Part(NamedTuple):
    """A part of a model that learns at one rate."""

    name: str
    layers_above: int


class DecayCounts(NamedTuple):
    """Numbers of scalar parameters."""

    decayed: int
    spared: int


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    head_learning_rate: float | None = None,
    layer_decay: float = 1.0,
    decay_embeddings: bool = True,
) -> list[dict[str, Any]]:
    """Groups for any torch optimizer that hold every trainable parameter exactly once.

    Args:
        model: any module; a transformers model also has a head.
        learning_rate: of the encoder, >= 0.
        weight_decay: of weights, >= 0; biases and norms get 0.
        head_learning_rate: of what is not encoder; left out: `learning_rate`.
        layer_decay: factor in (0, 1] from one layer to the one below; 1 leaves the encoder whole.
        decay_embeddings: whether embedding tables decay.

    Returns:
        Dicts with ``name`` (``encoder/decay``, ``encoder.layer.3/no_decay``, ``embeddings/decay``, ``head/decay``),
        ``params``, ``lr`` and ``weight_decay``. A group at `learning_rate` is first, whose rate the Trainer logs.

    Raises:
        ConfigError: a value is out of range, nothing is trainable, or the model has no head or no layers to set
            rates for.
    """
    _check(learning_rate, weight_decay, head_learning_rate, layer_decay)
    decayed = decayed_names(model, embeddings=decay_embeddings)
    found: dict[tuple[Part, bool], dict[str, Any]] = {}
    for name, part in _parts(model, by_layer=layer_decay < 1).items():
        base = head_learning_rate if part.name == HEAD and head_learning_rate is not None else learning_rate
        decays = name in decayed
        group = {
            "name": f"{part.name}/{DECAY if decays else NO_DECAY}",
            "params": [],
            "lr": base * layer_decay**part.layers_above,
            "weight_decay": weight_decay if decays else 0.0,
        }
        found.setdefault((part, decays), group)["params"].append(model.get_parameter(name))
    if head_learning_rate is not None and not any(part.name == HEAD for part, _ in found):
        raise ConfigError("OPTIM", f"head_learning_rate: {type(model).__name__} has no trainable head; leave it out")
    order = sorted(found, key=lambda key: (key[0].name == HEAD, key[0].layers_above, not key[1]))
    return [found[key] for key in order]


def decayed_names(model: nn.Module, *, embeddings: bool = True) -> set[str]:
    """Names of the parameters that decay: no bias, no norm, and embedding tables only where `embeddings`."""
    names = set(get_parameter_names(model, NORMS, SPARED_NAMES))
    tables = set() if embeddings else _embedding_tables(model)
    return {name for name, parameter in model.named_parameters() if name in names and id(parameter) not in tables}


def decay_counts(groups: Iterable[dict[str, Any]]) -> DecayCounts:
    """How many scalar parameters of `groups` (dicts with params and weight_decay) decay, and how many do not."""
    counts = [0, 0]
    for group in groups:
        counts[0 if group["weight_decay"] > 0 else 1] += sum(parameter.numel() for parameter in group["params"])
    return DecayCounts(*counts)


def _parts(model: nn.Module, *, by_layer: bool) -> dict[str, Part]:
    """The part of every trainable parameter by name, in the model's own order."""
    encoder = getattr(model, "base_model", model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is encoder and name), "")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise ConfigError("OPTIM", f"{type(model).__name__} has no trainable parameter")
    inside = {name: Part("encoder", 0) for name in names if name.startswith(prefix)}
    if by_layer:
        parts = _encoder_parts(encoder)
        inside = {name: parts[name.removeprefix(prefix)] for name in inside}
    return {name: inside.get(name, Part(HEAD, 0)) for name in names}


def _encoder_parts(encoder: nn.Module) -> dict[str, Part]:
    stacks, count = _stacks(encoder)
    in_layer = re.compile(rf"(?:{'|'.join(map(re.escape, stacks))})\.(\d+)\.")
    tables, parts, below = _embedding_tables(encoder), {}, True
    for name, parameter in encoder.named_parameters():
        if match := in_layer.match(name):
            below, index = False, int(match[1])
            parts[name] = Part(f"encoder.layer.{index}", count - 1 - index)
        elif below or id(parameter) in tables:
            # modules are registered from the input to the output; a table of relative positions may come late
            parts[name] = Part(EMBEDDINGS, count)
        else:
            parts[name] = Part("encoder.top", 0)
    return parts


def _stacks(encoder: nn.Module) -> tuple[list[str], int]:
    """The ModuleLists that hold the layers, and their number: the largest and its equally long siblings (XLM)."""
    lists = {name: m for name, m in encoder.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    if not lists:
        raise ConfigError("OPTIM", f"layer_decay: {type(encoder).__name__} has no list of layers; set it to 1")
    largest = max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()))
    parent, count = largest.rpartition(".")[0], len(lists[largest])
    return [name for name, m in lists.items() if name.rpartition(".")[0] == parent and len(m) == count], count


def _embedding_tables(model: nn.Module) -> set[int]:
    """Identities, because a tied table has several names."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def _check(learning_rate: float, weight_decay: float, head: float | None, layer_decay: float) -> None:
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "head_learning_rate": head or 0.0}
    problems = [
        f"{name}: must be a finite number >= 0, found {value!r}; the nearest valid value is 0"
        for name, value in rates.items()
        if not 0 <= value < math.inf
    ]
    if not 0 < layer_decay <= 1:
        near = "1" if layer_decay > 1 else "a small positive one"
        problems.append(f"layer_decay: must be in (0, 1], found {layer_decay!r}; the nearest valid value is {near}")
    if problems:
        raise ConfigError("OPTIM", problems)
