"""What became of a run, as one small file: launchers turn every exit code into 1."""

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from nlptrain.errors import StoppedError, named
from nlptrain.results import write_json

State = Literal["running", "done", "failed", "preempted"]


class RunStatus:
    """Context of a run that keeps ``run_status.json``: state, exit code, message, processes, and who runs it.

    It begins with `running`, so that a run which is refused before leaves the status of an earlier one alone. A state
    of ``running`` with no such process on that host means that the run was killed.

    Args:
        path: the file.
        main: whether this is the process that writes of success; of a failure any process writes, the first one.
    """

    def __init__(self, path: Path, *, main: bool) -> None:
        self.path, self.main, self.facts = path, main, {"processes": 1}
        self.begun = False

    def __enter__(self) -> Self:
        """Nothing is written yet."""
        return self

    def running(self, processes: int) -> None:
        """The run folder is ours and work begins."""
        self.facts, self.begun = {"processes": processes}, True
        if self.main:
            self._write("running", None, None, "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Done, or how it ended."""
        if not self.begun or not self.path.parent.is_dir():
            return
        if error is None:
            if self.main:
                self._write("done", 0, None, "")
        elif self._told():
            return
        elif isinstance(error, KeyboardInterrupt):
            self._write("preempted", 130, "E_INTERRUPTED", "interrupted")
        elif isinstance(error, Exception):
            reason = named(error)
            state: State = "preempted" if isinstance(reason, StoppedError) else "failed"
            self._write(state, reason.exit_code, reason.code, str(reason))

    def _told(self) -> bool:
        """Whether another process has said how the run ended: its end is the cause of this one's."""
        with suppress(OSError, ValueError):
            return bool(json.loads(self.path.read_text("utf-8"))["state"] != "running")
        return False

    def _write(self, state: State, code: int | None, error: str | None, message: str) -> None:
        document: dict[str, Any] = {
            "state": state,
            "code": code,
            "error": error,
            "message": message,
            **self.facts,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.path, document)
