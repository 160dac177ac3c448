"""A model for a while as it will be served."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, and each module's own mode after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_autocast(model: Any) -> Iterator[None]:
    """The precision of the weights within the block, also in a model that accelerate has prepared for mixed ones."""
    prepared = vars(model).get("forward")
    if "_original_forward" in vars(model):
        model.forward = model._original_forward
    try:
        yield
    finally:
        if prepared is not None:
            model.forward = prepared
