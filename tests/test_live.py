"""What can be watched while a run trains: a terminal, a log, history.jsonl and the integrations of the Trainer."""

import json
import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from nlptrain import pipeline, training_arguments
from nlptrain.callbacks.history import History
from nlptrain.config.load import load
from nlptrain.config.reporters import REPORTERS
from tests.command_line import Done

CONTROL = TrainerControl()
ANSI = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


def on_a_terminal(*words: object) -> tuple[int, bytes]:
    """Exit code and all bytes that a command writes to a terminal of 120 columns."""
    child, terminal = pty.fork()
    if child == 0:
        root = str(Path(__file__).parents[1])
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="40", PYTHONPATH=root)
        os.execv(sys.executable, [sys.executable, "-m", "nlptrain", *map(str, words)])
    found = b""
    try:
        while part := os.read(terminal, 65536):
            found += part
    except OSError:  # how Linux says that the other end is closed
        pass
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), found


@pytest.mark.slow
def test_on_a_terminal_lines_stay_whole_above_one_bar(card: Path) -> None:
    code, found = on_a_terminal("train", card, "report.bootstrap=0", "report.baselines=[]")
    assert code == 0
    assert b"\x1b[?25l" in found  # a bar that hides the cursor ...
    assert found.rindex(b"\x1b[?25h") > found.rindex(b"\x1b[?25l")  # ... and gives it back
    pieces = re.split(rb"[\r\n]+", ANSI.sub(b"", found))
    evaluations = [piece for piece in pieces if b"validation: loss" in piece]
    assert len(evaluations) == 3
    assert all(piece.startswith(b"step ") for piece in evaluations)
    assert any(re.fullmatch(rb"loss \d\.\d{4} \S+ +\d+/42 \S+ *", piece) for piece in pieces)
    assert not any(b"it/s" in piece for piece in pieces)  # no bar of another library


def test_in_a_log_there_are_plain_lines_and_few(nlptrain: Callable[..., Done], card: Path) -> None:
    done = nlptrain("train", card, "report.baselines=[]")
    lines = done.err.splitlines()
    assert "\x1b" not in done.err
    steps = [line for line in lines if re.match(r"step \d+/42  loss \d\.\d{4}$", line)]
    assert 8 <= len(steps) <= 12
    assert len([line for line in lines if "validation: loss" in line]) == 3


class Follower(TrainerCallback):
    """Reads the file after every step, as another program might."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: list[bytes] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.read.append(self.path.read_bytes())


def test_the_history_grows_by_whole_lines_at_once(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follower, usual = Follower(tmp_path / "run" / "history.jsonl"), pipeline.callbacks.build
    monkeypatch.setattr(pipeline.callbacks, "build", lambda *words: [*usual(*words), follower])
    pipeline.run(load(card, ["training.logging_steps=1", "training.num_train_epochs=1", "report.baselines=[]"]))
    final = follower.path.read_bytes()
    for number, read in enumerate(follower.read):
        # the log of a step follows its end, so that all earlier ones are there
        assert final.startswith(read)
        assert [json.loads(line)["step"] for line in read.splitlines()] == list(range(1, number + 1))
        assert read.endswith(b"\n") or not number


def test_a_resumed_history_is_cut_back_and_never_rewritten(tmp_path: Path) -> None:
    path, state = tmp_path / "history.jsonl", TrainerState()
    history, args = History(path), TrainingArguments(str(tmp_path / "checkpoints"), use_cpu=True)
    history.on_train_begin(args, state, CONTROL)
    for step in range(1, 4):
        state.log_history.append({"loss": 1 / step if step < 3 else float("nan"), "step": step})
        history.on_log(args, state, CONTROL)
    whole = path.read_bytes()
    with path.open("rb") as reader:
        assert [json.loads(line)["loss"] for line in reader] == [1.0, 0.5, None]
        resumed = TrainerState(log_history=state.log_history[:2])
        History(path).on_train_begin(args, resumed, CONTROL)
        # the same file, so that a reader that holds it open sees it shrink
        assert os.fstat(reader.fileno()).st_size == len(whole.rsplit(b"\n", 2)[0]) + 1
    path.write_bytes(b"of another run\n")
    History(path).on_train_begin(args, resumed, CONTROL)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


def test_the_reporters_are_those_of_the_installed_library() -> None:
    assert set(REPORTERS) == set(integration_utils.INTEGRATION_TO_CALLBACK)


def test_nothing_is_reported_by_default(
    nlptrain: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the library reports to it wherever this is set
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://localhost:1")
    values = training_arguments.resolve({}, tmp_path)
    assert training_arguments.build(values, metric="accuracy", greater_is_better=True).report_to == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tensorbord", "did you mean 'tensorboard'?"),
        ("[mlflow, trakio]", "did you mean 'trackio'?"),
        (
            "swanlab",
            "report_to swanlab: needs the package swanlab, which is not installed: pip install swanlab, or use",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_reporter_that_cannot_be_is_refused_before_a_model_loads(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, value: str, expected: str, command: str
) -> None:
    done = nlptrain(command, card, f"training.report_to={value}", "model.name=nowhere/at-all")
    assert (done.code, expected in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[tuple[str, float, int]]]]:
    """A stand-in for the package: folder to what was written there, as (name, value, step)."""
    written: dict[str, list[tuple[str, float, int]]] = {}

    class Writer:
        def __init__(self, log_dir: str) -> None:
            self.scalars = written.setdefault(log_dir, [])
            sys.stdout.write("a dashboard at ...\n")  # as some of them do

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

        def add_text(self, *_: object) -> None: ...

        flush = close = lambda self: None

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    package = ModuleType("tensorboard")
    package.__spec__ = integration_utils.importlib.util.find_spec("json")
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    return written


def test_every_run_of_a_process_reports_to_its_own_folder_what_its_history_says(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, tensorboard: dict[str, list[tuple[str, float, int]]]
) -> None:
    clipped = ("clipping={by: norm, threshold: 0.5}", "training.max_steps=20", "report.baselines=[]")
    for name in ("one", "two"):
        run = f"training.output_dir={tmp_path / name}"
        done = nlptrain("train", card, run, "training.report_to=tensorboard", *clipped, "--json")
        assert json.loads(done.out)["training"]["steps"] == 20
        assert "a dashboard" in done.err
    assert set(tensorboard) == {str(tmp_path / name / "logs") for name in ("one", "two")}
    history = [json.loads(line) for line in (tmp_path / "one" / "history.jsonl").read_text().splitlines()]
    logged = [key for entry in history for key in entry if key.startswith("grad_norm")]
    assert len(set(logged)) > 1  # numbers that a part added, too
    names = [name.removeprefix("train/") for name, _, _ in tensorboard[str(tmp_path / "one" / "logs")]]
    assert [name for name in names if name.startswith("grad_norm")] == logged


def test_tensorboard_itself_reads_the_losses(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra nlptrain[tensorboard]"
    )
    assert nlptrain("train", card, "training.report_to=tensorboard", "report.baselines=[]").code == 0
    found = events.EventAccumulator(str(tmp_path / "run" / "logs")).Reload()
    history = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    assert {one.step: one.value for one in found.Scalars("train/loss")} == pytest.approx(losses)
