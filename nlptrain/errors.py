"""What can go wrong, as the user meets it: one exception class per documented exit code.

Every message says what was expected, what was found and what to do. `code` is the stable name that is
printed as ``nlptrain: error[E_...]: message`` and written to machine-readable results.

exit codes: 0 done, 2 usage or configuration, 3 data, 4 checkpoint or model, 5 diverged, 6 resources,
7 processes, 130 interrupted, 143 terminated.
"""

import errno
import re
from collections.abc import Sequence


class NlptrainError(Exception):
    """A mistake or a fault that ends the command with `exit_code`.

    Args:
        code: stable upper-case name without the ``E_`` prefix, e.g. ``DATA_ENCODING``.
        message: one sentence or more; a list of problems is joined into numbered lines.
    """

    exit_code: int = 1

    def __init__(self, code: str, message: str | Sequence[str]) -> None:
        self.code = f"E_{code}"
        self.problems = [message] if isinstance(message, str) else list(message)
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = [f"  {number}. {problem}" for number, problem in enumerate(self.problems, start=1)]
        return "\n".join([f"{len(self.problems)} problems:", *lines])


class ConfigError(NlptrainError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class DataError(NlptrainError):
    """A data file is missing, unreadable or holds rows that cannot be trained or scored on."""

    exit_code = 3


class ModelError(NlptrainError):
    """A model or checkpoint is missing, incomplete, unsafe or does not fit the task."""

    exit_code = 4


class DivergedError(NlptrainError):
    """Training produced a non-finite loss, gradient or weight."""

    exit_code = 5


class ResourceError(NlptrainError):
    """The machine ran out of memory or disk."""

    exit_code = 6


class ProcessError(NlptrainError):
    """The processes of a distributed run are not the ones that were asked for."""

    exit_code = 7


class StoppedError(NlptrainError):
    """A signal ended the run; the exit code is 128 + its number."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__("INTERRUPTED", message)
        self.exit_code = 128 + number


# Words of libraries that raise nothing more exact than RuntimeError; of files those of Rust (safetensors) and torch.
_MEMORY = re.compile(r"out of memory|can't allocate memory|bad_alloc")
_FULL = re.compile(r"No space left|Disk quota|File too large")
_FILES = re.compile(r"\(os error \d+\)|PytorchStreamWriter|inline_container|Parent directory .* does not exist")
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE)
_PEERS = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe")


def named(error: BaseException) -> NlptrainError:
    """`error` itself where it is one of ours, else the kind of fault it stands for."""
    text = " ".join(str(error).split())
    if isinstance(error, NlptrainError):
        return error
    if stopped := _stopped(error):  # libraries turn what comes up in an import into an error of their own
        return stopped
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return ResourceError(
            "MEMORY", f"out of memory; lower training.per_device_train_batch_size or data.max_length: {text}"
        )
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or _FULL.search(text):
        return ResourceError("DISK", f"cannot write: {text}; free some space")
    if isinstance(error, RuntimeError) and _PEERS.search(text):
        return ProcessError("PEER", f"another process of the run has ended; see its message: {text}")
    if (isinstance(error, OSError) and (error.filename or error.errno in _REFUSED)) or _FILES.search(text):
        return ResourceError("FILES", f"a file cannot be read or written: {text}; check that its folder is there")
    return NlptrainError("INTERNAL", f"{type(error).__name__}: {text}; run again with --debug for the traceback")


def _stopped(error: BaseException) -> StoppedError | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, StoppedError):
        seen = seen.__cause__ or seen.__context__
    return seen
