"""What all tests share: no Hub, one seed, and the real data sets where they are at hand."""

import os

# Read by the libraries when they are imported, so it has to stand before any of them.
os.environ["HF_HUB_OFFLINE"] = "1"

import random
import sys
from pathlib import Path

import numpy as np
import pytest

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
