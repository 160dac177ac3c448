"""The parts that plug into a Trainer: one file each, put together in `build`."""

from transformers import EarlyStoppingCallback, TrainerCallback

from nlptrain.callbacks.history import History
from nlptrain.callbacks.progress import ProgressDisplay
from nlptrain.config.schema import EarlyStopping
from nlptrain.run_folder import RunFolder
from nlptrain.tasks import TaskSpec

__all__ = ["History", "ProgressDisplay", "build"]


def build(task: TaskSpec, stopping: EarlyStopping, run: RunFolder) -> list[TrainerCallback]:
    """The callbacks of a run, in the order in which they are called: what decides first, what only watches last."""
    deciding: list[TrainerCallback] = []
    if stopping.patience is not None:
        deciding.append(EarlyStoppingCallback(stopping.patience, stopping.threshold))
    return [*deciding, History(run.history), ProgressDisplay(task.metrics)]
