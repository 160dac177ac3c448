"""What every command does around its work: messages, one result or one error, and its exit code."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from nlptrain.errors import NlptrainError, ProcessError, ResourceError, StoppedError, named
from nlptrain.interruption import handled

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; see `nlptrain schema`.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings over the file, e.g. training.seed=1")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]


def command(
    work: Callable[[], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], list[str]],
    *,
    as_json: bool,
    debug: bool,
) -> None:
    """Do the work and print its result, or the one error that ended it.

    Args:
        work: gives the result, JSON-ready.
        show: the result as lines for a person.
        as_json: print the result itself instead.
        debug: let an error through, with its traceback.
    """
    _quiet()
    try:
        with handled(_stop), redirect_stdout(sys.stderr):  # libraries print; standard output belongs to the result
            result = work()
        text = json.dumps(result, allow_nan=False, ensure_ascii=False) if as_json else "\n".join(show(result))
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a message and an exit code
        if debug:
            raise
        fail(named(error), as_json=as_json)
    finally:
        if "RANK" in os.environ:
            from nlptrain.processes import finish

            finish()
    if is_main():
        typer.echo(text)


def fail(error: NlptrainError, *, as_json: bool) -> NoReturn:
    """Say what is wrong, once, and exit with its code."""
    # the same mistake is found by every process of a machine; a fault may be one process's alone
    if (
        os.environ.get("LOCAL_RANK", "0") == "0"
        or isinstance(error, ProcessError | ResourceError)
        or type(error) is NlptrainError
    ):
        typer.echo(f"nlptrain: error[{error.code}]: {error}", err=True)
    if as_json and is_main():
        typer.echo(json.dumps({"error": error.code, "problems": error.problems, "exit_code": error.exit_code}))
    sys.exit(error.exit_code)


def is_main() -> bool:
    """Whether this process speaks to the user."""
    return os.environ.get("RANK", "0") == "0"


class _StandardError(logging.StreamHandler[Any]):
    """Writes to the standard error of the moment: a progress bar puts itself there, to stay below the other lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self.stream = sys.stderr
        super().emit(record)


def _stop(number: int, _: FrameType | None) -> None:
    raise StoppedError(number, f"stopped by {signal.Signals(number).name}")


def _quiet() -> None:
    """Our own messages on standard error, from the main process; the libraries' only when something is wrong."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("nlptrain")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "DATASETS_VERBOSITY": "error"}.items():
        os.environ.setdefault(name, value)
    for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
