"""Several processes give what one gives: the same losses, scores and files, and never fewer processes than asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import card, sentences, write_csv  # noqa: F401 - card is a fixture

pytestmark = pytest.mark.distributed
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
PROGRAM = str(Path(__file__).parents[1] / "scripts" / "train.py")


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=150, env=environment, check=False)


def losses(run: Path) -> list[float]:
    entries = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def train(card: Path, run: Path, launcher: list[str], batch: int, *more: str) -> dict[str, object]:  # noqa: F811
    # 117 of 130 rows train: the last step has one row, and one of the processes none
    settings = ["training.logging_steps=1", f"training.per_device_train_batch_size={batch}", *more]
    done = launch(*launcher, PROGRAM, card, f"training.output_dir={run}", "training.learning_rate=1e-3", *settings)
    assert done.returncode == 0, done.stderr
    return json.loads((run / "results.json").read_text())  # type: ignore[no-any-return]


def test_two_processes_train_evaluate_and_predict_as_one(card: Path, tmp_path: Path) -> None:  # noqa: F811
    write_csv(tmp_path / "train.csv", sentences(130, 0))
    one = train(card, tmp_path / "one", [sys.executable], 4)
    two = train(card, tmp_path / "two", TORCHRUN, 2)
    assert one["rows"]["train"] % 4 == 1  # type: ignore[index]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert two["environment"]["processes"] == 2  # type: ignore[index]
    names = [sorted(p.name for p in (tmp_path / run).iterdir()) for run in ("one", "two")]
    assert names[0] == names[1]

    scores, outputs = [], []
    for number, launcher in enumerate([[sys.executable], TORCHRUN]):
        data, output = tmp_path / "test.csv", tmp_path / f"{number}.jsonl"
        script = [*launcher, "-m", "nlptrain"]
        scores.append(json.loads(launch(*script, "evaluate", tmp_path / "one", "--data", data, "--json").stdout))
        assert launch(*script, "predict", tmp_path / "one", "--data", data, "--output", output).returncode == 0
        outputs.append([json.loads(line) for line in output.read_text().splitlines()])
    assert scores[1]["metrics"] == pytest.approx(scores[0]["metrics"], abs=1e-9)
    assert [row["text"] for row in outputs[1]] == [text for text, _ in sentences(31, 1)]
    for ours, theirs in zip(*outputs, strict=True):
        assert ours["probability_positive"] == pytest.approx(theirs["probability_positive"], abs=1e-6)


def test_accelerate_launch_on_cpus_runs_two_processes(card: Path, tmp_path: Path) -> None:  # noqa: F811
    launcher = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    result = train(card, tmp_path / "run", launcher, 4, "training.max_steps=3")
    assert result["environment"]["processes"] == 2  # type: ignore[index]


def test_fewer_processes_than_asked_is_an_error_and_writes_nothing(card: Path, tmp_path: Path) -> None:  # noqa: F811
    done = launch(*ACCELERATE, "--cpu", "--num_processes", "2", PROGRAM, card, f"training.output_dir={tmp_path}/run")
    assert done.returncode != 0
    assert "error[E_PROCESSES]: expected 2 processes, found 1" in done.stderr
    assert not (tmp_path / "run").exists()
