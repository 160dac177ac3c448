"""The record of one run: a frozen, versioned document that is strict JSON on disk and replaced as a whole.

Strict: no NaN and no Infinity, which Python's json writes and most other readers refuse. An undefined metric is null,
with its reason beside it.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Literal, NoReturn
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nlptrain.errors import ConfigError, ModelError, ResourceError

_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "scikit-learn", "scipy", "numpy")


class Ends(BaseModel):
    """A 95 % bootstrap interval of a metric."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    low: float | None
    high: float | None
    method: Literal["bca", "percentile"] | None
    reason: str
    """Why it is not BCa, or why there is none; empty otherwise."""


class RunResult(BaseModel):
    """Everything a report or a comparison of runs needs to know about one run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    task: str
    kind: str
    metrics: dict[str, dict[str, float | None]]
    """Split to metric name to value; null where undefined."""
    undefined: dict[str, dict[str, str]]
    """Split to metric name to reason, for exactly the metrics that are null."""
    rows: dict[str, int]
    """Split to its number of rows."""
    intervals: dict[str, dict[str, Ends]] = {}
    """Split to metric to its interval; empty where none were asked for."""
    per_class: dict[str, dict[str, dict[str, float | None]]] = {}
    """Split to class to rows, precision, recall and f1, null where 0/0."""
    collapsed: dict[str, str] = {}
    """Split to the reason why its predictions are those of a constant, for such splits only."""
    baselines: dict[str, dict[str, dict[str, float | None]]] = {}
    """Name of what needs no fine-tuning to split to metric to value."""
    refinement: dict[str, Any] | None = None
    """What became of the head by second-order methods, see `nlptrain.refinement.refine_head`; null: nothing."""
    data: dict[str, Any]
    """Facts about the data: files, hashes, counts."""
    model: dict[str, Any]
    training: dict[str, Any]
    environment: dict[str, Any]
    """See `environment`."""
    seed: int
    seconds: dict[str, float]
    """Stage to its wall-clock time."""
    notes: list[str]
    """What a reader of the scores should know, in sentences."""
    best_step: int | None
    """Step of the checkpoint that was scored; null: the last one, without selection."""

    @model_validator(mode="after")
    def _nulls_have_reasons(self) -> "RunResult":
        null = {(split, name) for split, row in self.metrics.items() for name, value in row.items() if value is None}
        reasons = {(split, name) for split, row in self.undefined.items() for name in row}
        if null != reasons:
            raise ValueError(f"metrics that are null and `undefined` differ in {sorted(null ^ reasons)}")
        return self

    def write(self, path: Path) -> None:
        """Write to `path`, see `write_json`."""
        write_json(path, self)

    @classmethod
    def read(cls, path: Path) -> "RunResult":
        """The record at `path`.

        Raises:
            ModelError: the file is missing, not strict JSON, or not a record of this version.
        """
        try:
            document = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
        except (OSError, ValueError) as error:
            raise ModelError("RESULTS", f"{path} cannot be read as JSON: {error}. Run the evaluation again") from error
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != 1:
            message = f"{path}: expected an object with schema_version 1, found version {version!r}"
            raise ModelError("RESULTS", f"{message}. Read it with the release that wrote it, or run again")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise ModelError("RESULTS", [f"{path}: {problem}" for problem in _problems(error)]) from error


def write_json(path: Path, document: dict[str, Any] | BaseModel) -> None:
    """Replace `path` by `document` as strict UTF-8 JSON, keys in their order, newline at the end.

    The old file stays as it was until the new one is complete on disk, so that no reader ever sees half of one.

    Raises:
        ModelError: a value is NaN, infinite or has no JSON form; nothing was written.
        ResourceError: the file system refused; the old file is unchanged.
    """
    # Not mode="json", which turns a NaN into null without a word.
    content = document.model_dump() if isinstance(document, BaseModel) else document
    try:
        encoded = (json.dumps(content, allow_nan=False, ensure_ascii=False, indent=2) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ModelError("RESULTS", f"{path} was not written: {error}. Store null and the reason instead") from error
    _write(path, encoded)


def check_file(option: str, path: Path, *kinds: str) -> None:
    """Check that a file can be written, before the work whose result it is for.

    Args:
        option: that named it, for the message.
        path: of the file.
        kinds: suffixes that it may have, such as ``.csv``.

    Raises:
        ConfigError: another suffix, a folder in its place, or no folder to write it into.
    """
    if path.suffix not in kinds or path.is_dir():
        found = f"the folder {path}" if path.is_dir() else path
        raise ConfigError("OUTPUT", f"{option}: expected a {' or '.join(kinds)} file, found {found}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError("OUTPUT", f"{option}: folder {path.parent} does not exist or cannot be written")


def write_text(path: Path, text: str) -> None:
    """Replace `path` by UTF-8 `text`, whole or not at all.

    Raises:
        ResourceError: the file system refused; the old file is unchanged.
    """
    _write(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, whole or not at all.

    Raises:
        ResourceError: the file system refused; the old file is unchanged.
    """
    _write(path, content)


def environment(processes: int) -> dict[str, Any]:
    """What the numbers of a run depend on besides its configuration.

    Args:
        processes: how many processes trained together.

    Returns:
        python, platform, cpus, processes, packages (name to installed version) and commit: the 40 hex digits of the
        checkout that nlptrain is imported from, followed by ``-dirty`` where it has uncommitted changes, or None.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "processes": processes,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": _commit(Path(__file__).resolve().parents[1]),
    }


def _commit(checkout: Path) -> str | None:
    # Both folders are named, so that git searches no parent: an installed copy may lie inside a checkout of something
    # else, and GIT_DIR may be set for one. No optional locks: describing must not rewrite the index of the checkout.
    command = ["git", "--no-optional-locks", f"--git-dir={checkout / '.git'}", f"--work-tree={checkout}"]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run([*command, *describe], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _write(path: Path, content: bytes) -> None:
    try:
        _replace(path, content)
    except OSError as error:
        raise ResourceError("DISK", f"{path} was not written: {error}. Free space or choose another folder") from error


def _replace(path: Path, content: bytes) -> None:
    # In the same folder: os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _problems(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, found['loc'])) or 'record'}: {found['msg']}" for found in error.errors()]
