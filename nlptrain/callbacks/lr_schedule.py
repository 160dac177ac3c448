"""A schedule of `nlptrain.schedules` as the Trainer's own scheduler."""

from collections.abc import Callable
from typing import Any, cast

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from nlptrain import schedules
from nlptrain.schedules import Plateau, Warmup


class LRSchedule(TrainerCallback, ExportableState):
    """Let the learning rate follow a schedule; works in any `transformers.Trainer`.

    The multiplier is put into the `LambdaLR` which the Trainer has built: stepping, logging and resuming stay the
    Trainer's own, and each parameter group keeps its own base rate. `lr_scheduler_type` may be left at its default;
    TrainingArguments.warmup_steps must be 0.

    The plateau lowers the rate after an evaluation; evaluations during the warm-up do not count. What it has seen is in
    the checkpoint and is restored with or without restore_callback_states_from_checkpoint; with it the library also
    takes the settings from the checkpoint. Its current factor is in the log as ``plateau_factor``.

    Args:
        name: a row of `schedules.SCHEDULES`.
        warmup: steps (int) or share of all steps (float in [0, 1)).
        settings: those of the row; eta_min is a rate in the unit of the learning rate.

    Raises:
        ValueError: unknown name or setting, or a value out of range; names the nearest valid one.
    """

    def __init__(self, name: str, warmup: Warmup = 0, **settings: Any) -> None:
        self.name = name
        self.settings: dict[str, Any] = {"warmup": warmup, **settings}
        self.best: float | None = None
        self.bad = 0
        self.level = 1.0
        self.total = 0
        self.training = False
        self.offered: set[str] = set()
        self._refuse(schedules.problem(name, self.settings))

    def state(self) -> dict[str, Any]:
        """Settings, and what the plateau has seen."""
        return {
            "args": {"name": self.name, **self.settings},
            "attributes": {"best": self.best, "bad": self.bad, "level": self.level},
        }

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take over the Trainer's scheduler, after a checkpoint has been loaded into it.

        Raises:
            ValueError: another scheduler, a second warm-up, no evaluations to follow, or a setting that does not fit
                the number of steps or the learning rate.
        """
        self._refuse(_contradiction(self.name, args, lr_scheduler))
        for base in lr_scheduler.base_lrs:
            self._refuse(schedules.problem(self.name, self.settings, state.max_steps, base))
        self.total, self.training = state.max_steps, True
        self._recall(state)
        lr_scheduler.lr_lambdas = [self._of_group(base) for base in lr_scheduler.base_lrs]
        _refresh(lr_scheduler)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluations are over: with several evaluation sets, one of them must have given the metric.

        Raises:
            ValueError: none did.
        """
        if self.offered:
            self._refuse(f"metric {self._metric} is not among the evaluation's {', '.join(sorted(self.offered))}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Let the plateau see the metric, and use its rate from the next step on."""
        if self.name != "plateau" or not self.training:
            return
        found = schedules.resolve(self.name, self.settings, self.total)
        if state.global_step < found.pop("warmup"):
            return
        if metrics is None or self._metric not in metrics:
            self.offered |= set(metrics or {"nothing"})
            return
        self.offered = set()
        choice = {**found, "greater_is_better": bool(found["greater_is_better"])}
        del choice["metric"]
        seen = schedules.observe(Plateau(self.best, self.bad, self.level), float(metrics[self._metric]), **choice)
        self.best, self.bad, self.level = seen.best, seen.bad, seen.level
        _refresh(lr_scheduler)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the plateau's factor beside the rate."""
        if self.name == "plateau" and logs and "learning_rate" in logs:
            # the history holds a copy of the logs
            logs["plateau_factor"] = state.log_history[-1]["plateau_factor"] = self.level

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluations from now on do not count."""
        self.training = False

    @property
    def _metric(self) -> str:
        name: str = self.settings.get("metric") or "eval_loss"
        return name if name.startswith("eval_") else f"eval_{name}"

    def _recall(self, state: TrainerState) -> None:
        # a checkpoint made without this callback lacks the entry, and the library would fail when it saves the next
        exported = cast("dict[str, Any]", state.stateful_callbacks)
        saved = exported.setdefault(type(self).__name__, self.state())
        if isinstance(saved, list):
            self._refuse("a Trainer can follow one schedule; give it one LRSchedule")
        seen = Plateau(**saved["attributes"]) if state.global_step else Plateau()
        self.best, self.bad, self.level, self.offered = seen.best, seen.bad, seen.level, set()

    def _of_group(self, base: float) -> Callable[[int], float]:
        settings = schedules.relative(self.settings, base)

        # a plain function: of any other callable the scheduler would write the attributes into the checkpoint
        def share(step: int) -> float:
            return schedules.multiplier(step, self.total, name=self.name, **settings) * self.level

        return share

    def _refuse(self, problem: str | None) -> None:
        if problem:
            raise ValueError(f"LRSchedule: {problem}")


def _contradiction(name: str, args: TrainingArguments, lr_scheduler: Any) -> str | None:
    if not isinstance(lr_scheduler, LambdaLR):
        return (
            f"the Trainer's scheduler must be a LambdaLR, found {type(lr_scheduler).__name__}; "
            "set lr_scheduler_type: constant"
        )
    if args.warmup_steps:
        return (
            f"warmup_steps {args.warmup_steps:g} of the training arguments has no effect beside a schedule; "
            f"set it to 0 and give warmup to the schedule"
        )
    if name == "plateau" and args.eval_strategy == "no":
        return "plateau follows evaluations, found eval_strategy: no; set eval_strategy: epoch"
    return None


def _refresh(lr_scheduler: LambdaLR) -> None:
    """Let the current rate follow lambdas that have changed since the scheduler's last step."""
    pairs = zip(lr_scheduler.base_lrs, lr_scheduler.lr_lambdas, strict=True)
    rates = [base * share(lr_scheduler.last_epoch) for base, share in pairs]
    for group, rate in zip(lr_scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    # what get_last_lr gives and the Trainer logs; stepping instead would count a step that was not made
    lr_scheduler._last_lr = rates
