"""Optimizers by name: one table, and the function that reads it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from nlptrain.errors import ConfigError
from nlptrain.optim.armijo import ArmijoAdamW
from nlptrain.optim.decoupled import SGDW, AdagradW, RMSpropW
from nlptrain.optim.groups import NO_DECAY


class Choice(NamedTuple):
    """What a name stands for.

    Args:
        decoupled: the class whose `weight_decay` shrinks the weights themselves.
        coupled: the class that adds it to the gradient; None where the name rules that out.
        settings: the other settings with their defaults. Rates and schedules belong to groups and Trainer.
    """

    decoupled: type[Optimizer]
    coupled: type[Optimizer] | None
    settings: Mapping[str, Any]


# fused: the fastest kernel on a CPU and on a GPU, and what the Trainer takes by default
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "fused": True}
_SEARCH = {
    "c": 0.1,
    "initial_step": 1e-3,
    "growth": 1.1,
    "cut": 0.5,
    "max_trials": 10,
    "min_step": 1e-8,
    "max_step": 1.0,
}
OPTIMIZERS: dict[str, Choice] = {
    "adam": Choice(AdamW, Adam, {**_ADAM, "l2": 0.0}),
    "adamw": Choice(AdamW, None, _ADAM),
    "rmsprop": Choice(RMSpropW, RMSprop, {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False}),
    "adagrad": Choice(AdagradW, Adagrad, {"eps": 1e-10, "initial_accumulator_value": 0.0}),
    "armijo": Choice(ArmijoAdamW, None, {"betas": (0.9, 0.999), "eps": 1e-8, **_SEARCH}),
    "sgd": Choice(SGDW, SGD, {"momentum": 0.9, "dampening": 0.0, "nesterov": False}),
}


def optimizer(name: str, groups: Iterable[dict[str, Any]], *, decoupled: bool = True, **settings: Any) -> Optimizer:
    """An optimizer over groups that carry their own ``lr`` and ``weight_decay``.

    Args:
        name: a key of `OPTIMIZERS`.
        groups: from `nlptrain.optim.groups.parameter_groups`.
        decoupled: decay the weights themselves; False adds ``weight_decay * p`` to the gradient (classic L2).
        settings: of the table. ``l2`` of adam is its classic L2 by its own name, for groups without `weight_decay`:
            it spares the groups named ``*/no_decay``.

    Raises:
        ConfigError: an unknown name or setting, a value out of range, or two kinds of decay at once.
    """
    if name not in OPTIMIZERS:
        raise ConfigError("OPTIM", f"optim: {_unknown('optimizer', name, OPTIMIZERS)}")
    choice, chosen = OPTIMIZERS[name], list(groups)
    if wrong := [key for key in settings if key not in choice.settings]:
        raise ConfigError("OPTIM", [f"optim {name}: {_unknown('setting', key, choice.settings)}" for key in wrong])
    if missing := [group.get("name", index) for index, group in enumerate(chosen) if "lr" not in group]:
        raise ConfigError("OPTIM", f"optim {name}: every group needs its own lr, found none in {missing}")
    values = {**choice.settings, **settings}
    if l2 := values.pop("l2", 0.0):
        chosen, decoupled = _with_l2(chosen, l2), False
    built = choice.decoupled if decoupled else choice.coupled
    if built is None:
        raise ConfigError("OPTIM", f"optim {name}: its decay is decoupled by definition; use adam for a coupled one")
    try:
        return built(chosen, **values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError("OPTIM", f"optim {name}: {error}") from error


def check(name: str, *, weight_decay: float, decoupled: bool, settings: Mapping[str, Any]) -> None:
    """Raise what `optimizer` would, before there is a model."""
    groups = [{"name": f"check/{NO_DECAY}", "params": [torch.zeros(1)], "lr": 1.0, "weight_decay": weight_decay}]
    optimizer(name, groups, decoupled=decoupled, **settings)


def _with_l2(groups: list[dict[str, Any]], l2: float) -> list[dict[str, Any]]:
    if l2 < 0:
        raise ConfigError("OPTIM", f"optim adam: l2 must be >= 0, found {l2}; the nearest valid value is 0")
    if any(group.get("weight_decay") for group in groups):
        raise ConfigError("OPTIM", "optim adam: l2 and weight_decay are two kinds of decay; set one of them to 0")
    return [group | {"weight_decay": 0.0 if _spared(group) else l2} for group in groups]


def _spared(group: dict[str, Any]) -> bool:
    return str(group.get("name", "")).endswith(f"/{NO_DECAY}")


def _unknown(kind: str, found: str, known: Iterable[str]) -> str:
    near = get_close_matches(found, list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    return f"unknown {kind} {found!r}; {hint}"
