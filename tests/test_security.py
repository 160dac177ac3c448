"""Nothing opens a socket, runs code of a model or a configuration, or writes a secret down."""

import io
import json
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from audit import judged
from own_environment import LOCK, TORCH

from nlptrain import pipeline
from nlptrain.config.load import check, load
from nlptrain.errors import ConfigError
from nlptrain.inference import OpenRun
from tests.command_line import Done, write_card

SHORT = ("training.max_steps=3", "report={bootstrap: 0, baselines: []}")
CANARY = "hf_canary0123456789"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection and look-up of a name raises; which there were."""
    asked: list[Any] = []

    def refuse(*words: Any, **_: Any) -> NoReturn:
        asked.append(words)
        raise OSError("a socket was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse, raising=False)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    # the switch that otherwise keeps the libraries from asking
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    return asked


def test_nothing_opens_a_socket_unless_a_name_of_the_hub_is_given(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, refused: list[Any]
) -> None:
    data = ("--data", tmp_path / "test.csv")
    assert nlptrain("check", card).code == 0
    assert nlptrain("train", card, *SHORT).code == 0
    assert nlptrain("evaluate", tmp_path / "run", *data).code == 0
    assert nlptrain("predict", tmp_path / "run", *data, "--output", tmp_path / "out.csv").code == 0
    assert nlptrain("report", tmp_path / "run").code == 0
    assert refused == []
    done = nlptrain("train", card, "model.name=nobody/nothing", f"training.output_dir={tmp_path}/other")
    assert (done.code, bool(refused)) == (4, True)


def test_secrets_of_the_environment_are_written_nowhere(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    done = nlptrain("train", card, *SHORT)
    assert done.code == 0, done.err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in done.out + done.err


def test_training_sends_nothing_to_the_hub(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    done = nlptrain("train", card, *SHORT, "training.push_to_hub=true")
    assert (done.code, "push_to_hub" in done.err, (tmp_path / "run").exists()) == (2, True, False), done.err


@pytest.mark.parametrize("key", ["hub_token", "push_to_hub_token"])
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, key: str
) -> None:
    done = nlptrain("train", card, *SHORT, f"training.{key}={CANARY}")
    assert (done.code, CANARY in done.err + done.out) == (2, False), done.err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a card and its finished run, for tests that change neither."""
    folder = tmp_path_factory.mktemp("trained")
    pipeline.run(load(write_card(folder), SHORT))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "modeling.py"])
def test_a_model_that_brings_code_is_refused_by_every_command(
    nlptrain: Callable[..., Done], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    folder, canary = tmp_path / "copy", tmp_path / "canary"
    shutil.copytree(trained, folder)
    for model in (folder / "tiny", folder / "run" / "model"):
        code = f"open({str(canary)!r}, 'w')\n"
        if file.endswith(".json"):
            settings = json.loads((model / file).read_text())
            names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer"), "own.Own")
            (model / file).write_text(json.dumps(settings | {"auto_map": names}))
        else:
            (model / file).write_text(code)
    model, run, data = folder / "tiny", folder / "run", ("--data", folder / "test.csv")
    other = (f"model.name={model}", f"training.output_dir={tmp_path}/other")
    for words in (
        ("train", folder / "card.yaml", *SHORT, *other),
        ("evaluate", run, *data),
        ("predict", run, *data, "--output", tmp_path / "out.csv"),
    ):
        done = nlptrain(*words)
        assert (done.code, "E_MODEL_CODE" in done.err, file in done.err) == (4, True, True), done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize("section", ["", "model.", "data.", "training.", "task."])
def test_remote_code_cannot_be_asked_for(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, section: str
) -> None:
    done = nlptrain("train", card, *SHORT, f"{section}trust_remote_code=true")
    assert (done.code, "trust_remote_code" in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"k{n}: &k{n} [{', '.join(['*b'] * 9)}]\n" for n in range(99))
UNSAFE = {
    "training: {seed: 1}\ntask: !!python/object/apply:os.system [touch CANARY]\n": (2, "tags"),
    f"task: sst2\n{BOMB}": (2, "anchors"),
    "task: sst2\nbase: &b {seed: 1}\ntraining: {<<: *b}\n": (2, "anchors"),
    "task: sst2\ndata: {train: a.csv}\ntask: cola\n": (3, "duplicate key"),
}


@pytest.mark.parametrize("text", UNSAFE)
def test_a_configuration_is_plain_or_refused_with_its_line(
    nlptrain: Callable[..., Done], tmp_path: Path, text: str
) -> None:
    (path := tmp_path / "card.yaml").write_text(text.replace("CANARY", str(tmp_path / "canary")))
    begun = time.monotonic()
    done = nlptrain("check", path)
    line, word = UNSAFE[text]
    assert (done.code, f"{path}:{line}: " in done.err, word in done.err) == (2, True, True), done.err
    assert (time.monotonic() - begun < 2, list(tmp_path.iterdir())) == (True, [path])


@pytest.mark.parametrize("value", ["!!python/object/apply:os.getcwd []", "!!int 3", "&a 3"])
def test_a_setting_of_the_command_line_is_plain_too(nlptrain: Callable[..., Done], card: Path, value: str) -> None:
    done = nlptrain("check", card, f"training.seed={value}")
    assert (done.code, "write it out" in done.err) == (2, True), done.err


@pytest.mark.parametrize("name", ["a/b", "..", "../x", "/x", "a\\b", ""])
def test_a_name_that_becomes_a_path_has_no_way_out_of_its_folder(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check({"task": {"name": name, "kind": "classification"}})
    (problem,) = caught.value.problems
    assert problem.startswith("configuration: task.name: string should match pattern")


@pytest.mark.parametrize("words", [(), ("--resume",)])
def test_a_folder_that_is_not_ours_is_not_touched(
    nlptrain: Callable[..., Done], trained: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (mine := tmp_path / "mine" / "model").mkdir(parents=True)
    (mine / "weights.bin").write_text("years of work")
    for settings in ("", "learning_rate: 3\n", (trained / "card.yaml").read_text()):
        (tmp_path / "mine" / "config.yaml").write_text(settings)
        before = contents(tmp_path)
        done = nlptrain("train", trained / "card.yaml", *SHORT, f"training.output_dir={tmp_path}/mine", *words)
        assert (done.code in (2, 4), contents(tmp_path) == before) == (True, True), done.err


def test_a_grid_removes_no_folder_that_is_not_a_cell(
    nlptrain: Callable[..., Done], trained: Path, tmp_path: Path
) -> None:
    grid = {"output": str(tmp_path / "out"), "base": {"t": str(trained / "card.yaml")}, "variants": {"v": {}}}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid | {"seeds": [1]}))
    (mine := tmp_path / "out" / "t" / "v" / "seed-1" / "model").mkdir(parents=True)
    (mine / "weights.bin").write_text("years of work")
    (mine.parent / "config.yaml").write_text("learning_rate: 3\n")
    before = contents(tmp_path)
    for words in ((), ("--cell", 1)):
        done = nlptrain("grid", tmp_path / "grid.yaml", *words)
        assert (done.code, str(mine.parent) in done.err, contents(tmp_path) == before) == (2, True, True), done.err


@pytest.mark.parametrize("place", ["run/history.jsonl", "run/predictions/test.jsonl", "run/model/new.csv", "dir.csv"])
def test_predictions_replace_no_file_of_a_run_and_no_folder(
    nlptrain: Callable[..., Done], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (trained / "dir.csv").mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(trained)
    before = contents(trained)
    monkeypatch.setattr(OpenRun, "logits", lambda *_: pytest.fail("predicted"))
    for root in (trained, tmp_path / "link"):
        done = nlptrain("predict", trained / "run", "--data", trained / "test.csv", "--output", root / place)
        assert (done.code, "E_OUTPUT" in done.err, contents(trained) == before) == (2, True, True), done.err


def test_every_locked_package_is_exact_and_has_hashes_and_torch_is_apart() -> None:
    packages = re.split(r"^(?=\w)", LOCK.read_text(), flags=re.M)[1:]
    whole = re.compile(r"[\w.-]+==[\w.]+( ; [^\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n")
    assert [package for package in packages if not whole.fullmatch(package)] == []
    assert len(packages) > 80
    assert not re.search(r"^(torch|nvidia\S*)==", LOCK.read_text(), re.M)
    assert re.search(r"^torch==[\d.]+$", TORCH.read_text(), re.M)


def test_an_audit_without_an_answer_is_not_a_clean_one() -> None:
    clean = {"name": "a", "version": "1", "vulns": []}
    found = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    silent = {"name": "c", "skip_reason": "not found"}
    assert [judged({"dependencies": rows})[0] for rows in ([clean], [clean, silent], [silent, found])] == [0, 2, 1]
    assert judged({"dependencies": [found]})[1][0] == "b 2: PYSEC-1, mended in ['3']"
