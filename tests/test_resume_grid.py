"""Stopped by a signal and continued equals never stopped, bit for bit: a pairwise selection of the whole grid."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest

from nlptrain.run_folder import RunFolder
from nlptrain.verify import states
from tests.command_line import sentences, write_csv
from tests.resume_cells import POINTS, ROWS, TECHNIQUES, Cell, cells, pairs, run, train
from tests.test_distributed import TORCHRUN, launch
from tests.tiny import tiny_model_dir

# one of each technique, at the end of an epoch or in it, in the usual run; the others where slow tests are asked for
QUICK = {"armijo", "plateau"}


def write_card(folder: Path) -> Path:
    model = tiny_model_dir(folder / "tiny")
    rows = sentences(ROWS, 0)
    # one class is rarer, so that oversampling repeats rows
    write_csv(folder / "train.csv", [row for n, row in enumerate(rows) if n % 4 or n % 8] + sentences(6, 2)[1::2])
    write_csv(folder / "validation.csv", sentences(16, 1))
    (folder / "card.yaml").write_text(
        "task: {name: words, kind: classification, labels: [negative, positive]}\n"
        f"data: {{train: {folder}/train.csv, validation: {folder}/validation.csv}}\n"
        f"model: {{name: {model}, dropout: 0.1}}\n",
        encoding="utf-8",
    )
    return folder


def differences(cell: Cell, folder: Path) -> dict[str, int]:
    return states.differences(*(RunFolder(folder / cell.name / name) for name in ("whole", "stopped")))


def selected(processes: int) -> list[object]:
    chosen = [cell for cell in cells() if cell.processes == processes]
    quick = {next(c for c in chosen if c.technique == name) for name in QUICK} if processes == 1 else set()
    return [pytest.param(c, id=c.name, marks=[] if c in quick else [pytest.mark.slow]) for c in chosen]


def test_the_selection_has_every_pair_of_settings() -> None:
    axes = [list(POINTS), [1, 3], [0, 2], [1, 2], list(TECHNIQUES)]
    every = {pair for values in product(*axes) for pair in pairs(Cell._make(values))}
    left_out = {((0, "mid_accumulation"), (1, 1))}
    assert every - {pair for cell in cells() for pair in pairs(cell)} == left_out


@pytest.mark.parametrize("cell", selected(1))
def test_one_process(cell: Cell, tmp_path: Path) -> None:
    run(cell, write_card(tmp_path))
    assert not any(differences(cell, tmp_path).values()), differences(cell, tmp_path)
    final = json.loads((tmp_path / cell.name / "whole" / "history.jsonl").read_text().splitlines()[-1])
    assert final["step"] == 8 if cell.technique != "oversample" else final["step"] > 6


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of two processes, which are started once."""
    folder = write_card(tmp_path_factory.mktemp("two"))
    done = launch(*TORCHRUN, "-m", "tests.resume_cells", folder)
    assert done.code == 0, done.err
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("cell", selected(2))
def test_two_processes(cell: Cell, two: Path) -> None:
    assert not any(differences(cell, two).values()), differences(cell, two)


def nothing(*_: object, **__: object) -> None:
    return None


# what is left out of a resume -> where it is seen
FAULTS = {
    "_load_rng_state": "random numbers",
    "_load_optimizer_and_scheduler": "optimizer",
    "_load_callback_state": "callbacks",
    "begin": "history",
}


@pytest.mark.slow
@pytest.mark.parametrize(("left_out", "part"), FAULTS.items())
def test_a_resume_that_leaves_something_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: str, part: str
) -> None:
    monkeypatch.setattr(f"nlptrain.trainer.FineTuner.{left_out}", nothing)
    cell = Cell("mid_epoch", 1, 0, 1, "percentile")
    run(cell, write_card(tmp_path))
    assert differences(cell, tmp_path)[part]


@pytest.mark.slow
def test_a_checkpoint_before_the_evaluation_of_its_epoch_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlptrain.resumption._Moments.on_step_end", nothing)
    cell = Cell("epoch_end", 1, 0, 1, "plateau")
    run(cell, write_card(tmp_path))
    found = differences(cell, tmp_path)
    assert found["history"]
    assert found["scheduler"] or found["callbacks"]


@pytest.mark.parametrize("how", ["within_an_epoch", "early"])
def test_a_finished_run_is_not_trained_further(tmp_path: Path, how: str) -> None:
    cell = Cell("mid_epoch", 1, 0, 1, how)
    folder = write_card(tmp_path)
    train(cell, folder, "whole")
    shutil.copytree(tmp_path / cell.name / "whole", tmp_path / cell.name / "stopped")
    train(cell, folder, "stopped", resume=True)
    assert not any(differences(cell, tmp_path).values()), differences(cell, tmp_path)
