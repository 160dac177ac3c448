"""Optimizers with decay groups, rates per part of the model, and decay that is decoupled whatever the optimizer.

Nothing here knows the Trainer: groups and optimizers go in by ``Trainer(optimizers=(optimizer(...), None))``, the
classes also by ``Trainer(optimizer_cls_and_kwargs=(RMSpropW, {"lr": 1e-3}))``.
"""

from nlptrain.optim.armijo import ArmijoAdamW
from nlptrain.optim.build import OPTIMIZERS, check, optimizer
from nlptrain.optim.decoupled import SGDW, AdagradW, RMSpropW
from nlptrain.optim.groups import decay_counts, decayed_names, parameter_groups

__all__ = [
    "OPTIMIZERS",
    "SGDW",
    "AdagradW",
    "ArmijoAdamW",
    "RMSpropW",
    "check",
    "decay_counts",
    "decayed_names",
    "optimizer",
    "parameter_groups",
]
