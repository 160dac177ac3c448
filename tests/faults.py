"""Runs in a forked child to which something happens; the parent sees how the child ended and that it did happen."""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

LIMIT = 60
Fault = Callable[["Fired"], None]


class Fired:
    """Notes, out of the process that may be about to die, that a fault has happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> None:
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_WRONLY), "w"):
            pass


class Child(NamedTuple):
    """How a child ended: ``end`` is "exit N", "killed N" or "hung"; ``fired`` whether its fault happened."""

    end: str
    err: str
    fired: bool


def start(folder: Path, words: list[str], fault: Fault | None = None, environment: dict[str, str] | None = None) -> int:
    """Fork a child that runs ``nlptrain`` with these words, and give its pid."""
    folder.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        os.environ.update(environment or {})
        sys.stdout = sys.stderr = (folder / "err").open("w", buffering=1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if fault:
            fault(Fired(folder / "fired"))
        from nlptrain import cli

        sys.argv = ["nlptrain", *words]
        code = 0
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException as error:  # noqa: BLE001 - a child must never return into the parent's test
        sys.stderr.write(f"escaped: {error!r}")
        code = 98
    finally:
        os._exit(code)


def wait(folder: Path, pid: int, limit: float = LIMIT) -> Child:
    """Wait for a child, at most `limit` seconds."""
    end, until = "hung", time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            killed = os.WIFSIGNALED(status)
            end = f"killed {os.WTERMSIG(status)}" if killed else f"exit {os.WEXITSTATUS(status)}"
            break
        time.sleep(0.02)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return Child(end, (folder / "err").read_text(), (folder / "fired").exists())


def run(folder: Path, words: list[str], fault: Fault | None = None) -> Child:
    """Start a child and wait for it."""
    return wait(folder, start(folder, words, fault))


def two(folder: Path, words: list[str], faults: tuple[Fault | None, Fault | None]) -> list[Child]:
    """Two children that are the two processes of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    pids = []
    for rank, fault in enumerate(faults):
        environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        pids.append(start(folder / str(rank), words, fault, environment))
    return [wait(folder / str(rank), pid) for rank, pid in enumerate(pids)]


def at_call(owner: Any, name: str, then: Callable[[], None], call: int = 1) -> Fault:
    """`then` happens at the n-th call of a function, before the function."""

    def install(fired: Fired) -> None:
        function, calls = getattr(owner, name), [0]

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                fired()
                then()
            return function(*args, **kwargs)

        setattr(owner, name, wrapped)

    return install


class _Writes:
    """Counts the writes of one save of a checkpoint and lets something happen at one of them."""

    def __init__(self, number: int, save: int, then: Callable[[], None], fired: Fired) -> None:
        self.number, self.save, self.then, self.fired = number, save, then, fired
        self.seen = self.saves = 0
        self.inside = False

    def write(self) -> None:
        self.seen += self.inside
        if self.inside and self.seen == self.number:
            self.inside = False
            self.fired()
            self.then()

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa+")
        if opened or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            self.write()

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that writes to its second argument, as two writes; the second leaves half a file."""

        def wrapped(content: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            self.write()
            result = function(content, path, *args, **kwargs)
            if self.inside and self.seen + 1 == self.number:
                os.truncate(path, os.path.getsize(path) // 2)
            self.write()
            return result

        return wrapped

    def synchronised(self, function: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(file: int) -> None:
            self.write()
            function(file)

        return wrapped

    def saved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.saves += 1
            self.inside = self.saves == self.save
            try:
                return function(*args, **kwargs)
            finally:
                self.inside = False

        return wrapped


def at_write(number: int, save: int, then: Callable[[], None]) -> Fault:
    """`then` happens at the n-th write of the `save`-th checkpoint.

    A write: a file is opened, renamed, synchronised or deleted, a folder made or deleted; and before and in the middle
    of what native code writes.
    """

    def install(fired: Fired) -> None:
        from nlptrain.trainer import FineTuner

        writes = _Writes(number, save, then, fired)
        for owner, name, wrap in (
            (FineTuner, "_save_checkpoint", writes.saved),
            (torch, "save", writes.native),
            (safetensors.torch, "serialize_file", writes.native),
            (os, "fsync", writes.synchronised),
        ):
            setattr(owner, name, wrap(getattr(owner, name)))
        sys.addaudithook(writes.audit)

    return install


def kill(number: int = signal.SIGKILL) -> Callable[[], None]:
    """Send this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def refuse(number: int) -> Callable[[], None]:
    """Fail as the file system does."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


FULL, READ_ONLY = errno.ENOSPC, errno.EROFS
