"""The training stage: run or continue a `FineTuner`."""

import logging
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch.serialization import get_unsafe_globals_in_checkpoint
from transformers.trainer_pt_utils import safe_globals

from nlptrain import checkpoints
from nlptrain.callbacks.progress import ProgressDisplay
from nlptrain.callbacks.stop_signals import StopSignals
from nlptrain.config.changes import refuse_changes
from nlptrain.errors import ConfigError, ModelError, ResourceError
from nlptrain.run_folder import RunFolder
from nlptrain.trainer import FineTuner

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
# weights and the two moments of Adam
COPIES_IN_A_CHECKPOINT = 3


def fit(trainer: FineTuner, run: RunFolder, *, resume: str | bool) -> dict[str, Any]:
    """Train to the end; the trainer then holds the best model where `load_best_model_at_end` is on.

    Args:
        trainer: with training rows.
        run: the run folder.
        resume: True for the newest checkpoint of the run, or the path of one.

    Returns:
        Steps done, the best step, the final training loss and the speed; JSON-ready.

    Raises:
        ModelError: a named checkpoint is incomplete or damaged, all are damaged, one is unsafe to read, or rows,
            labels, processes, settings or the names of the weights differ from the checkpoint's.
        ResourceError: there is no room for two checkpoints.
        StoppedError: a signal came; the checkpoint is written.
        ConfigError: the library or a part refuses a combination of settings.
    """
    checkpoint = _checkpoint(run, resume) if resume else None
    if checkpoint is not None:
        _check_same(trainer, checkpoint)
        _check_safe(checkpoint)
        _check_weights(trainer, checkpoint)
        logger.info("resuming from %s", checkpoint)
    _check_disk(trainer, run)
    try:
        done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except ValueError as error:
        raise ConfigError("TRAINING", str(error)) from error
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressDisplay | StopSignals):
                callback.close()
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
        "epochs": trainer.state.epoch,
        "loss": done.training_loss,
        "seconds": done.metrics["train_runtime"],
        "texts_per_second": done.metrics["train_samples_per_second"],
        "padding_share": trainer.padding_share,
    }


def _checkpoint(run: RunFolder, resume: str | bool) -> Path | None:
    if isinstance(resume, str):
        checkpoints.verify(Path(resume))
        return Path(resume)
    found = checkpoints.newest(run.checkpoints)
    if found is None:
        logger.warning("%s: no checkpoint yet; starting at step 0", run.checkpoints)
    return found


def _check_same(trainer: FineTuner, checkpoint: Path) -> None:
    """Refuse to continue on other rows, labels, processes or settings."""
    before, now = checkpoints.facts(checkpoint), trainer.training_facts
    changed = [
        f"{checkpoint}: cannot continue with other {key}: {before.get(key)!r} in the checkpoint, {now[key]!r} now"
        for key in now
        if before.get(key) != now[key] and key != "config"
    ]
    if changed:
        raise ModelError("RESUME", changed)
    refuse_changes(before.get("config") or {}, now["config"] or {}, checkpoint)


def _check_safe(checkpoint: Path) -> None:
    """The states are pickles that are read without running what they name; refuse those that name more than arrays."""
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        try:
            with safe_globals():
                unsafe = get_unsafe_globals_in_checkpoint(path)
        except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
            raise ModelError("CHECKPOINT", f"{path}: cannot be read: {error}") from error
        if unsafe:
            names = ", ".join(unsafe)
            raise ModelError("UNSAFE", f"{path}: unsafe: it asks for {names}; continue from a checkpoint of your own")


def _check_disk(trainer: FineTuner, run: RunFolder) -> None:
    """Two checkpoints have to fit: the new one is written before an old one goes."""
    if trainer.args.save_strategy == "no":
        return
    model = cast("torch.nn.Module", trainer.model)
    needed = 2 * COPIES_IN_A_CHECKPOINT * sum(p.numel() * p.element_size() for p in model.parameters())
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise ResourceError(
            "DISK", f"{run.path}: checkpoints need {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        )


def _check_weights(trainer: FineTuner, checkpoint: Path) -> None:
    """The library loads what it finds and leaves the rest as it was; here every weight has to be there."""
    try:
        with safe_open(checkpoint / WEIGHTS, "pt") as file:
            found = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError("CHECKPOINT", f"{checkpoint / WEIGHTS}: cannot be read: {error}") from error
    expected = set(trainer.model.state_dict()) if trainer.model else set()
    if found != expected:
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        raise ModelError("CHECKPOINT", f"{checkpoint}: weights missing: {missing}, unexpected: {unexpected}")
