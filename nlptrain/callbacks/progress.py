"""What a person sees while training: a bar on a terminal, plain lines in a log, one line per evaluation."""

import logging
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)
LINES_WITHOUT_A_TERMINAL = 10


class ProgressDisplay(TrainerCallback):
    """Show steps, loss and evaluations on standard error.

    Args:
        metrics: names of the metrics shown at an evaluation.
    """

    def __init__(self, metrics: tuple[str, ...]) -> None:
        self.metrics = metrics
        self.console = Console(stderr=True)
        self.bar_: Progress | None = None
        self.shown_ = "training"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar."""
        if state.is_world_process_zero and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar_ = Progress(*columns, console=self.console, transient=True)
            self.bar_.add_task("training", total=state.max_steps, completed=state.global_step)
            self.bar_.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar, or now and then write a line."""
        if self.bar_ is not None:
            self.bar_.update(self.bar_.task_ids[0], completed=state.global_step)
        elif (
            state.is_world_process_zero and state.global_step % max(1, state.max_steps // LINES_WITHOUT_A_TERMINAL) == 0
        ):
            logger.info("step %d/%d  %s", state.global_step, state.max_steps, self.shown_)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the newest loss."""
        if logs and "loss" in logs:
            self.shown_ = f"loss {logs['loss']:.4f}"
        if self.bar_ is not None:
            self.bar_.update(self.bar_.task_ids[0], description=self.shown_)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """One line."""
        if state.is_world_process_zero:
            found = metrics or {}
            shown = [
                f"{name} {found[f'eval_{name}']:.4f}" for name in ("loss", *self.metrics) if f"eval_{name}" in found
            ]
            logger.info("step %d  epoch %.2f  validation: %s", state.global_step, state.epoch or 0, "  ".join(shown))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Give the terminal back, whatever ended the training."""
        if self.bar_ is not None:
            self.bar_.stop()
            self.bar_ = None
