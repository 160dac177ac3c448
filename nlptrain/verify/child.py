"""``python -m nlptrain.verify.child JOB``: one training run of a verification, by the program's own stages."""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain import processes
from nlptrain.command import command
from nlptrain.config import load as config_file
from nlptrain.data.load import load_splits
from nlptrain.interruption import handled, interrupt
from nlptrain.pipeline import assemble, resolve
from nlptrain.run_folder import RunFolder
from nlptrain.train import fit
from nlptrain.verify.children import Job


class StopAt(TrainerCallback):
    """Send this process a SIGTERM within a step.

    Args:
        step: counted from 1.
        within: at the first micro-batch (0) or after so many of them.
    """

    def __init__(self, step: int, within: int = 0) -> None:
        self.step, self.within, self.seen = step, within, 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The step begins."""
        self.seen = 0
        self._stop(state)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A micro-batch that is not the last one is done."""
        self.seen += 1
        self._stop(state)

    def _stop(self, state: TrainerState) -> None:
        if state.global_step + 1 == self.step and self.seen == self.within:
            os.kill(os.getpid(), signal.SIGTERM)


def train(job: Job) -> dict[str, Any]:
    """The stages of a run up to the trained model."""
    config = config_file.load(Path(job.config))
    folder = RunFolder(Path(config.training["output_dir"]))
    processes.start()
    with handled(interrupt):
        config = resolve(config, folder, resume=job.resume)
        splits = load_splits(config.spec, config.data, seed=config.training["seed"])
        work = assemble(config, splits, folder)
        if job.stop_at is not None:
            work.trainer.add_callback(StopAt(job.stop_at))
        done = fit(work.trainer, folder, resume=job.resume)
        if job.digest:
            rank = os.environ.get("RANK", "0")
            Path(f"{job.digest}{rank}").write_text(digest(work.model), encoding="utf-8")
    return done


def digest(model: torch.nn.Module) -> str:
    """sha256 (hex) of all weights and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    command(lambda: train(job), lambda done: [], as_json=False, debug=False)
