"""The end of a run whose loss or gradient is no longer a number, while the weights are still good."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.callbacks.clipping_rules import gradients
from nlptrain.errors import DivergedError

_SHOWN = 5


class NonFiniteGuard(TrainerCallback):
    """Stop before the optimizer takes a step along a gradient that is not finite.

    A callback does not see the loss; one that is NaN or infinite shows as such gradients. Gradients are all-reduced
    before they are looked at, so that all processes raise together and none waits for another. One norm of all
    gradients decides, which costs one wait for the device in a step; a norm beyond the range of its type counts too.

    The Trainer's own norm computation turns every gradient into NaN as soon as one is not finite. So that the message
    can still name the first ones, the norm of each is noted, without a wait, when the backward pass completes it.

    With fp16 loss scaling an overflow is normal: the scaler leaves the step out and halves the scale. That counts as
    diverged once the scale, which starts at 65536, is down to 1. It has to come before callbacks that change gradients.

    Args:
        rows: gives the ids of the rows of the current step, for the message; left out: none are named.
        told: the caller gives the norms of each step's gradients to `tell`, so that none has to be computed again here.

    Raises:
        ValueError: at the start of training with DeepSpeed or Megatron, which keep the gradients to themselves.
        DivergedError: a gradient is not finite; the weights are those before the step.
    """

    def __init__(self, rows: Callable[[], Sequence[int]] | None = None, *, told: bool = False) -> None:
        self.rows = rows
        self.told = told
        self.norms_: dict[str, Tensor] = {}
        self.hooks_: list[RemovableHandle] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the gradients of this model."""
        kind = PartialState().distributed_type
        if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
            raise ValueError(f"{kind.value} keeps the gradients to itself: leave NonFiniteGuard out, it would see none")
        self._unhook()
        for name, parameter in kwargs["model"].named_parameters():
            if parameter.requires_grad and not self.told:
                self.hooks_.append(parameter.register_post_accumulate_grad_hook(partial(self._note, name)))

    def tell(self, norms: Mapping[str, Tensor]) -> None:
        """Norm of the whole step's gradient of each parameter, by name, before anything changes it."""
        self.norms_ = dict(norms)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget the step before."""
        self.norms_.clear()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise where the gradient of the whole step is not finite."""
        if self.told and self.norms_:
            norm = torch.linalg.vector_norm(torch.stack(list(self.norms_.values())))
        else:
            norm = get_total_norm(gradients(kwargs["model"].parameters()))
        if norm.isfinite():
            return
        scaler = getattr(kwargs.get("optimizer"), "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:
            return
        self._unhook()
        raise DivergedError("NON_FINITE", self._message(state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as it was found."""
        self._unhook()

    def _note(self, name: str, parameter: Tensor) -> None:
        for gradient in gradients([parameter]):
            self.norms_[name] = torch.linalg.vector_norm(gradient)

    def _unhook(self) -> None:
        for hook in self.hooks_:
            hook.remove()
        self.hooks_ = []

    def _message(self, state: TrainerState) -> str:
        broken = [name for name, norm in self.norms_.items() if not norm.isfinite()]
        where = f"first of {_shown(broken)}" if broken else "though of no single parameter on this process"
        rows = f", rows {_shown(self.rows())}" if self.rows else ""
        return (
            f"non-finite gradient in step {state.global_step + 1} (epoch {state.epoch:.4g}), {where}{rows}; the "
            "weights are those before this step: look at the rows and lower the learning rate"
        )


def _shown(items: Iterable[Any]) -> str:
    listed = list(map(str, items))
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
