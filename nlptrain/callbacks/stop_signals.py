"""SIGTERM and SIGINT in training: finish the step, save, and end."""

import signal
from contextlib import ExitStack
from types import FrameType
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.errors import StoppedError
from nlptrain.interruption import handled, interrupt


class StopSignals(TrainerCallback):
    """Let a signal end training between two steps, with a checkpoint from which it continues bitwise.

    The first SIGTERM or SIGINT that any process gets makes all of them save after the current step and raise
    `nlptrain.errors.StoppedError`, whose ``exit_code`` is 143 or 130; a second one raises at once. It has to come after
    the callbacks whose state belongs into that checkpoint.

    Raises:
        nlptrain.errors.StoppedError: from ``Trainer.train``.
    """

    def __init__(self) -> None:
        self.received = self.told = 0
        self._handlers = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the signals over until training ends, however it does."""
        self.received = self.told = 0
        self._handlers.enter_context(handled(self._note))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask all processes, and save where one was told to stop."""
        self.told = _highest(self.received)
        if self.told:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The checkpoint is written: leave."""
        if self.told:
            self._handlers.close()
            name = signal.Signals(self.told).name
            raise StoppedError(
                self.told, f"stopped by {name} with a checkpoint at step {state.global_step}; continue with --resume"
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the signals back; one that came after the last step ends the run now."""
        self._handlers.close()
        if received := _highest(self.received):
            interrupt(received, None)

    def close(self) -> None:
        """Give the signals back after an error, which the library tells no callback of."""
        self._handlers.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            interrupt(number, frame)
        self.received = number


def _highest(number: int) -> int:
    """The highest over all processes."""
    if not distributed.is_initialized():
        return number
    found = torch.tensor([number], device=PartialState().device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found.item())
