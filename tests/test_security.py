"""Nothing opens a socket, runs code of a model or a configuration, or writes a secret down."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from audit import judged
from tools import LOCK, TORCH

from tests.command_line import Done

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


@pytest.mark.parametrize("key", ["hub_token", "push_to_hub_token"])
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, key: str
) -> None:
    done = nlptrain("train", card, *SHORT, f"training.{key}={CANARY}")
    assert (done.code, CANARY in done.err + done.out) == (2, False), done.err
    assert not (tmp_path / "run").exists()


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
