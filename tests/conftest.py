"""What all tests share: no Hub, one seed, and the real data sets where they are at hand."""

import os

# Read by the libraries when they are imported, so it has to stand before any of them.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models gain nothing from a second thread, and lose much where another process wants the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Done, sentences, write_csv

SEED = 20


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    # Not imported for the tests that do without it: it costs seconds.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, one folder a task; skips where there is none."""
    folder = os.environ.get("NLPTRAIN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data sets: set NLPTRAIN_DATA to their folder")
    return Path(folder)


@pytest.fixture
def nlptrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line within this process."""
    from nlptrain import cli

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["nlptrain", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A classification experiment on a tiny random model that takes a second."""
    from tests.tiny import tiny_model_dir

    model = tiny_model_dir(tmp_path / "tiny", dropout=0.0)
    write_csv(tmp_path / "train.csv", sentences(120, 0))
    write_csv(tmp_path / "test.csv", sentences(31, 1))
    path = tmp_path / "card.yaml"
    path.write_text(
        "task: {name: words, kind: classification, labels: [negative, positive]}\n"
        f"data: {{train: {tmp_path}/train.csv, test: {tmp_path}/test.csv}}\n"
        f"model: {{name: {model}, dropout: 0.0}}\n"
        f"training: {{output_dir: {tmp_path}/run, num_train_epochs: 3, learning_rate: 0.01, "
        "per_device_train_batch_size: 8}\n",
        encoding="utf-8",
    )
    return path
