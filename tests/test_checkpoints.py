"""A checkpoint exists when its manifest does, and is used only when every byte is as it was."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nlptrain import checkpoints
from nlptrain.errors import ModelError
from tests.command_line import Done, sentences, write_csv

FILES = ("a.bin", "b.json")


def made(parent: Path, step: int) -> Path:
    checkpoint = checkpoints.folder(parent, step)
    checkpoint.mkdir(parents=True)
    for name in FILES:
        (checkpoint / name).write_bytes(os.urandom(100))
    checkpoints.seal(checkpoint, {"step": step})
    return checkpoint


def test_every_single_bit_and_every_missing_byte_is_noticed(tmp_path: Path) -> None:
    checkpoint = made(tmp_path, 1)
    for name in FILES:
        whole = (checkpoint / name).read_bytes()
        flipped = bytes([*whole[:50], whole[50] ^ 1, *whole[51:]])
        for content in (flipped, whole[:-1], b""):
            (checkpoint / name).write_bytes(content)
            with pytest.raises(ModelError, match=name):
                checkpoints.verify(checkpoint)
        (checkpoint / name).write_bytes(whole)
    assert checkpoints.verify(checkpoint)["step"] == 1


def test_the_newest_that_verifies_is_taken_and_the_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, damaged, torn = made(tmp_path, 9), made(tmp_path, 10), made(tmp_path, 100)
    (damaged / "a.bin").unlink()
    (torn / checkpoints.MANIFEST).unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(tmp_path) == good
    assert "a.bin is missing" in caplog.text
    assert "checkpoint-100 is incomplete" in caplog.text


def test_a_start_from_nothing_needs_that_none_was_ever_complete(tmp_path: Path) -> None:
    torn = made(tmp_path, 1)
    (torn / "a.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="every completed checkpoint is damaged: checkpoint-1"):
        checkpoints.newest(tmp_path)
    (torn / checkpoints.MANIFEST).unlink()
    assert checkpoints.newest(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', "\x00"])
def test_a_damaged_manifest_is_a_damaged_checkpoint(tmp_path: Path, text: str) -> None:
    checkpoint = made(tmp_path, 1)
    (checkpoint / checkpoints.MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=checkpoints.MANIFEST):
        checkpoints.verify(checkpoint)


def test_rotation_keeps_the_best_and_the_newest_that_verify(tmp_path: Path) -> None:
    made(tmp_path, 1), made(tmp_path, 2), made(tmp_path, 3), made(tmp_path, 4)
    (tmp_path / "checkpoint-4" / "a.bin").unlink()
    checkpoints.rotate(tmp_path, keep=1, best=1)
    assert [path.name for path in checkpoints.steps(tmp_path)] == ["checkpoint-1", "checkpoint-3", "checkpoint-4"]


def test_an_error_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def write() -> None:
        with checkpoints.writing(tmp_path / "checkpoint-1", main=True):
            (tmp_path / "checkpoint-1").mkdir()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert not (tmp_path / "checkpoint-1").exists()


def test_a_damaged_checkpoint_is_passed_over_and_the_result_is_the_same(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "run" / "model" / "model.safetensors"
    assert nlptrain("train", card, "training.save_total_limit=9").code == 0
    expected = load_file(weights)
    optimizer = tmp_path / "run" / "checkpoints" / "checkpoint-42" / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    done = nlptrain("train", card, "training.save_total_limit=9", "--resume")
    assert (done.code, f"{optimizer} is damaged" in done.err, "checkpoint-28" in done.err) == (0, True, True)
    assert all(value.equal(expected[name]) for name, value in load_file(weights).items())


def test_a_named_checkpoint_that_is_damaged_is_not_replaced_by_another(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", card, "training.save_total_limit=9").code == 0
    chosen = tmp_path / "run" / "checkpoints" / "checkpoint-28"
    (chosen / "scheduler.pt").unlink()
    again = ("training.save_total_limit=9", f"training.resume_from_checkpoint={chosen}", "--resume")
    done = nlptrain("train", card, *again)
    assert (done.code, "scheduler.pt is missing" in done.err) == (4, True)


def test_other_rows_are_refused_with_what_changed(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    assert nlptrain("train", card, "training.max_steps=14").code == 0
    write_csv(tmp_path / "train.csv", list(reversed(sentences(120, 0))))
    done = nlptrain("train", card, "training.max_steps=14", "--resume")
    assert (done.code, "cannot continue with other rows" in done.err) == (4, True)


def test_a_run_that_moved_keeps_its_best_checkpoint(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    assert nlptrain("train", card, "training.save_total_limit=9").code == 0
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    best = json.loads((moved / "results.json").read_text())["best_step"]
    words = ("training.save_total_limit=9", f"training.output_dir={moved}", "--resume")
    assert nlptrain("train", card, *words).code == 0
    model, checkpoint = (
        load_file(moved / name / "model.safetensors") for name in ("model", f"checkpoints/checkpoint-{best}")
    )
    assert all(model[name].equal(checkpoint[name]) for name in model)


def test_a_disk_without_room_for_two_checkpoints_is_known_before_training(
    nlptrain: Callable[..., Done], card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    done = nlptrain("train", card)
    assert (done.code, "error[E_DISK]" in done.err) == (6, True)


def status(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run_status.json").read_text())
    return found


def test_the_status_says_how_a_run_ended(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    assert nlptrain("train", card, "training.learning_rate=1e30").code == 5
    assert {key: status(tmp_path / "run")[key] for key in ("state", "code")} == {"state": "failed", "code": 5}
    other = f"training.output_dir={tmp_path / 'other'}"
    assert nlptrain("train", card, other, "training.max_steps=2").code == 0
    before = status(tmp_path / "other")
    assert (before["state"], before["code"]) == ("done", 0)
    assert nlptrain("train", card, other, "training.seed=9", "--resume").code == 4
    assert status(tmp_path / "other") == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_between_two_steps_and_it_continues_to_the_same_weights(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, number: int, code: int
) -> None:
    words = ["training.save_total_limit=9", "training.num_train_epochs=15", "training.logging_steps=1"]
    assert nlptrain("train", card, *words).code == 0
    stopped = tmp_path / "stopped"
    words.append(f"training.output_dir={stopped}")
    child = subprocess.Popen([sys.executable, "-m", "nlptrain", "train", card, *words], stderr=subprocess.PIPE)
    while not (stopped / "history.jsonl").exists():
        time.sleep(0.05)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert (child.returncode, b"with a checkpoint at step" in err, b"Traceback" in err) == (code, True, False)
    assert (status(stopped)["state"], status(stopped)["code"]) == ("preempted", code)
    assert not (stopped / "model").exists()
    assert nlptrain("train", card, *words, "--resume").code == 0
    one, two = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "run", stopped))
    assert all(one[name].equal(two[name]) for name in one)


def test_the_manifest_goes_first_so_that_a_half_removed_checkpoint_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = made(tmp_path, 1)
    # as if killed in the middle
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    checkpoints.remove(checkpoint)
    assert checkpoint.exists()
    assert checkpoints.newest(tmp_path) is None


@pytest.fixture
def done(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> Path:
    """A finished run of three epochs with all of its checkpoints."""
    assert nlptrain("train", card, "training.save_total_limit=9").code == 0
    return tmp_path / "run"


def test_a_manifest_names_every_file_and_what_the_run_was(done: Path) -> None:
    checkpoint = done / "checkpoints" / "checkpoint-42"
    found = checkpoints.verify(checkpoint)
    there = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    assert found["files"].keys() == there - {checkpoints.MANIFEST}
    assert (found["step"], found["processes"], found["labels"]) == (42, 1, ["negative", "positive"])
    assert found["rows"].keys() == {"train", "validation"}
    assert found["config"]["training"]["seed"] == 42
    # states of the optimizer, the schedule and the random numbers: read without running anything they name
    pickled = {name for name in there if not name.endswith((".json", ".safetensors", ".txt"))}
    assert pickled == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


def test_a_harmless_change_is_noted_and_changes_nothing(
    nlptrain: Callable[..., Done], card: Path, done: Path, tmp_path: Path
) -> None:
    expected = load_file(done / "model" / "model.safetensors")
    checkpoints.remove(done / "checkpoints" / "checkpoint-42")
    (tmp_path / "train.csv").rename(tmp_path / "other.csv")
    words = ("training.logging_steps=3", "training.save_total_limit=8", f"data.train={tmp_path}/other.csv")
    again = nlptrain("train", card, *words, "--resume")
    assert again.code == 0, again.err
    assert "training.logging_steps: 10 in the run, 3 now; it changes nothing that is learned" in again.err
    assert "data.train" in again.err
    assert all(value.equal(expected[name]) for name, value in load_file(done / "model" / "model.safetensors").items())


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("training.seed=7", "training.seed: 42 in the run, 7 now"),
        ("training.per_device_train_batch_size=4", "training.per_device_train_batch_size: 8 in the run, 4 now"),
        ("training.num_train_epochs=4", "training.num_train_epochs: 3 in the run, 4 now"),
        ("training.lr_scheduler_type=cosine", "training.lr_scheduler_type: 'linear' in the run, 'cosine' now"),
        ("schedule={name: cosine}", "schedule: None in the run"),
        ("data.max_length=16", "data.max_length: 256 in the run, 16 now"),
        ("data.clean=[lowercase]", "data.clean: [] in the run, ['lowercase'] now"),
        ("task.labels=[positive, negative]", "['negative', 'positive'] in the run, ['positive', 'negative'] now"),
    ],
)
def test_a_change_that_alters_training_is_refused_also_from_a_named_checkpoint(
    nlptrain: Callable[..., Done], card: Path, done: Path, tmp_path: Path, word: str, line: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    again = nlptrain("train", card, word, "--resume")
    assert (again.code, line in again.err) == (4, True), again.err
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
    # in a folder of its own there is no configuration to compare with but the manifest's
    where = f"training.resume_from_checkpoint={done}/checkpoints/checkpoint-28"
    other = nlptrain("train", card, word, where, f"training.output_dir={tmp_path}/other")
    assert (other.code, "cannot continue with" in other.err) == (4, True), other.err


def test_resume_takes_the_path_of_a_checkpoint_and_no_other(
    nlptrain: Callable[..., Done], card: Path, done: Path
) -> None:
    chosen = done / "checkpoints" / "checkpoint-28"
    again = nlptrain("train", card, "--resume", chosen, "training.save_total_limit=9")
    assert (again.code, f"resuming from {chosen}" in again.err) == (0, True), again.err
    (chosen / "scheduler.pt").unlink()
    again = nlptrain("train", card, "--resume", chosen)
    assert (again.code, "scheduler.pt is missing" in again.err) == (4, True)
    assert nlptrain("train", card, "--resume", chosen, chosen.parent).code == 2


class Planted:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_state_that_would_run_something_is_refused_before_it_is_read(
    nlptrain: Callable[..., Done], card: Path, done: Path, tmp_path: Path, name: str
) -> None:
    checkpoint = done / "checkpoints" / "checkpoint-42"
    torch.save({"state": Planted(tmp_path / "canary")}, checkpoint / name)
    # by somebody who also knows how to seal it
    checkpoints.seal(checkpoint, {k: v for k, v in checkpoints.facts(checkpoint).items() if k != "files"})
    again = nlptrain("train", card, "training.save_total_limit=9", "--resume")
    assert (again.code, "error[E_UNSAFE]" in again.err, "mkdir" in again.err) == (4, True, True), again.err
    assert not (tmp_path / "canary").exists()
