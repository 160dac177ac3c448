"""The training stage: run or continue a `FineTuner`."""

import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nlptrain.callbacks.progress import ProgressDisplay
from nlptrain.errors import ConfigError, ModelError
from nlptrain.run_folder import RunFolder
from nlptrain.trainer import FineTuner

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
STATE = "trainer_state.json"


def fit(trainer: FineTuner, run: RunFolder, *, resume: str | bool) -> dict[str, Any]:
    """Train to the end; the trainer then holds the best model where `load_best_model_at_end` is on.

    Args:
        trainer: with training rows.
        run: the run folder.
        resume: True for the newest checkpoint of the run, or the path of one.

    Returns:
        Steps done, the best step, the final training loss and the speed; JSON-ready.

    Raises:
        ModelError: a named checkpoint is incomplete, or one has not exactly the model's weights.
        ConfigError: the library or a part refuses a combination of settings.
    """
    checkpoint = _checkpoint(run, resume) if resume else None
    if checkpoint is not None:
        _check_weights(trainer, Path(checkpoint))
        logger.info("resuming from %s", checkpoint)
    try:
        done = trainer.train(resume_from_checkpoint=checkpoint)
    except ValueError as error:
        raise ConfigError("TRAINING", str(error)) from error
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressDisplay):
                callback.close()
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
        "epochs": trainer.state.epoch,
        "loss": done.training_loss,
        "seconds": done.metrics["train_runtime"],
        "texts_per_second": done.metrics["train_samples_per_second"],
    }


def _checkpoint(run: RunFolder, resume: str | bool) -> str | None:
    if isinstance(resume, str):
        if not (Path(resume) / STATE).is_file():
            raise ModelError("CHECKPOINT", f"{resume}: not a complete checkpoint; name one below {run.checkpoints}")
        return resume
    # the library writes the state last
    found = sorted(run.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    complete = [path for path in found if (path / STATE).is_file()]
    for path in found:
        if path not in complete:
            logger.warning("%s is incomplete and is passed over", path)
    if not complete:
        logger.warning("%s: no checkpoint yet; starting at step 0", run.checkpoints)
    return str(complete[-1]) if complete else None


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
