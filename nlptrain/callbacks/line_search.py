"""What `ArmijoAdamW` needs from a Trainer: the loss of the present step, to be evaluated at other weights."""

import logging
from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.callbacks.gradient_clipping import GradientClipping
from nlptrain.callbacks.loss_replay import LossReplay
from nlptrain.callbacks.weight_decay import WeightDecay
from nlptrain.optim.armijo import ArmijoAdamW

logger = logging.getLogger(__name__)
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class ArmijoLineSearch(TrainerCallback):
    """Let `ArmijoAdamW` search along its direction in any `transformers.Trainer`.

    To use it::

        trainer = Trainer(model, args, train_dataset=rows, optimizer_cls_and_kwargs=(ArmijoAdamW, {}))
        trainer.add_callback(ArmijoLineSearch(trainer))

    The loss of a trial is ``trainer.compute_loss`` on the recorded inputs, so it is the Trainer's own whatever it is
    made of (model, compute_loss_func, label smoothing), under gradient accumulation (a trial is a forward pass over all
    micro-batches of the step), autocast and several processes (all take the step that the mean of their losses
    allows). Dropout repeats its masks, and the run's random numbers are those of a run without search.

    The Trainer's scheduler makes the share of the found step that is taken; the training arguments' learning_rate has
    no effect, and max_grad_norm is set to 0: the slope would be that of other gradients than the loss has.

    A log entry of the Trainer gets ``armijo_step_size``, the newest that was found (times learning_rate it is the one
    taken); ``armijo_trials``, the mean number of evaluations of the loss per step since the entry before, those
    to measure its noise included; ``armijo_failures`` and ``armijo_unsearched``, steps since the start.

    Args:
        trainer: the one it is added to.

    Raises:
        ValueError: at the start of training, with the reason: another optimizer, fp16 or fp8, sharded parameters, data
            or context parallelism within a process, torch.compile, or a callback that changes gradients or weights
            between the loss and the step. In training: gradients that are not those of ``trainer.compute_loss``.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.compute_loss_: Any = None
        self.replay_: LossReplay | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what would be wrong, and see the losses from now on."""
        self._unhook()
        optimizer = kwargs["optimizer"].optimizer
        if reason := _obstacle(self.trainer, optimizer):
            raise ValueError(f"ArmijoLineSearch: {reason}")
        if args.max_grad_norm:
            logger.warning("the line search limits the step: max_grad_norm %g set to 0", args.max_grad_norm)
            args.max_grad_norm = 0.0
        self.replay_ = LossReplay(kwargs["model"])
        self.compute_loss_ = self.trainer.compute_loss
        # the one public seam through which every loss goes, whatever it is made of
        vars(self.trainer)["compute_loss"] = self.replay_.recording(self.compute_loss_)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A new step: no loss yet."""
        self._replay.clear()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The Trainer steps without a closure: leave it where the optimizer finds it."""
        optimizer: ArmijoAdamW = kwargs["optimizer"].optimizer
        optimizer.loss, optimizer.closure = self._replay.loss(), self._replay.replay

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The step is done: let go of its inputs."""
        self._replay.clear()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add to the entry of a training step."""
        if logs is None or "loss" not in logs:
            return
        optimizer: ArmijoAdamW = kwargs["optimizer"].optimizer
        found = optimizer.search
        (steps, evaluations), before = _evaluations(found), found["logged"]
        entry = {
            "armijo_step_size": found["step_size"],
            "armijo_trials": (evaluations - before[1]) / max(1, steps - before[0]),
            "armijo_failures": found["failures"],
            "armijo_unsearched": found["unsearched"],
        }
        # the history holds a copy of the logs
        logs.update(entry)
        state.log_history[-1].update(entry)
        found["logged"] = [steps, evaluations]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the Trainer as it was found."""
        self._unhook()

    @property
    def _replay(self) -> LossReplay:
        if self.replay_ is None:
            raise ValueError("ArmijoLineSearch: no training has begun in the Trainer it was added to")
        return self.replay_

    def _unhook(self) -> None:
        if self.replay_ is not None:
            vars(self.trainer)["compute_loss"] = self.compute_loss_
            self.replay_ = None


def _evaluations(found: dict[str, Any]) -> tuple[int, int]:
    """Steps and evaluations of the loss so far."""
    return found["steps"], found["trials"] + found["probes"]


def _obstacle(trainer: Trainer, optimizer: Any) -> str | None:
    accelerator, args, model = trainer.accelerator, trainer.args, trainer.model
    if not isinstance(optimizer, ArmijoAdamW):
        return f"the optimizer must be ArmijoAdamW, found {type(optimizer).__name__}; give optimizer_cls_and_kwargs"
    if accelerator.mixed_precision not in ("no", "bf16"):
        return (
            f"{accelerator.mixed_precision} scales gradients, and its scaler cannot step with a closure; use bf16 or "
            "float32"
        )
    sharded = isinstance(model, nn.Module) and any(hasattr(p, "to_local") for p in model.parameters())
    if sharded or accelerator.distributed_type in _SHARDED:
        return (
            f"{accelerator.distributed_type.value} shards parameters or steps by itself, so that no process sees the "
            "slope; use DDP"
        )
    if args.n_gpu > 1 or getattr(accelerator, "parallelism_config", None) is not None:
        return "a batch must stay whole within a process; start one process per device with torchrun"
    if args.torch_compile:
        return "a compiled forward pass need not repeat its dropout masks; set torch_compile to False"
    callbacks = trainer.callback_handler.callbacks
    if wrong := next((c for c in callbacks if isinstance(c, GradientClipping | WeightDecay)), None):
        return (
            f"{type(wrong).__name__} changes gradients or weights between the loss and the step, which the search "
            "would not see; leave it out (the optimizer has its own weight_decay)"
        )
    return None
