"""Optimizers by name: one table, and the function that reads it."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
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
        decoupled: the class whose `weight_decay` shrinks the weights themselves, or a function that builds it.
        coupled: the class that adds it to the gradient; None where there is none.
        settings: the other settings with their defaults. Rates and schedules belong to groups and Trainer.
    """

    decoupled: Callable[..., Optimizer]
    coupled: Callable[..., Optimizer] | None
    settings: Mapping[str, Any]


def _packaged(module: str, name: str, **fixed: Any) -> Callable[..., Optimizer]:
    """A class that is imported when it is built, because its package is an extra."""

    def built(groups: list[dict[str, Any]], **settings: Any) -> Optimizer:
        found: Optimizer = getattr(import_module(module), name)(groups, **settings, **fixed)
        return found

    return built


# fused: the fastest kernel on a CPU and on a GPU, and what the Trainer takes by default
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "fused": True}
_SEARCH = {
    "c": 0.5,
    "initial_step": 1e-3,
    "growth": 1.1,
    "cut": 0.5,
    "max_trials": 10,
    "min_step": 1e-8,
    "max_step": 1.0,
}
_SCHEDULE_FREE = "nlptrain.optim.schedule_free"
_AVERAGED = {"betas": (0.9, 0.999), "eps": 1e-8, "r": 0.0, "weight_lr_power": 2.0}
_PRODIGY = {
    **{"betas": (0.9, 0.999), "beta3": None, "eps": 1e-8, "use_bias_correction": False},
    # without it the low rates of a warm-up, which every schedule here begins with, make the estimate too large
    "safeguard_warmup": True,
    **{"d0": 1e-6, "d_coef": 1.0, "growth_rate": float("inf"), "slice_p": 1},
}
OPTIMIZERS: dict[str, Choice] = {
    "adam": Choice(AdamW, Adam, {**_ADAM, "l2": 0.0}),
    "adamw": Choice(AdamW, None, _ADAM),
    "rmsprop": Choice(RMSpropW, RMSprop, {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False}),
    "adagrad": Choice(AdagradW, Adagrad, {"eps": 1e-10, "initial_accumulator_value": 0.0}),
    "armijo": Choice(ArmijoAdamW, None, {"betas": (0.9, 0.999), "eps": 1e-8, **_SEARCH}),
    "sgd": Choice(SGDW, SGD, {"momentum": 0.9, "dampening": 0.0, "nesterov": False}),
    "schedule_free_adamw": Choice(_packaged(_SCHEDULE_FREE, "AdamWScheduleFree"), None, _AVERAGED),
    "schedule_free_radam": Choice(
        _packaged(_SCHEDULE_FREE, "RAdamScheduleFree"), None, {**_AVERAGED, "silent_sgd_phase": True}
    ),
    "prodigy": Choice(_packaged("prodigyopt", "Prodigy"), _packaged("prodigyopt", "Prodigy", decouple=False), _PRODIGY),
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
        ConfigError: an unknown name or setting, a value out of range, two kinds of decay at once, or a package that is
            not installed.
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
    except ModuleNotFoundError as error:
        remedy = f"pip install {error.name}, which the extra nlptrain[optimizers] has too"
        raise ConfigError("OPTIM", f"optim {name}: needs a package that is not installed: {remedy}") from error
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
