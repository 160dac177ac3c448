"""The training stage: run or continue a `FineTuner`."""

import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import get_last_checkpoint

from nlptrain.errors import ModelError
from nlptrain.run_folder import RunFolder
from nlptrain.trainer import FineTuner

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"


def fit(trainer: FineTuner, run: RunFolder, *, resume: str | bool) -> dict[str, Any]:
    """Train to the end; the trainer then holds the best model where `load_best_model_at_end` is on.

    Args:
        trainer: with training rows.
        run: the run folder.
        resume: True for the newest checkpoint of the run, or the path of one.

    Returns:
        Steps done, the best step, the final training loss and the speed; JSON-ready.

    Raises:
        ModelError: there is nothing to resume from, or the checkpoint has not exactly the model's weights.
    """
    checkpoint = _checkpoint(run, resume) if resume else None
    if checkpoint is not None:
        _check_weights(trainer, Path(checkpoint))
        logger.info("resuming from %s", checkpoint)
    done = trainer.train(resume_from_checkpoint=checkpoint)
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        "loss": done.training_loss,
        "seconds": done.metrics["train_runtime"],
        "texts_per_second": done.metrics["train_samples_per_second"],
    }


def _checkpoint(run: RunFolder, resume: str | bool) -> str:
    if isinstance(resume, str):
        if not (Path(resume) / "trainer_state.json").is_file():
            raise ModelError("CHECKPOINT", f"{resume}: not a complete checkpoint; name one below {run.checkpoints}")
        return resume
    newest = get_last_checkpoint(str(run.checkpoints)) if run.checkpoints.is_dir() else None
    if newest is None:
        raise ModelError("CHECKPOINT", f"{run.checkpoints}: no checkpoint to resume from; start without --resume")
    return str(newest)


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
