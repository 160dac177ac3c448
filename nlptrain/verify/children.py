"""The processes in which a verification trains: fresh ones, ended with it."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nlptrain.errors import ProcessError, ResourceError

logger = logging.getLogger(__name__)
TIME_LIMIT = 1800
COMMAND = ("-m", "nlptrain")
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")


@dataclass(frozen=True)
class Job:
    """Training alone, in a child.

    Attributes:
        config: a configuration file.
        resume: continue the run.
        stop_at: the step in which a SIGTERM comes.
        digest: where each process leaves the sha256 of its weights, with its rank at the end of the name.
    """

    config: str
    resume: bool = False
    stop_at: int | None = None
    digest: str | None = None

    @property
    def words(self) -> list[str]:
        """Arguments of the interpreter."""
        return ["-m", "nlptrain.verify.child", json.dumps(asdict(self))]


def run(
    words: Sequence[object],
    *,
    before: Sequence[str] = (),
    processes: int = 1,
    expected: int | None = 0,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run an interpreter with `words` to its end.

    Args:
        words: its arguments.
        before: a command that starts it.
        processes: how many, by torchrun where it is more than one.
        expected: the exit code; None: any.
        environment: variables beside this process's.

    Returns:
        The exit code and the standard output.

    Raises:
        ProcessError: another exit code, with what it said.
        ResourceError: it took longer than `TIME_LIMIT` seconds.
    """
    launcher = [*_TORCHRUN, str(processes)] if processes > 1 else []
    command = [*before, sys.executable, *launcher, *map(str, words)]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    variables = {**os.environ, **(environment or {}), "PYTHONPATH": path}
    logger.info("%s", " ".join(command[len(before) :])[:200])
    # a session of its own, so that all it started can be ended with it
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise ResourceError("TIME", f"{' '.join(command)}: still running after {TIME_LIMIT} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if expected is not None and child.returncode != expected:
        said = "\n".join(err.splitlines()[-20:])
        raise ProcessError("VERIFY", f"expected exit code {expected}, found {child.returncode}; it said:\n{said}")
    return child.returncode, out
