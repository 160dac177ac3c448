"""Each verification passes where the promise holds, and fails, with exit code 1, where a fault is planted."""

import json
import math
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nlptrain.config import load as config_file
from nlptrain.data.load import load_splits
from nlptrain.errors import ConfigError
from nlptrain.verify import VERIFICATIONS
from nlptrain.verify.check import Check, document, known, lines
from nlptrain.verify.ddp import _gap
from nlptrain.verify.small import small
from nlptrain.verify.states import count
from tests.command_line import Done
from tests.tiny import tiny_model_dir
from tests.token_rows import tagged, write_jsonl


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22]), 1),
        (torch.tensor([0.0, float("nan")]), torch.tensor([-0.0, float("nan")]), 1),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), 1),
        (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(2, 2, dtype=torch.bfloat16), 4),
        (np.array([1, 2, 3]), np.array([3, 2, 1]), 2),
        ({"a": [1, (2.0, "x")], "b": None}, {"a": [1, (2.0, "x")], "b": None}, 0),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, 2),
        ([1, 2, 3], [1], 2),
        (1, True, 1),
        (0.0, -0.0, 1),
        (math.nan, math.nan, 0),
        ({"eval_runtime": 1.0, "eval_loss": 1.0}, {"eval_runtime": 2.0, "eval_loss": 1.0}, 0),
    ],
)
def test_every_bit_of_a_state_counts_and_no_clock(one: Any, other: Any, expected: int) -> None:
    assert count(one, other) == count(other, one) == expected


def test_a_number_that_is_none_does_not_pass() -> None:
    assert [Check.at_most("gap", value, 1e-5).passed for value in (0, 1e-5, 2e-5, math.nan, math.inf)] == [
        *(True, True),
        *(False, False, False),
    ]
    assert _gap({}, {}) == _gap({1: 0.5}, {2: 0.5}) == _gap({1: None}, {1: 0.5}) == math.inf
    assert _gap({1: 0.5, 2: None}, {1: 0.25, 2: None}) == 0.25


def test_a_verification_that_checked_nothing_has_not_passed() -> None:
    assert not document("resume", [])["passed"]
    found = document("resume", [Check.at_most("weights", 0), Check.at_most("optimizer", 3)])
    assert not found["passed"]
    assert [line[:4] for line in lines(found)] == ["PASS", "FAIL", "resu"]


def test_an_unknown_verification_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resume'"):
        known("resum", VERIFICATIONS)


def classification(folder: Path, card: Path) -> Path:
    return card


def tags(folder: Path, card: Path) -> Path:
    write_jsonl(folder / "tags.jsonl", tagged(60, 0))
    model = tiny_model_dir(folder / "tagger")
    path = folder / "tags.yaml"
    path.write_text(
        f"task: {{name: tags, kind: token_classification, text: [tokens], label: tags}}\n"
        f"data: {{train: {folder}/tags.jsonl}}\nmodel: {{name: {model}}}\n",
        encoding="utf-8",
    )
    return path


def scores(folder: Path, card: Path) -> Path:
    rows = [{"a": f"one {n}", "b": f"two {n}", "score": n / 10 + 1e-12} for n in range(50)]
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / "scores.yaml"
    path.write_text(
        "task: {name: s, kind: regression, text: [a, b], label: score, range: [0, 6]}\n"
        f"data: {{train: {folder}/scores.jsonl}}\ntraining: {{per_device_train_batch_size: 4}}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("write", [classification, tags, scores])
def test_a_small_run_has_some_of_the_rows_as_they_are_and_leaves_nothing(
    card: Path, tmp_path: Path, write: Callable[[Path, Path], Path]
) -> None:
    config = config_file.load(write(tmp_path, card))
    before = sorted(tmp_path.rglob("*"))
    whole = load_splits(config.spec, config.data, seed=42)
    with small(config) as case:
        path, run = case.variant("x", seed=3)
        fewer = config_file.load(path)
        rows = load_splits(fewer.spec, fewer.data, seed=42)
        assert (fewer.training["seed"], fewer.training["output_dir"]) == (3, str(run.path))
        assert fewer.model == config.model
        folder = case.folder
    assert not folder.exists()
    assert sorted(tmp_path.rglob("*")) == before
    for split in ("train", "validation"):
        given, kept = (labelled(splits, split, config.spec.text) for splits in (whole, rows))
        assert 0 < len(kept) <= 112
        assert set(kept) <= set(given)


def labelled(splits: Any, split: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Texts and label, by name where it has one, of every row."""
    rows, classes = splits.rows[split], splits.labels
    labels = [[classes.names[i] for i in classes.ids(x)] if classes else x for x in rows["label"][:]]
    return list(zip(*(rows[name][:] for name in names), map(repr, labels), strict=True))


def forked(
    words: Sequence[object],
    *,
    before: Sequence[str] = (),
    processes: int = 1,
    expected: int | None = 0,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """As `nlptrain.verify.children.run`, by copies of this process, which have its libraries and the planted fault."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = Path(os.environ["VERIFY_OUTPUT"])
    ids = []
    for rank in range(processes):
        ids.append(os.fork())
        if ids[-1] == 0:
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in variables.items() if processes > 1}
            _become(list(map(str, words)), output if rank == 0 else Path(os.devnull))
    codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in ids]
    if expected is not None:
        assert set(codes) == {expected}, output.with_suffix(".err").read_text()
    return codes[0], output.read_text(encoding="utf-8")


def _become(words: list[str], output: Path) -> None:
    from accelerate.state import AcceleratorState, PartialState

    code = 70
    try:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
        sys.stdout = output.open("w", encoding="utf-8")
        sys.stderr = output.with_suffix(".err").open("w") if output.suffix else sys.stderr
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def verify(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[int, dict[str, bool]]]:
    """Exit code and the checks by name, by copies of this process; dropout is on."""
    monkeypatch.setenv("VERIFY_OUTPUT", str(tmp_path / "output.txt"))
    for name in ("resume", "ddp", "offline", "determinism"):
        monkeypatch.setattr(f"nlptrain.verify.{name}.run", forked)

    def call(name: str) -> tuple[int, dict[str, bool]]:
        done = nlptrain("verify", name, card, "model.dropout=0.1", "--json")
        found = json.loads(done.out)
        assert found["passed"] == all(check["passed"] for check in found["checks"]) == (done.code == 0)
        return done.code, {check["name"]: check["passed"] for check in found["checks"]}

    return call


def failed(checks: Mapping[str, bool]) -> set[str]:
    return {name.partition(":")[0] for name, passed in checks.items() if not passed}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resume", "determinism", "offline"])
def test_a_promise_that_holds_passes(verify: Any, name: str) -> None:
    code, checks = verify(name)
    assert (code, failed(checks)) == (0, set())
    assert len(checks) >= 6


@pytest.mark.slow
def test_random_numbers_that_are_not_restored_are_seen(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlptrain.trainer.FineTuner._load_rng_state", lambda *_: None)
    code, checks = verify("resume")
    assert code == 1
    assert {"weights", "random numbers", "history"} <= failed(checks)


@pytest.mark.slow
def test_a_seed_that_is_not_one_is_seen(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = torch.manual_seed
    monkeypatch.setattr("nlptrain.pipeline.set_seed", lambda _: seed(os.getpid()))
    code, checks = verify("determinism")
    assert code == 1
    assert "weights" in failed(checks)


@pytest.mark.slow
def test_an_evaluation_that_moves_the_random_numbers_is_seen(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nlptrain.trainer import FineTuner

    loop = FineTuner.evaluation_loop

    def drawing(*words: Any, **named: Any) -> Any:
        torch.rand(1)
        return loop(*words, **named)

    monkeypatch.setattr(FineTuner, "evaluation_loop", drawing)
    code, checks = verify("determinism")
    assert code == 1
    wrong = {name for name, passed in checks.items() if not passed}
    assert wrong
    assert all(name.endswith("with evaluations at every step") for name in wrong)


@pytest.mark.slow
def test_a_connection_is_counted_and_refused(verify: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def asking(*words: Any, **named: Any) -> Any:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        return load_splits(*words, **named)

    monkeypatch.setattr("nlptrain.pipeline.load_splits", asking)
    code, checks = verify("offline")
    assert (code, failed(checks)) == (1, {"train"})
    assert checks["train: exit code"]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_pass_and_a_loss_that_is_not_scaled_or_weights_that_part_are_seen(
    verify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify("ddp")[0] == 0
    with monkeypatch.context() as planted:
        planted.setattr(
            "nlptrain.trainer.FineTuner._loss",
            lambda self, outputs, labels, num_items_in_batch=None: self.loss(outputs, labels, num_items_in_batch),
        )
        code, checks = verify("ddp")
        assert (code, failed(checks)) == (1, {"training loss"})
    monkeypatch.setattr("nlptrain.processes.wait_for_all", lambda: None)
    monkeypatch.setattr("nlptrain.trainer.FineTuner.train", _parted)
    code, checks = verify("ddp")
    assert code == 1
    assert "weights" in failed(checks)


def _parted(self: Any, **named: Any) -> Any:
    from nlptrain.resumption import ResumableTrainer

    done = ResumableTrainer.train(self, **named)
    with torch.no_grad():
        next(self.model.parameters()).view(-1)[0] += self.args.process_index
    return done
