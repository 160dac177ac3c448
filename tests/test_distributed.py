"""Several processes give what one gives: the same losses, scores and files, and never fewer processes than asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Done, sentences, write_csv

pytestmark = pytest.mark.distributed
WEIGHTED = "{class_weights: {negative: 1, positive: 5}}"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
PROGRAM = str(Path(__file__).parents[1] / "scripts" / "train.py")


def launch(*words: object) -> Done:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=150, env=environment, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def logged(run: Path, key: str) -> list[float]:
    entries = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [entry[key] for entry in entries if key in entry]


def settings(run: Path, batch: int) -> list[str]:
    # float32 also on hardware with bf16, whose rounding is larger than the tolerances
    batches = ["training.logging_steps=1", f"training.per_device_train_batch_size={batch}", "training.bf16=false"]
    return [f"training.output_dir={run}", "training.learning_rate=1e-3", *batches]


@pytest.mark.parametrize(
    "loss", [pytest.param("{}", marks=pytest.mark.slow, id="plain"), pytest.param(WEIGHTED, id="weighted")]
)
def test_two_processes_train_as_one(nlptrain: Callable[..., Done], card: Path, tmp_path: Path, loss: str) -> None:
    # 117 of 130 rows train: the last step of an epoch has one row, and one of the processes none
    write_csv(tmp_path / "train.csv", sentences(130, 0))
    one, two = tmp_path / "one", tmp_path / "two"
    result = json.loads(nlptrain("train", card, *settings(one, 4), f"loss={loss}", "--json").out)
    done = launch(*TORCHRUN, PROGRAM, card, *settings(two, 2), f"loss={loss}")
    assert done.code == 0, done.err
    assert result["rows"]["train"] % 4 == 1
    assert logged(two, "loss") == pytest.approx(logged(one, "loss"), abs=1e-5)
    # of the first step, before the rounding of two weights has spread
    assert logged(two, "grad_norm")[0] == pytest.approx(logged(one, "grad_norm")[0], rel=1e-6)
    assert json.loads((two / "results.json").read_text())["environment"]["processes"] == 2
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())


@pytest.mark.slow
def test_two_processes_evaluate_and_predict_as_one(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    assert nlptrain("train", card, "training.max_steps=3").code == 0
    run, data = tmp_path / "run", tmp_path / "test.csv"
    module = [*TORCHRUN, "-m", "nlptrain"]
    one = json.loads(nlptrain("evaluate", run, "--data", data, "--json").out)
    two = json.loads(launch(*module, "evaluate", run, "--data", data, "--json").out)
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-9)

    # of several batches
    rows = sentences(300, 1)
    write_csv(data, [(text,) for text, _ in rows], ("text",))
    outputs = []
    for call, words in ((nlptrain, ()), (launch, module)):
        output = tmp_path / f"{len(words)}.jsonl"
        assert call(*words, "predict", run, "--data", data, "--output", output).code == 0
        outputs.append(output.read_text())
    assert outputs[0] == outputs[1]
    assert [json.loads(line)["text"] for line in outputs[0].splitlines()] == [text for text, _ in rows]


@pytest.mark.slow
def test_accelerate_launch_on_cpus_runs_two_processes(card: Path, tmp_path: Path) -> None:
    launcher = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    done = launch(*launcher, PROGRAM, card, *settings(tmp_path / "run", 4), "training.max_steps=3")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["environment"]["processes"] == 2


def test_fewer_processes_than_asked_is_an_error_and_writes_nothing(card: Path, tmp_path: Path) -> None:
    done = launch(*ACCELERATE, "--cpu", "--num_processes", "2", PROGRAM, card, f"training.output_dir={tmp_path}/run")
    assert done.code != 0
    assert "error[E_PROCESSES]: expected 2 processes, found 1" in done.err
    assert not (tmp_path / "run").exists()
