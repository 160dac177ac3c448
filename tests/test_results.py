"""The record of a run: strict JSON, whole or absent."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import sklearn
from pydantic import ValidationError

from nlptrain import results
from nlptrain.errors import ModelError, ResourceError
from nlptrain.results import RunResult, environment, write_json

RECORD: dict[str, Any] = {
    "schema_version": 1,
    "task": "stsb",
    "kind": "regression",
    "metrics": {"validation": {"pearson": None, "mse": 0.1 + 0.2}},
    "undefined": {"validation": {"pearson": "constant predictions"}},
    "rows": {"validation": 3},
    "intervals": {"validation": {"mse": {"low": 0.1, "high": 0.5, "method": "bca", "reason": ""}}},
    "per_class": {},
    "collapsed": {"validation": "all scores are about 2"},
    "baselines": {"constant": {"validation": {"pearson": None, "mse": 2.0}}},
    "refinement": None,
    "data": {"files": ["größe.csv"], "dropped": 0},
    "model": {"parameters": 22_713_216},
    "training": {"learning_rate": 5e-5},
    "environment": {"processes": 2, "commit": None},
    "seed": 42,
    "seconds": {"train": 1.5},
    "notes": ["The score is of a synthetic sample."],
    "best_step": None,
}


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in strict JSON")


def test_a_record_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    RunResult(**RECORD).write(path)
    assert RunResult.read(path) == RunResult(**RECORD)
    assert json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse) == RECORD


def test_the_file_is_readable_text_in_the_order_of_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    RunResult(**RECORD).write(path)
    text = path.read_text("utf-8")
    assert re.findall(r'^  "(\w+)":', text, re.MULTILINE) == list(RECORD)
    assert "größe.csv" in text
    assert text.endswith("}\n")


def test_a_plain_dict_keeps_its_own_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": 1, "a": [True, None, 0.1]})
    assert " ".join((tmp_path / "a.json").read_text("utf-8").split()) == '{ "z": 1, "a": [ true, null, 0.1 ] }'


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
def test_a_new_file_has_the_permissions_of_any_other_new_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b.json").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_makes_no_record(value: float) -> None:
    with pytest.raises(ValidationError, match=r"metrics\.validation\.mse\n  Input should be a finite number"):
        RunResult(**{**RECORD, "metrics": {"validation": {"pearson": None, "mse": value}}})


@pytest.mark.parametrize(
    "undefined",
    [{}, {"test": {"pearson": "why"}}, {"validation": {"pearson": "why", "mse": "why"}}],
)
def test_every_null_metric_has_a_reason_and_no_other_metric_has(undefined: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValidationError, match="metrics that are null and `undefined` differ in"):
        RunResult(**{**RECORD, "undefined": undefined})


def test_a_record_cannot_be_changed() -> None:
    record = RunResult(**RECORD)
    with pytest.raises(ValidationError, match="frozen"):
        record.seed = 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.float32(1), "\udcff"])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ModelError, match=r"results\.json was not written"):
        RunResult(**{**RECORD, "data": {"deep": [value]}}).write(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("results.json", "old")]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(ResourceError, match="No space left on device"):
        write_json(path, {"new": 1})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("results.json", "old")]


def test_the_content_is_on_disk_before_the_old_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "results.json", []
    path.write_text("old")
    real_sync, real_replace = os.fsync, os.replace

    def sync(file: int) -> None:
        seen.append(("fsync", os.fstat(file).st_size, path.read_text()))
        real_sync(file)

    def replace(source: Path, target: Path) -> None:
        seen.append(("replace", source.parent == target.parent, target.read_text()))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write_json(path, {})
    assert seen == [("fsync", len("{}\n"), "old"), ("replace", True, "old")]
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("{", "cannot be read as JSON"),
        (json.dumps({**RECORD, "seconds": {"train": float("nan")}}), "NaN is not JSON"),
        (json.dumps({**RECORD, "data": {"x": float("-inf")}}), "-Infinity is not JSON"),
        (json.dumps({**RECORD, "schema_version": 2}), "found version 2"),
        (json.dumps([RECORD]), "found version None"),
        (json.dumps({**RECORD, "seed": "42"}), "seed: Input should be a valid integer"),
        (json.dumps({**RECORD, "surprise": 1}), "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_its_path_and_reason(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(ModelError, match=re.escape(reason)) as caught:
        RunResult.read(path)
    assert str(path) in str(caught.value)
    assert (caught.value.code, caught.value.exit_code) == ("E_RESULTS", 4)


def test_the_environment_names_versions_and_processes_and_fits_into_a_record(tmp_path: Path) -> None:
    found = environment(processes=2)
    versions = {name: found["packages"][name] for name in ("numpy", "scipy", "scikit-learn")}
    assert versions == {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__}
    assert (found["python"], found["processes"]) == (sys.version.split()[0], 2)
    RunResult(**{**RECORD, "environment": found}).write(tmp_path / "results.json")
    assert RunResult.read(tmp_path / "results.json").environment == found


def test_the_environment_is_known_without_loading_the_libraries() -> None:
    code = "import sys; from nlptrain.results import environment; environment(1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_commit_is_that_of_our_checkout_and_says_when_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    (tmp_path / "file").write_text("1")
    (tmp_path / "site-packages").mkdir()
    git("init")
    assert results._commit(tmp_path) is None
    git("add", "file")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "annotated: describe would name it instead of the commit")
    assert results._commit(tmp_path) == head
    assert results._commit(tmp_path / "site-packages") is None
    (tmp_path / "file").write_text("2")
    assert results._commit(tmp_path) == f"{head}-dirty"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert results._commit(tmp_path) == f"{head}-dirty"
