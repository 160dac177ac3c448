"""Gradient clipping by four rules, in place of the one of `TrainingArguments.max_grad_norm`."""

import logging
import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args

from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from nlptrain.callbacks import clipping_rules as rules

logger = logging.getLogger(__name__)
Rule = Literal["norm", "value", "percentile", "adaptive"]
USUAL: dict[str, float] = {"norm": 1.0, "value": 1.0, "percentile": 10.0, "adaptive": 0.01}


class GradientClipping(TrainerCallback, ExportableState):
    """Clip the gradients of every optimizer step, after accumulation, all-reduce and unscaling.

    A log entry of the Trainer gets two more keys, both over the steps since the entry before:
    ``grad_norm_before_clipping``, the mean global norm, and ``clipped_share`` in [0, 1], the share of steps (norm,
    percentile), of elements (value) or of rows (adaptive) that were changed. For other callbacks to see them in
    ``on_log``, this one has to come first.

    It takes over from ``max_grad_norm``, which it sets to 0. A resume restores the history of norms only with
    ``restore_callback_states_from_checkpoint=True``, and then the arguments below are those of the checkpoint. Where
    FSDP shards the gradients, only `value` is possible, and norm and share are those of this process's shard.

    Args:
        by: ``norm``, by the norm of all gradients together; ``value``, element by element; ``percentile``, by a norm
            that is a percentile of the norms so far (AutoClip); ``adaptive``, each row by its weights' norm (AGC).
        threshold: norm above 0, absolute value above 0, percentile in (0, 100], or ratio above 0 of gradient to weight
            norm; left out: 1, 1, 10 and 0.01. A percentile p clips about 100 - p percent of all steps, spike or not.
        window: newest norms, at least 1, that a percentile is taken of.
        floor: weight norm above 0 that a row of smaller weights counts as, for ``adaptive``.
        exclude: dotted module or parameter names that ``adaptive`` leaves alone; the paper excludes the head.

    Raises:
        ValueError: an argument is out of its range; at the start of training: an excluded name that the model does not
            have, or gradients that are sharded so that the rule would go by a part of them.
    """

    def __init__(
        self,
        by: Rule = "norm",
        threshold: float | None = None,
        *,
        window: int = 1000,
        floor: float = 1e-3,
        exclude: Sequence[str] = (),
    ) -> None:
        self.by = _known_rule(by)
        self.threshold = _checked_threshold(by, USUAL[by] if threshold is None else threshold)
        if window < 1:
            raise ValueError(f"window must be at least 1 norm, found {window}: the nearest valid value is 1")
        if not 0 < floor < math.inf:
            raise ValueError(f"floor must be a finite number above 0, found {floor}: the usual one is 0.001")
        if exclude and by != "adaptive":
            raise ValueError(f"exclude is for by='adaptive', found by={by!r}: leave exclude out")
        self.window, self.floor, self.exclude = window, floor, list(exclude)
        self.norms: list[float] = []
        self.tally: list[Any] = []
        self.tally_ = rules.Tally()

    def state(self) -> dict[str, Any]:
        """Arguments, the history of norms and what the next entry will say; JSON keeps every bit of a norm."""
        names = ("by", "threshold", "window", "floor", "exclude")
        kept = {"norms": self.norms, "tally": self.tally_.values()}
        return {"args": {name: getattr(self, name) for name in names}, "attributes": kept}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what would be wrong, and take over from ``max_grad_norm``."""
        model: nn.Module = kwargs["model"]
        _refuse_sharded(self.by, model)
        names = [name for name, _ in model.named_parameters()]
        if unknown := [part for part in self.exclude if not any(_belongs(name, [part]) for name in names)]:
            tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ValueError(f"exclude {unknown[0]!r} is no module or parameter of the model, which has: {tops}")
        if args.max_grad_norm:
            logger.warning(
                "clipping by %s at %g takes over: max_grad_norm %g set to 0",
                self.by,
                self.threshold,
                args.max_grad_norm,
            )
            args.max_grad_norm = 0.0
        if state.global_step and self.by == "percentile" and not self.norms:
            logger.warning(
                "resumed without the history of gradient norms, so not exactly: it needs a checkpoint made with "
                "GradientClipping and restore_callback_states_from_checkpoint=True"
            )
        # a checkpoint made without this callback lacks its entry, and the library fails at the next save
        cast("dict[str, Any]", state.stateful_callbacks).setdefault(type(self).__name__, self.state())
        self.tally_, self.tally = rules.Tally(*self.tally), []

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip in place."""
        named = [(name, p) for name, p in kwargs["model"].named_parameters() if p.grad is not None]
        norm = get_total_norm(rules.gradients(p for _, p in named))
        self.tally_.add(norm, self._clip([p for name, p in named if not _belongs(name, self.exclude)], norm))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add to the entry of a training step, which the library has put into the history before asking."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" in logs and self.tally_.steps:
            found = self.tally_.report()
            logs.update(found)
            state.log_history[-1].update(found)
            self.tally_ = rules.Tally()

    def _clip(self, parameters: list[nn.Parameter], norm: Tensor) -> rules.Clipped:
        if self.by == "value":
            return rules.by_value(parameters, self.threshold)
        if self.by == "adaptive":
            return rules.by_row(parameters, self.threshold, self.floor)
        if self.by == "percentile":
            self.norms = rules.remember(self.norms, norm.item(), self.window)
            return rules.by_norm(parameters, rules.percentile(self.norms, self.threshold), norm)
        return rules.by_norm(parameters, self.threshold, norm)


def _known_rule(by: str) -> str:
    if by in get_args(Rule):
        return by
    near = get_close_matches(by, get_args(Rule), n=1, cutoff=0.0)[0]
    raise ValueError(f"by must be one of {', '.join(get_args(Rule))}, found {by!r}: the nearest is {near!r}")


def _checked_threshold(by: str, threshold: float) -> float:
    if by == "percentile" and threshold > 100:
        raise ValueError(
            f"a percentile threshold must be in (0, 100], found {threshold}: the nearest valid value is 100"
        )
    if not 0 < threshold < math.inf:
        valid = "in (0, 100]" if by == "percentile" else "a finite number above 0"
        raise ValueError(f"a {by} threshold must be {valid}, found {threshold}: the usual one is {USUAL[by]:g}")
    return threshold


def _refuse_sharded(by: str, model: nn.Module) -> None:
    kind = PartialState().distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"{kind.value} keeps the gradients to itself, so that GradientClipping would clip nothing: "
            "set gradient_clipping in its own configuration"
        )
    sharded = kind == DistributedType.FSDP or any(hasattr(p, "to_local") for p in model.parameters())
    if sharded and by != "value":
        raise ValueError(
            f"clipping by {by} needs whole gradients, and here each process holds a shard of them (FSDP or tensor "
            "parallelism): use by='value', or max_grad_norm in place of GradientClipping"
        )


def _belongs(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)
