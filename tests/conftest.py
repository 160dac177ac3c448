"""What all tests share: no Hub, one seed, and the real data sets where they are at hand."""

import os

# Read by the libraries when they are imported, so it has to stand before any of them.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tiny models gain nothing from a second thread, and lose much where another process wants the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Done, write_card

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
        # the command is seldom asked for garbage, which is its process's affair and not that of the tests after it
        monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
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
    return write_card(tmp_path)
