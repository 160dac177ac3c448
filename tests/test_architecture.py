"""The layer table of the README, held to: imports go downwards only, and some layers stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nlptrain"
LAYERS = [
    {"errors", "tasks", "metrics", "results", "run_folder", "registration", "schedules", "schedule_plot"}
    | {"backends", "checkpoints", "run_status", "interruption", "predictions", "scoring", "score_lines", "comparison"},
    {"config"},
    {"data"},
    {"models", "optim", "outputs", "refine", "fast"},
    {"forward"},
    {"head"},
    {"callbacks", "processes", "training_arguments"},
    {"resumption"},
    {"trainer"},
    {"inference"},
    {"run_head"},
    {"train", "evaluate", "predict", "check", "baselines", "compare", "refinement"},
    {"schedule_command", "report", "glue"},
    {"pipeline", "refine_command"},
    {"suspects", "uncertainty"},
    {"grid"},
    {"command"},
    {"verify"},
    {"cli_evidence", "cli_refine"},
    {"cli"},
    {"__main__"},
]
# The package's own __init__ only registers the model with the Auto classes, lazily.
SPECIAL = {"__init__"}
MAX_FUNCTION_LINES = 40
MAX_MODULE_LINES = 300


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("nlptrain.")}
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


def layer(name: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if name in parts)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part(p) not in SPECIAL], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_go_downwards(path: Path) -> None:
    mine = part(path)
    upwards = {other for other in imported_parts(path) - {mine} if layer(other) >= layer(mine)}
    assert not (upwards - LAYERS[0] if layer(mine) == 0 else upwards)


def test_no_import_cycle_between_modules_of_one_layer() -> None:
    edges = {part(p): set() for p in MODULES}
    for path in MODULES:
        edges[part(path)] |= (imported_parts(path) & edges.keys()) - {part(path)}
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    assert not edges.keys() - SPECIAL


@pytest.mark.parametrize(
    "statement",
    [
        "import nlptrain",
        "import nlptrain.cli",
        "import nlptrain.tasks, nlptrain.results, nlptrain.metrics.registry, nlptrain.run_folder",
        "import nlptrain.schedules, nlptrain.schedule_plot",
        "import nlptrain.config.load",
    ],
)
def test_light_layers_import_no_heavy_library(statement: str) -> None:
    heavy = ("torch", "transformers", "datasets", "sklearn", "scipy", "evaluate")
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_to_import_check_takes_neither_solvers_nor_metrics() -> None:
    code = "import sys, nlptrain.check; print([name for name in ('sklearn', 'scipy.stats') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_functions_and_modules_stay_small() -> None:
    long = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        long += [path.name] if text.count("\n") > MAX_MODULE_LINES else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                long += [f"{path.name}:{node.name} {lines}"] if lines > MAX_FUNCTION_LINES else []
    assert not long
