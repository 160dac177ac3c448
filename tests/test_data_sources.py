"""Where rows come from: what is named wins, nothing is mixed in, and what is missing is said."""

import sys
from pathlib import Path

import pytest

from nlptrain.config.schema import DataConfig
from nlptrain.data.sources import Source, existing, open_package, resolve, source_of
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TASKS, TaskSpec

OWN = TaskSpec("reviews", "classification", ("text",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLPTRAIN_DATA", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    for name in ("train.tsv", "validation.jsonl"):
        (tmp_path / "sst2" / name).touch()
    return tmp_path


def test_a_given_training_file_excludes_every_other_source(folder: Path) -> None:
    assert resolve(TASKS["sst2"], DataConfig(train="a.csv")) == {"train": Source("file", "a.csv", None, "train")}


def test_the_data_folder_gives_the_splits_that_exist_and_given_files_replace_them(folder: Path) -> None:
    found = resolve(TASKS["sst2"], DataConfig(test="t.csv"))
    assert {split: Path(source.location).name for split, source in found.items()} == {
        "train": "train.tsv",
        "validation": "validation.jsonl",
        "test": "t.csv",
    }


def test_without_files_the_task_is_taken_from_the_hub_under_its_own_split_names(folder: Path) -> None:
    found = resolve(TASKS["mnli"], DataConfig())
    assert found["validation"] == Source("hub", "nyu-mll/glue", "mnli", "validation_matched")
    assert set(found) == set(TASKS["mnli"].splits)


def test_a_task_without_any_source_is_a_configuration_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no training rows for task 'reviews'.*data\.train"):
        resolve(OWN, DataConfig())


def test_two_files_for_one_split_are_refused(folder: Path) -> None:
    (folder / "sst2" / "train.csv").touch()
    with pytest.raises(ConfigError, match=r"train\.csv, .*train\.tsv"):
        resolve(TASKS["sst2"], DataConfig())


def test_a_name_is_a_hub_data_set_unless_it_looks_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_of("nyu-mll/glue:sst2", "test") == Source("hub", "nyu-mll/glue", "sst2", "test")
    assert source_of("owner/rows.csv", "test").kind == "file"
    (tmp_path / "owner").mkdir()
    assert source_of("owner/name", "test").kind == "file"


def test_a_missing_file_names_the_nearest_and_a_wrong_format_the_formats(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").touch()
    (tmp_path / "other.jsonl").touch()
    with pytest.raises(DataError, match=r"nearest name there is 'reviews\.csv'"):
        existing(tmp_path / "revews.csv")
    with pytest.raises(DataError, match=r"expected one of \.csv, \.tsv, \.jsonl, \.parquet, found a \.xlsx file"):
        existing(tmp_path / "reviews.xlsx")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inner = tmp_path / "site" / "outer_package_of_test" / "inner"
    inner.mkdir(parents=True)
    for init in (inner.parent, inner):
        (init / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "rows.csv").touch()
    (tmp_path / "site" / "secret.csv").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return inner


def test_package_data_is_found_without_importing_the_package(package: Path) -> None:
    assert open_package("package://outer_package_of_test.inner/rows.csv") == package / "rows.csv"
    assert not [name for name in sys.modules if name.startswith("outer_package_of_test")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("package://outer_package_of_test.inner/../../secret.csv", "leads out of the package"),
        ("package://outer_package_of_test.inner/none.csv", "has no file or folder 'none.csv'"),
        ("package://no_such_package_here/rows.csv", "is not installed"),
        ("package://ast/rows.csv", "single module"),
        ("package://rows.csv", "expected package://"),
    ],
)
def test_package_paths_that_cannot_be_opened_are_refused(package: Path, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_package(spec)
