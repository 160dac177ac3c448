"""Whatever happens to a run: a named end, its exit code, and the last good checkpoint as it was."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nlptrain import checkpoints, pipeline, trainer
from nlptrain.errors import ModelError, StoppedError
from nlptrain.interruption import handled, interrupt
from tests import faults
from tests.command_line import sentences, write_card, write_csv

pytestmark = pytest.mark.faults
WRITES = 24  # of the second checkpoint of the run below
EPOCH = 3


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    path = write_card(folder)
    write_csv(folder / "train.csv", sentences(26, 0))
    return path


def words(card: Path, run: Path, *more: str) -> list[str]:
    # without a best checkpoint the first one is always deleted after the second save
    short = (
        "training.num_train_epochs=3",
        "training.load_best_model_at_end=false",
        "report={bootstrap: 0, baselines: []}",
        "model.dropout=0.1",
    )
    return ["train", str(card), f"training.output_dir={run}", *short, *more]


@pytest.fixture(scope="module")
def whole(card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to which nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    child = faults.run(folder, words(card, folder / "run"))
    assert child.end == "exit 0", child.err
    return folder / "run"


def status(run: Path) -> tuple[str, int]:
    found = json.loads((run / "run_status.json").read_text())
    return found["state"], found["code"]


def same_weights(one: Path, two: Path) -> bool:
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    return all(ours[name].equal(theirs[name]) for name in ours)


def ends_as_the_whole(card: Path, run: Path, whole: Path, folder: Path) -> bool:
    child = faults.run(folder / "again", [*words(card, run), "--resume"])
    assert (child.end, "Traceback" in child.err) == ("exit 0", False), child.err
    return same_weights(run, whole)


def every_write(card: Path, folder: Path, then: Callable[[], None]) -> tuple[list[faults.Child], list[Path]]:
    """The run once for each write of its second checkpoint, in which `then` happens at that write."""
    children, runs = [], []
    while not children or children[-1].fired:
        place = folder / str(len(children) + 1)
        fault = faults.at_write(len(children) + 1, 2, then)
        children.append(faults.run(place, words(card, place / "run"), fault))
        runs.append(place / "run")
    assert children[-1].end == "exit 0"
    return children[:-1], runs[:-1]


@pytest.mark.slow
def test_a_kill_at_every_write_of_a_checkpoint_loses_no_more_than_that_checkpoint(
    card: Path, whole: Path, tmp_path: Path
) -> None:
    children, runs = every_write(card, tmp_path, faults.kill())
    assert len(children) == WRITES
    assert {child.end for child in children} == {"killed 9"}
    for number, run in enumerate(runs):
        newest = checkpoints.newest(run / "checkpoints")
        assert newest is not None
        assert newest.name in (f"checkpoint-{EPOCH}", f"checkpoint-{2 * EPOCH}"), number
        assert not (run / "model").exists()
        assert ends_as_the_whole(card, run, whole, tmp_path / f"resumed{number}"), number


@pytest.mark.slow
def test_a_full_disk_at_every_write_of_a_checkpoint_is_exit_code_6(card: Path, tmp_path: Path) -> None:
    children, runs = every_write(card, tmp_path, faults.refuse(faults.FULL))
    assert len(children) == WRITES
    for at, (child, run) in enumerate(zip(children, runs, strict=True)):
        if child.end == "exit 0":  # what could not be deleted
            continue
        assert child.end == "exit 6", (at, child.err)
        assert "nlptrain: error[E_" in child.err
        assert "Traceback" not in child.err
        assert status(run) == ("failed", 6)
        assert checkpoints.newest(run / "checkpoints") is not None


def test_every_file_of_a_checkpoint_is_watched(whole: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(checkpoints.newest(whole / "checkpoints") or whole, tmp_path / "checkpoint-9")
    names = sorted(path.name for path in checkpoint.iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < set(names)
    for path in sorted(checkpoint.iterdir()):
        content = path.read_bytes()
        middle = len(content) // 2
        places = range(len(content)) if path.name == checkpoints.MANIFEST else (middle,)
        flips = (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in places)
        for broken in (*flips, content[:-2], content[:middle], b"", None):
            path.unlink() if broken is None else path.write_bytes(broken)
            with pytest.raises(ModelError):
                checkpoints.verify(checkpoint)
        path.write_bytes(content)
    checkpoints.verify(checkpoint)


PHASES: dict[str, tuple[Any, str, int]] = {
    "reading": (pipeline, "load_splits", 1),
    "building": (pipeline, "assemble", 1),
    "training": (trainer.FineTuner, "training_step", 5),
    "evaluation": (trainer.FineTuner, "evaluate", 2),
    "the last evaluation": (trainer.FineTuner, "evaluate", 3),
    "saving": (checkpoints, "seal", 2),
    "export": (trainer.FineTuner, "save_model", 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_every_phase_with_its_code_and_nothing_half_made(
    card: Path, whole: Path, tmp_path: Path, phase: str, number: int, code: int
) -> None:
    run, (owner, name, call) = tmp_path / "run", PHASES[phase]
    child = faults.run(tmp_path, words(card, run), faults.at_call(owner, name, faults.kill(number), call))
    assert (child.fired, child.end, "Traceback" in child.err) == (True, f"exit {code}", False), child.err
    assert not (run / "model").exists()
    if run.exists():
        assert status(run) == ("preempted", code)
        assert ends_as_the_whole(card, run, whole, tmp_path)


class Destroyed:
    """Its destructor gets a SIGTERM; what the handler raises in there is dropped by Python."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the handler runs between two instructions


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_a_destructor_ends_the_block_at_its_end() -> None:
    before, passed = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(StoppedError) as caught, handled(interrupt):  # noqa: PT012 - the block has to go on
        Destroyed()
        passed = True
    assert (passed, caught.value.exit_code, signal.getsignal(signal.SIGTERM)) == (True, 143, before)


@pytest.mark.slow
def test_a_signal_in_a_destructor_ends_the_run_with_its_code_and_status(card: Path, tmp_path: Path) -> None:
    child = faults.run(tmp_path, words(card, tmp_path / "run"), faults.at_call(pipeline, "_record", Destroyed))
    assert (child.fired, child.end) == (True, "exit 143"), child.err
    assert status(tmp_path / "run") == ("preempted", 143)


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def no_memory() -> None:
    torch.empty(1 << 50)


@pytest.mark.slow
@pytest.mark.parametrize("then", [out_of_memory, no_memory])
def test_out_of_memory_is_exit_code_6_and_leaves_the_last_checkpoint(
    card: Path, whole: Path, tmp_path: Path, then: Callable[[], None]
) -> None:
    run = tmp_path / "run"
    child = faults.run(tmp_path, words(card, run), faults.at_call(trainer.FineTuner, "training_step", then, 5))
    assert (child.fired, child.end, "E_MEMORY" in child.err) == (True, "exit 6", True), child.err
    assert status(run) == ("failed", 6)
    assert ends_as_the_whole(card, run, whole, tmp_path)


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_is_exit_code_6(card: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = faults.run(tmp_path, words(card, run), faults.at_write(10, 2, faults.refuse(faults.READ_ONLY)))
    assert (child.fired, child.end, "E_FILES" in child.err) == (True, "exit 6", True), child.err
    assert ends_as_the_whole(card, run, whole, tmp_path)


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_exit_code_6(card: Path, tmp_path: Path) -> None:
    def small_files(fired: faults.Fired) -> None:
        faults.at_call(checkpoints, "rotate", lambda: limit(resource.RLIMIT_FSIZE, (50_000, 50_000)))(fired)

    limit = resource.setrlimit
    run = tmp_path / "run"
    child = faults.run(tmp_path, words(card, run), small_files)
    assert (child.fired, child.end, "E_DISK" in child.err) == (True, "exit 6", True), child.err
    assert status(run) == ("failed", 6)
    assert checkpoints.newest(run / "checkpoints") == run / "checkpoints" / f"checkpoint-{EPOCH}"
    assert not (run / "model").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_exit_code_5_and_leaves_the_last_checkpoint(card: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def poison(fired: faults.Fired) -> None:
        step = trainer.FineTuner._loss

        def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
            loss = step(self, *args, **kwargs)
            if self.state.global_step < 4:
                return loss
            fired()
            return loss * float("nan")

        trainer.FineTuner._loss = poisoned  # type: ignore[method-assign]

    child = faults.run(tmp_path, words(card, run), poison)
    assert (child.fired, child.end, "step 5" in child.err) == (True, "exit 5", True), child.err
    assert status(run) == ("failed", 5)
    kept = load_file((checkpoints.newest(run / "checkpoints") or run) / "model.safetensors")
    assert all(weight.isfinite().all() for weight in kept.values())
    assert not (run / "model").exists()


@pytest.mark.slow
def test_a_run_folder_that_is_deleted_is_a_named_end(card: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    gone = faults.at_call(trainer.FineTuner, "training_step", lambda: shutil.rmtree(run), 5)
    child = faults.run(tmp_path, words(card, run), gone)
    assert (child.fired, child.end, "Traceback" in child.err) == (True, "exit 6", False), child.err


@pytest.mark.slow
@pytest.mark.distributed
def test_one_process_that_is_told_to_stop_stops_both(card: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = faults.at_call(trainer.FineTuner, "training_step", faults.kill(signal.SIGTERM), 3)
    children = faults.two(tmp_path, words(card, run), (None, told))
    assert [child.end for child in children] == ["exit 143", "exit 143"], [child.err for child in children]
    assert children[1].fired
    assert status(run) == ("preempted", 143)
    assert checkpoints.newest(run / "checkpoints") is not None


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_other_with_exit_code_7(card: Path, tmp_path: Path, rank: int) -> None:
    run = tmp_path / "run"
    dies = faults.at_call(trainer.FineTuner, "training_step", faults.kill(), 5)
    children = faults.two(tmp_path, words(card, run), (dies, None) if rank == 0 else (None, dies))
    assert children[rank].fired
    assert children[rank].end == "killed 9"
    assert children[1 - rank].end == "exit 7", children[1 - rank].err
    assert status(run) == ("failed", 7)


@pytest.mark.slow
@pytest.mark.distributed
def test_the_status_names_the_cause_and_not_what_followed(card: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fails = faults.at_call(trainer.FineTuner, "training_step", out_of_memory, 5)
    children = faults.two(tmp_path, words(card, run), (None, fails))
    assert [child.end for child in children] == ["exit 7", "exit 6"], [child.err for child in children]
    assert status(run) == ("failed", 6)


@pytest.mark.slow
@pytest.mark.parametrize("then", [faults.kill(signal.SIGTERM), faults.refuse(faults.FULL)], ids=["stopped", "full"])
def test_predictions_that_are_not_whole_are_not_there(
    card: Path, whole: Path, tmp_path: Path, then: Callable[[], None]
) -> None:
    output = tmp_path / "out.csv"
    line = ["predict", str(whole), "--data", str(card.parent / "test.csv"), "--output", str(output)]
    child = faults.run(tmp_path / "child", line, faults.at_call(os, "fsync", then))
    assert child.fired
    assert child.end == ("exit 143" if "SIGTERM" in child.err else "exit 6"), child.err
    assert list(tmp_path.glob("*out.csv*")) == []
