"""Weight decay as a part of its own: decoupled for every optimizer, scheduled, and reported.

Just before a step each weight that decays is multiplied by ``1 - lr * value * multiplier``, lr being the rate of its
group in that step (Loshchilov & Hutter 2019, arXiv 1711.05101; the multiplier is their eta_t, free of the rate's). The
optimizer's own `weight_decay` is set to 0, also in its checkpoints.
"""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.optim.decoupled import add_l2_, decay_
from nlptrain.optim.groups import decay_counts, decayed_names

Schedule = Callable[[float], float]
WITH_LEARNING_RATE = "with_learning_rate"


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float) -> float:
    """From 1 down to 0 in a straight line; `progress` is the share of steps done, in [0, 1]."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """From 1 down to 0 along half a cosine; `progress` is the share of steps done, in [0, 1]."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}


def relative_rate(group: dict[str, Any]) -> float:
    """The rate of a group as a share of the one its learning-rate schedule started from."""
    return float(group["lr"] / group["initial_lr"]) if group["initial_lr"] else 0.0


class WeightDecay(TrainerCallback):
    """Decay the weights of any optimizer, but never biases and norms.

    Replaces whatever `weight_decay` the optimizer's groups have. Holds no state: a step's decay follows from its
    number, so a resumed run continues exactly. Put it after callbacks that clip, so that a coupled decay is not
    clipped. A step that the fp16 gradient scaler skips does not decay either. Not for an optimizer that evaluates the
    loss within its step: it would see the decayed weights.

    Args:
        value: strength >= 0 at multiplier 1; decays by ``lr * value`` a step.
        schedule: constant, linear, cosine, with_learning_rate (its multiplier is the group's rate over its initial
            one), or a function of the share of steps done in [0, 1] that gives a multiplier >= 0.
        embeddings: whether embedding tables decay.
        decoupled: False adds ``value * multiplier * p`` to the gradient instead (classic L2).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        value: float,
        schedule: str | Schedule = "constant",
        *,
        embeddings: bool = True,
        decoupled: bool = True,
    ) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"weight decay must be a finite number >= 0, found {value!r}; the nearest valid one is 0")
        self.value, self.embeddings, self.decoupled = value, embeddings, decoupled
        self.schedule: str | Schedule = SCHEDULES.get(schedule, schedule) if isinstance(schedule, str) else schedule
        if callable(self.schedule):
            _check_multipliers(self.schedule)
        elif schedule != WITH_LEARNING_RATE:
            _refuse_schedule(schedule)
        self.decayed_: list[list[nn.Parameter]] = []
        self.counts_: dict[str, int] = {}
        self.current_ = value

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take the decay over from the optimizer.

        Raises:
            ValueError: no weight that decays is in the optimizer, or its groups have no initial rate to follow.
        """
        groups = optimizer.param_groups
        names = decayed_names(model, embeddings=self.embeddings)
        wanted = {id(parameter) for name, parameter in model.named_parameters() if name in names}
        self.decayed_ = [[p for p in group["params"] if id(p) in wanted] for group in groups]
        if not any(self.decayed_):
            raise ValueError("weight decay: none of the model's weights is in the optimizer; it would do nothing")
        if self.schedule == WITH_LEARNING_RATE and not all("initial_lr" in group for group in groups):
            raise ValueError(f"weight decay: schedule {WITH_LEARNING_RATE} needs a scheduler that notes initial_lr")
        for group in groups:
            group["weight_decay"] = 0.0
        self.counts_ = self._counts(groups)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Decay, unless the step will be skipped."""
        strengths = [self._strength(state, group) for group in optimizer.param_groups]
        self.current_ = strengths[0]
        if will_be_skipped(optimizer):
            return
        for group, parameters, strength in zip(optimizer.param_groups, self.decayed_, strengths, strict=True):
            if self.decoupled:
                decay_(parameters, group["lr"], strength)
            else:
                add_l2_(parameters, strength)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the decay of the newest step (of the first group) to a training log, and once the counts."""
        if logs is None or "learning_rate" not in logs:
            return
        found = {"weight_decay": self.current_}
        if not any(self.counts_.keys() <= entry.keys() for entry in state.log_history):
            found |= self.counts_
        # the history holds a copy of the logs
        logs.update(found)
        state.log_history[-1].update(found)

    def _strength(self, state: TrainerState, group: dict[str, Any]) -> float:
        share = self.schedule(state.global_step / state.max_steps) if callable(self.schedule) else relative_rate(group)
        return self.value * share

    def _counts(self, groups: list[dict[str, Any]]) -> dict[str, int]:
        decayed = {id(parameter) for parameters in self.decayed_ for parameter in parameters}
        everything = [parameter for group in groups for parameter in group["params"]]
        counts = decay_counts({"params": [p], "weight_decay": self.value * (id(p) in decayed)} for p in everything)
        return {"decayed_parameters": counts.decayed, "spared_parameters": counts.spared}


def will_be_skipped(optimizer: Any) -> bool:
    """Whether the gradient scaler of an accelerate optimizer has found a gradient that is not finite."""
    if getattr(optimizer, "scaler", None) is None:
        return False
    raw: Optimizer = optimizer.optimizer
    gradients = [p.grad for group in raw.param_groups for p in group["params"] if p.grad is not None]
    return not bool(torch.nn.utils.get_total_norm(gradients).isfinite())


def _check_multipliers(schedule: Schedule) -> None:
    for progress in (0.0, 0.5, 1.0):
        if not 0 <= (found := schedule(progress)) < math.inf:
            raise ValueError(
                f"weight decay: the multiplier must be finite and >= 0, found {found!r} at progress {progress}; "
                "the nearest valid one is 0"
            )


def _refuse_schedule(found: Any) -> None:
    known = [*SCHEDULES, WITH_LEARNING_RATE]
    near = get_close_matches(str(found), known, n=1, cutoff=0)[0]
    raise ValueError(f"weight decay: schedule must be one of {', '.join(known)}; found {found!r}, nearest {near!r}")
