"""One cell of the resume grid: a run that is stopped by a signal and continued, beside one that is not.

``python -m tests.resume_cells FOLDER`` under torchrun does all cells of that many processes.
"""

import sys
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import pytest

from nlptrain import processes
from nlptrain.config import load as config_file
from nlptrain.data.load import load_splits
from nlptrain.errors import StoppedError
from nlptrain.pipeline import assemble, resolve
from nlptrain.run_folder import RunFolder
from nlptrain.train import fit
from nlptrain.verify.child import StopAt

# 44 rows in global batches of 12: four steps an epoch, the last one smaller
ROWS, WINDOW, STEPS, EPOCHS = 44, 12, 4, 2
# the step in which the signal comes, and after how many micro-batches of it
POINTS = {"mid_epoch": (6, 0), "epoch_end": (4, 0), "mid_accumulation": (7, 1)}
TECHNIQUES = {
    "plain": [],
    "armijo": ["optim={name: armijo}"],
    "percentile": ["clipping={by: percentile, threshold: 50, window: 4}"],
    "plateau": ["schedule={name: plateau, patience: 0, factor: 0.5}"],
    "schedule_free": ["optim={name: schedule_free_adamw}"],
    "token_dropout": ["model.token_dropout=0.2", "optim={name: adamw, decay_schedule: cosine}"],
    "oversample": ["data.balance=oversample", "model.dropout=0.2"],
    "normalization": ["model.normalize=whiten", "embeddings={table: unit}"],
}
# runs that end before their last epoch does
ENDINGS = {
    "within_an_epoch": ["training.max_steps=6"],
    "early": ["early_stopping.patience=1", "training.learning_rate=1e-30", "training.num_train_epochs=4"],
}


class Cell(NamedTuple):
    """A point of the grid."""

    point: str
    accumulation: int
    workers: int
    processes: int
    technique: str

    @property
    def name(self) -> str:
        return "-".join(map(str, self))


def cells() -> list[Cell]:
    """A selection in which every two settings that go together meet at least once, chosen greedily."""
    axes = (POINTS, (1, 3), (0, 2), (1, 2), TECHNIQUES)
    # a step of one micro-batch has no middle
    everything = [c for c in map(Cell._make, product(*axes)) if c.point != "mid_accumulation" or c.accumulation > 1]
    missing = {pair for cell in everything for pair in pairs(cell)}
    chosen = []
    while missing:
        best = max(everything, key=lambda cell: len(missing & pairs(cell)))
        missing -= pairs(best)
        chosen.append(best)
    return chosen


def pairs(cell: Cell) -> set[tuple[tuple[int, object], tuple[int, object]]]:
    """Every two settings of a cell, with their axes."""
    return set(combinations(enumerate(cell), 2))


def run(cell: Cell, folder: Path) -> None:
    """Both runs of a cell, below `folder`, from the card that lies there."""
    train(cell, folder, "whole")
    with pytest.raises(StoppedError, match="SIGTERM with a checkpoint at step"):
        train(cell, folder, "stopped", stop=True)
    train(cell, folder, "stopped", resume=True)


def train(cell: Cell, folder: Path, name: str, *, resume: bool = False, stop: bool = False) -> None:
    run = RunFolder(folder / cell.name / name)
    size = WINDOW // (cell.accumulation * cell.processes)
    training = {
        "output_dir": run.path,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": cell.accumulation,
        "dataloader_num_workers": cell.workers,
        "num_train_epochs": EPOCHS,
        # the signal comes between two entries
        "logging_steps": 5,
        "bf16": "false",
    }
    words = [f"training.{key}={value}" for key, value in training.items()]
    config = config_file.load(folder / "card.yaml", [*words, *(TECHNIQUES | ENDINGS)[cell.technique]])
    config = resolve(config, run, resume=resume)
    work = assemble(config, load_splits(config.spec, config.data, seed=42), run)
    # of two processes the second is told
    if stop and work.trainer.args.process_index == cell.processes - 1:
        work.trainer.add_callback(StopAt(*POINTS[cell.point]))
    fit(work.trainer, run, resume=resume)


if __name__ == "__main__":
    count = processes.start()
    for cell in cells():
        if cell.processes == count:
            run(cell, Path(sys.argv[1]))
    processes.finish()
