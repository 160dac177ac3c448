"""Importing nlptrain is cheap and makes its models known, in either import order."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from nlptrain import registration
from nlptrain.config.schema import ModelConfig
from nlptrain.models.build import build
from nlptrain.tasks import TASKS
from tests.tiny import tiny_model_dir

ROOT = Path(__file__).parent.parent


def run(code: str, *arguments: object) -> str:
    """What `code` prints in a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model_dir(tmp_path_factory.mktemp("tiny"))
    model, tokenizer = build(str(folder), ModelConfig(), TASKS["sst2"], ("negative", "positive"), None)
    model.save_pretrained(folder / "run")
    tokenizer.save_pretrained(folder / "run")
    return folder / "run"


def test_import_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, nlptrain; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "imports",
    [
        "import nlptrain; from transformers import AutoModelForSequenceClassification as Auto",
        "from transformers import AutoModelForSequenceClassification as Auto; import nlptrain",
        "import nlptrain.models.modeling; from transformers import AutoModelForSequenceClassification as Auto",
    ],
)
def test_auto_class_loads_our_model_in_any_import_order(saved: Path, imports: str) -> None:
    code = f"import sys; {imports}; print(type(Auto.from_pretrained(sys.argv[1])).__name__)"
    assert run(code, saved) == "NlpTrainForSequenceClassification"


@pytest.mark.parametrize(("auto", "found"), [("AutoConfig", "NlpTrainConfig"), ("AutoTokenizer", "TokenizersBackend")])
def test_one_auto_class_alone_knows_a_saved_folder(saved: Path, auto: str, found: str) -> None:
    code = f"import sys, nlptrain; from transformers import {auto} as Auto; "
    assert run(code + "print(type(Auto.from_pretrained(sys.argv[1])).__name__)", saved) == found


@pytest.fixture
def awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "awaited_module.py").write_text("VALUE = 1\n")
    (tmp_path / "its_extension.py").write_text("import awaited_module\nawaited_module.VALUE += 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registration, "EXTENSIONS", {"awaited_module": "its_extension"})
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in ("awaited_module", "its_extension"):
        sys.modules.pop(name, None)


def hooks() -> int:
    return sum(type(finder).__module__ == "nlptrain.registration" for finder in sys.meta_path)


@pytest.mark.usefixtures("awaited")
def test_hook_extends_the_awaited_module_and_leaves_no_trace() -> None:
    registration.register()
    registration.register()
    assert hooks() == 1
    module: Any = importlib.import_module("awaited_module")
    assert module.VALUE == 2
    assert hooks() == 0
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader


@pytest.mark.usefixtures("awaited")
def test_hook_outlives_an_awaited_module_that_fails(tmp_path: Path) -> None:
    (tmp_path / "awaited_module.py").write_text("raise OSError('awaited')\n")
    registration.register()
    with pytest.raises(OSError, match="awaited"):
        importlib.import_module("awaited_module")
    assert hooks() == 1


@pytest.mark.usefixtures("awaited")
def test_registration_extends_a_loaded_module_at_once() -> None:
    module = importlib.import_module("awaited_module")
    registration.register()
    assert (module.VALUE, hooks()) == (2, 0)
