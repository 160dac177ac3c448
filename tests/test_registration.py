"""Importing nlptrain is cheap and makes its models known, in either import order."""

import subprocess
import sys
from pathlib import Path

import pytest

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
        "from transformers import AutoConfig; import nlptrain; "
        "from transformers import AutoModelForSequenceClassification as Auto",
        "import nlptrain.models.modeling; from transformers import AutoModelForSequenceClassification as Auto",
    ],
)
def test_auto_class_loads_our_model_in_any_import_order(saved: Path, imports: str) -> None:
    code = f"import sys; {imports}; print(type(Auto.from_pretrained(sys.argv[1])).__name__)"
    assert run(code, saved) == "NlpTrainForSequenceClassification"


def test_auto_config_and_tokenizer_alone_know_a_saved_folder_without_torch_models(saved: Path) -> None:
    code = (
        "import sys, nlptrain; from transformers import {0}; print(type({0}.from_pretrained(sys.argv[1])).__name__, "
        "'nlptrain.models.modeling' in sys.modules)"
    )
    assert run(code.format("AutoConfig"), saved) == "NlpTrainConfig False"
    assert run(code.format("AutoTokenizer"), saved).split()[0] == "TokenizersBackend"


def test_hook_leaves_no_trace_once_both_modules_are_imported() -> None:
    code = (
        "import sys, inspect; before = len(sys.meta_path); import nlptrain; during = len(sys.meta_path);"
        "import transformers.models.auto.modeling_auto as m, transformers.models.auto.configuration_auto as c;"
        "print(before, during - before, type(m.__loader__).__name__, type(c.__spec__.loader).__name__, "
        "len([f for f in sys.meta_path if type(f).__module__ == 'nlptrain.registration']),"
        "inspect.getsource(c)[:1])"
    )
    assert run(code).split()[1:] == ["1", "SourceFileLoader", "SourceFileLoader", "0", "#"]


def test_repeated_registration_adds_no_second_hook() -> None:
    code = "import sys, nlptrain; n = len(sys.meta_path); nlptrain.register(); print(len(sys.meta_path) - n)"
    assert run(code) == "0"
