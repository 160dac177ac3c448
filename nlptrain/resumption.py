"""Checkpoints of a `transformers.Trainer` from which a run goes on as if it had never stopped.

What is overridden, and which silent fault of the stock class it removes:

* a checkpoint exists with its manifest, and only then are older ones deleted;
* it holds no pickled arguments (they contain the Hub token in plain text);
* losses since the last log entry are kept, and the mean over the run (stock: both begin anew with the next step);
* the checkpoint of a step that ends an epoch comes after that epoch's evaluation (stock: before it where the step
  itself asks, and the resumed run leaves the evaluation out);
* a finished run is not trained further (stock: one step more, or an epoch after early stopping);
* restored callbacks keep their order (stock: they come last), and the best checkpoint is found where it lies now.
"""

import json
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain import checkpoints, processes
from nlptrain.results import write_json


class ResumableTrainer(Trainer):
    """A Trainer with exact checkpoints; `keep_checkpoints` newest ones stay, besides the best (None: all)."""

    keep_checkpoints: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._resumed_from: Path | None = None
        self._begun, self._seconds_before = time(), 0.0
        super().__init__(*args, **kwargs)
        # after every other: it decides when what they ask for is done
        self.add_callback(_Moments(self))

    @cached_property
    def training_facts(self) -> dict[str, Any]:
        """What a checkpoint depends on, for its manifest."""
        return {"processes": self.args.world_size}

    def begin(self) -> None:
        """Called when the counters of a training run are zero: those of the checkpoint, where there is one."""
        self._begun, self._seconds_before = time(), 0.0
        if self._resumed_from is not None:
            found = json.loads((self._resumed_from / _counters(self.args)).read_text(encoding="utf-8"))
            self._tr_loss += found["loss_since_log"]
            self._total_loss_scalar = found["loss_before"]
            self._globalstep_last_logged = found["logged_at"]
            self._initial_global_step, self._seconds_before = 0, found["seconds"]

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        begun: tuple[int, int] = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        # until training begins the control is as it was saved
        return (num_train_epochs, 0) if self._resumed_from and self.control.should_training_stop else begun

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        base: Any = super()
        return base._finalize_training(trial, num_train_samples, start_time - self._seconds_before)

    def _load_callback_state(self) -> None:
        order = [type(callback) for callback in self.callback_handler.callbacks]
        super()._load_callback_state()
        self.callback_handler.callbacks.sort(key=lambda callback: order.index(type(callback)))
        self._find_best()

    def _find_best(self) -> None:
        """The library remembers a path, and goes on without the best checkpoint when it moved."""
        step = self.state.best_global_step
        if step and self.args.load_best_model_at_end:
            best = checkpoints.folder(Path(str(self.args.output_dir)), step)
            checkpoints.verify(best)
            self.state.best_model_checkpoint = str(best)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        parent, main = Path(str(self.args.output_dir)), self.args.should_save
        target = checkpoints.folder(parent, self.state.global_step)
        with checkpoints.writing(target, main=main):
            super()._save_checkpoint(model, trial)
            processes.wait_for_all()
            if main:
                checkpoints.seal(target, {"step": self.state.global_step, **self.training_facts})
        if main:
            checkpoints.rotate(parent, keep=self.keep_checkpoints, best=self.state.best_global_step, sealed=target)

    def _save_rng_state(self, output_dir: str) -> None:
        """Also the counters of this process, which the library does not keep."""
        super()._save_rng_state(output_dir)
        counters = {
            "loss_since_log": self._tr_loss.item(),
            "loss_before": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "seconds": self._seconds_before + time() - self._begun,
        }
        write_json(Path(output_dir, _counters(self.args)), counters)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Model and tokenizer; what the base class adds is a pickle of the arguments."""
        if not self.args.should_save:
            return
        target = str(output_dir or self.args.output_dir)
        model: PreTrainedModel = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.save_pretrained(target, state_dict=state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(target)


class _Moments(TrainerCallback):
    """When counters are restored, and when what a step asks to be saved is saved."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.held = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.held = False
        self.trainer.begin()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Hold a checkpoint back where the evaluation of an epoch is still to come."""
        ends = control.should_training_stop or control.should_epoch_stop or float(state.epoch or 0).is_integer()
        if ends and control.should_save:
            self.held, control.should_save = True, False
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_save = control.should_save or self.held
        self.held = False
        return control


def _counters(args: TrainingArguments) -> str:
    return f"counters_{args.process_index}.json"
