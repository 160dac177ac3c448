"""A grid of runs: it can be killed and continued, its cells are those of `train`, and its mistakes are said at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import psutil
import pytest

from nlptrain.config.grid import load_grid
from nlptrain.errors import ConfigError
from nlptrain.grid.run import shard
from nlptrain.grid.table import markdown
from tests.command_line import Done, sentences, write_csv
from tests.tiny import tiny_model_dir

WITHOUT_TIMES = ("seconds", "time_ratio", "texts_per_second", "tokens_per_second")


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Path]:
    """Writes a grid on a tiny model: a classification and a regression."""
    model = tiny_model_dir(tmp_path / "tiny", dropout=0.1)
    for name, count, seed in (("train", 60, 0), ("test", 31, 1)):
        rows = sentences(count, seed)
        write_csv(tmp_path / f"{name}.csv", rows)
        write_csv(tmp_path / f"{name}_score.csv", [(t, len(t) % 7 + (b == "positive")) for t, b in rows])

    def write(name: str = "grid", **changed: Any) -> Path:
        base = {
            kind: {
                "task": {"name": kind, "kind": kind},
                "data": {split: f"{tmp_path}/{split}{ending}.csv" for split in ("train", "test")},
                "model": {"name": str(model)},
                "training": {"num_train_epochs": 1, "learning_rate": 0.003, "per_device_train_batch_size": 8},
            }
            for kind, ending in (("classification", ""), ("regression", "_score"))
        }
        settings = {
            "output": str(tmp_path / name),
            "base": base,
            "variants": {"plain": None, "clipped": {"clipping": {"by": "value", "threshold": 0.001}}},
            "seeds": [1, 2, 3],
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(settings | changed))
        return path

    return write


def start(path: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, so that it can be killed with all its workers."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "nlptrain", "grid", str(path), "--jobs", "2", *words]
    with path.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)


def kill_after(path: Path, cells: int) -> None:
    """Kill everything once so many cells are finished and another one has begun."""
    output = path.with_suffix("")
    process = start(path)
    while len(list(output.glob("*/*/*/cell.json"))) < cells or not torn(output):
        assert process.poll() is None, path.with_suffix(".log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def torn(output: Path) -> list[Path]:
    return [run for run in output.glob("*/*/*") if (run / "config.yaml").exists() and not (run / "cell.json").exists()]


def rows(path: Path) -> list[dict[str, Any]]:
    found = json.loads((path.with_suffix("") / "table.json").read_text())
    assert not found["missing"]
    return [{key: value for key, value in row.items() if key not in WITHOUT_TIMES} for row in found["rows"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_grid_that_is_killed_twice_ends_in_the_table_of_an_undisturbed_one(grid: Callable[..., Path]) -> None:
    killed, undisturbed = grid("killed"), grid("undisturbed")
    kill_after(killed, 2)
    assert torn(killed.with_suffix(""))
    first = {path: path.stat().st_mtime_ns for path in killed.with_suffix("").glob("*/*/*/cell.json")}
    kill_after(killed, 6)
    for path in (killed, undisturbed):
        assert start(path).wait() == 0, path.with_suffix(".log").read_text()
    assert rows(killed) == rows(undisturbed)
    # 2 tasks, 2 splits, 2 variants
    assert [len(row["values"]) for row in rows(killed)] == [3] * 8
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())
    for run in killed.with_suffix("").glob("*/*/*"):
        assert not {"model", "checkpoints"} & {path.name for path in run.iterdir()}


def test_what_is_wrong_with_any_cell_is_said_before_one_runs(grid: Callable[..., Path], tmp_path: Path) -> None:
    cosine = {"model": {"architecture": "bi_encoder"}}
    path = grid(variants={"plain": None, "cosine": cosine, "rate": ["training.learning_rat=1"]})
    with pytest.raises(ConfigError) as caught:
        load_grid(path)
    assert len(caught.value.problems) == 4
    assert "task classification (inline) with variant cosine: configuration: architecture" in str(caught.value)
    assert "with variant rate: unknown key 'training.learning_rat'; did you mean 'learning_rate'?" in str(caught.value)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"variant": {}}, "unknown key 'variant'; did you mean 'variants'?"),
        ({"only": {"clipped": ["sst2"]}}, "only.clipped: unknown task 'sst2'; one of classification, regression"),
        ({"only": {"clip": []}}, "unknown variant 'clip'; one of plain, clipped"),
        ({"common": ["training.seed=3"]}, "common: training.seed belongs to the grid"),
        ({"base": {"sst2": "nowhere.yaml"}}, "nowhere.yaml: no such configuration file"),
    ],
)
def test_a_wrong_grid_is_refused(grid: Callable[..., Path], changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace(".", r"\.").replace("?", r"\?")):
        load_grid(grid(**changed))


def test_settings_go_over_the_base_leaf_by_leaf_and_the_variant_over_common(grid: Callable[..., Path]) -> None:
    variants = {"plain": None, "words": ["training.weight_decay=0.5"], "tree": {"training": {"weight_decay": 0.7}}}
    path = grid(variants=variants, common={"training": {"weight_decay": 0.1}}, only={"tree": ["regression"]})
    cells = load_grid(path).cells
    decays = {(cell.task, cell.variant): cell.config.training["weight_decay"] for cell in cells}
    assert decays == {
        ("classification", "plain"): 0.1,
        ("classification", "words"): 0.5,
        ("regression", "plain"): 0.1,
        ("regression", "words"): 0.5,
        ("regression", "tree"): 0.7,
    }
    assert {cell.config.training["learning_rate"] for cell in cells} == {0.003}
    assert [cell.config.training["seed"] for cell in cells] == [1] * 5 + [2] * 5 + [3] * 5


def test_the_parts_of_an_array_of_jobs_are_all_cells_once() -> None:
    assert sorted(number for part in range(1, 5) for number in shard(f"{part}/4", 10)) == list(range(1, 11))
    for wrong in ("0/4", "5/4", "4", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="expected i/n"):
            shard(wrong, 10)


def test_a_failing_cell_costs_no_other_and_a_changed_setting_is_refused(
    grid: Callable[..., Path], nlptrain: Callable[..., Done], tmp_path: Path
) -> None:
    # an unknown label stops one task, whose data are only read when it runs
    write_csv(tmp_path / "test_score.csv", [("good film", "high")])
    settings = {"seeds": [1], "variants": {"plain": None}}
    done = nlptrain("grid", grid(**settings))
    assert done.code == 3
    assert "1 of 2 cells failed" in done.err
    assert "regression/plain/seed-1: E_DATA_SCORE:" in done.err
    found = json.loads((tmp_path / "grid" / "table.json").read_text())
    assert found["missing"] == {"regression/plain/seed-1": "failed"}
    assert {row["task"] for row in found["rows"]} == {"classification"}

    shown = json.loads(nlptrain("grid", grid(**settings), "--table", "--json").out)
    assert shown == found
    changed = nlptrain("grid", grid(**settings, common={"training": {"learning_rate": 0.001}}), "--cell", 1)
    assert changed.code == 2
    assert "training.learning_rate: 0.003 in the run, 0.001 now" in changed.err


def test_the_table_holds_what_the_cells_and_their_paired_comparison_say(
    grid: Callable[..., Path], nlptrain: Callable[..., Done], tmp_path: Path
) -> None:
    path = grid(seeds=[1, 2], only={"clipped": ["classification"], "plain": ["classification"]})
    assert nlptrain("grid", path, "--shard", "1/1").code == 0
    table = json.loads(nlptrain("grid", path, "--table", "--json").out)
    plain, clipped = (row for row in table["rows"] if row["split"] == "test")
    folders = [tmp_path / "grid" / "classification" / name for name in ("plain", "clipped")]
    for row, folder in zip((plain, clipped), folders, strict=True):
        results = [json.loads((folder / f"seed-{seed}" / "results.json").read_text()) for seed in (1, 2)]
        values = [result["metrics"]["test"]["accuracy"] for result in results]
        assert (row["values"], row["mean"], row["sd"]) == (values, mean(values), stdev(values))
        flagged = {str(seed) for seed, r in zip((1, 2), results, strict=True) if "test" in r["collapsed"]}
        assert set(row["collapsed"]) == flagged
    compared = json.loads(nlptrain("compare", *folders, "--json").out)["comparisons"][0]["differences"]
    expected = next(row for row in compared if row["metric"] == "accuracy")
    for name in ("value", "low", "high", "by_seed"):
        assert clipped["difference"][name] == expected[name]
    assert plain["difference"] is None
    shown = nlptrain("grid", path, "--table").out
    assert f"| clipped | 2 | {clipped['mean']:.4f} |" in shown
    assert "variance over rows" in shown


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_cell_and_the_next_call_makes_it(
    grid: Callable[..., Path], tmp_path: Path
) -> None:
    path = grid(seeds=[1, 2])
    process = start(path, "--jobs", "1")
    while not torn(tmp_path / "grid"):
        time.sleep(0.02)
    (worker,) = (
        child for child in psutil.Process(process.pid).children() if "resource_tracker" not in str(child.cmdline())
    )
    worker.kill()
    assert process.wait() == 6
    assert "1 of 8 cells failed" in path.with_suffix(".log").read_text()
    assert "signal 9" in path.with_suffix(".log").read_text()
    assert start(path).wait() == 0
    assert [len(row["values"]) for row in rows(path)] == [2] * 8


@pytest.mark.slow
def test_workers_end_with_the_command_even_when_it_is_killed_alone(grid: Callable[..., Path], tmp_path: Path) -> None:
    process = start(grid())
    while not torn(tmp_path / "grid"):
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children()
    process.kill()
    assert not psutil.wait_procs(workers, timeout=20)[1]


@pytest.mark.slow
def test_one_cell_runs_under_a_launcher(grid: Callable[..., Path], tmp_path: Path) -> None:
    path = grid(seeds=[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*launcher, "-m", "nlptrain", "grid", path, "--shard", "2/4"], env=environment, check=True)
    (cell,) = (tmp_path / "grid").glob("*/*/*/cell.json")
    assert cell.parent.relative_to(tmp_path / "grid").as_posix() == "classification/clipped/seed-1"
    assert json.loads((cell.parent / "results.json").read_text())["environment"]["processes"] == 2


@pytest.mark.slow
def test_a_cell_is_bit_by_bit_the_run_of_train_although_others_ran_before_it_in_its_process(
    grid: Callable[..., Path], nlptrain: Callable[..., Done], tmp_path: Path
) -> None:
    path = grid(seeds=[4])
    assert nlptrain("grid", path).code == 0
    last = tmp_path / "grid" / "regression" / "clipped" / "seed-4"
    run = tmp_path / "alone"
    assert nlptrain("train", last / "config.yaml", f"training.output_dir={run}").code == 0
    for split in ("validation", "test"):
        alone, cell = ((folder / "predictions" / f"{split}.jsonl").read_bytes() for folder in (run, last))
        assert alone == cell


@pytest.mark.parametrize("path", sorted(Path("configs/grids").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_grid_is_valid(path: Path) -> None:
    assert load_grid(path).cells


def test_the_overview_has_the_last_split_of_every_task_and_the_median_of_times() -> None:
    def row(task: str, split: str, variant: str, value: float | None, time: float) -> dict[str, Any]:
        found = {"value": value, "low": -1.0, "high": 1.0, "better": None}
        scores = {"mean": 0.5, "sd": None, "median": 0.5, "difference": None if value is None else found}
        speed = {"time_ratio": time, "texts_per_second": 1.0, "tokens_per_second": 1.0, "collapsed": {}}
        return {
            "task": task,
            "split": split,
            "variant": variant,
            "metric": "accuracy",
            "n": 9,
            "seeds": [1],
            **scores,
            **speed,
        }

    rows = [row("a", "validation", "odd", 0.25, 2.0), row("a", "test", "plain", None, 1.0)]
    rows += [row("a", "test", "odd", 0.125, 2.0), row("b", "validation", "plain", None, 1.0)]
    rows += [row("b", "validation", "odd", -0.5, 4.0), row("b", "validation", "alone", 0.0, 1.5)]
    lines = markdown({"rows": rows, "method": "so", "notes": [], "missing": {}})
    assert lines[lines.index("so") - 6 : lines.index("so") - 1] == [
        "| variant | a, test accuracy | b, validation accuracy | time |",
        "|---|---|---|---|",
        "| plain | mean 0.5000 | mean 0.5000 | 1.00 |",
        "| odd | +0.1250 [-1.0000, +1.0000] | -0.5000 [-1.0000, +1.0000] | 3.00 |",
        "| alone |  | +0.0000 [-1.0000, +1.0000] | 1.50 |",
    ]
