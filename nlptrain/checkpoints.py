"""When a checkpoint exists: from the moment its manifest does, which is written last and names every byte.

A directory that is merely there may be torn by a kill or a full disk, and the library resumes from what it finds. A
manifest written last by one process after all have saved gives what a rename of the directory would, without the races
of renaming on several machines.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nlptrain.errors import ModelError
from nlptrain.results import write_json

logger = logging.getLogger(__name__)
MANIFEST = "nlptrain_manifest.json"
_PREFIX = "checkpoint-"


def folder(parent: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return parent / f"{_PREFIX}{step}"


@contextmanager
def writing(checkpoint: Path, *, main: bool) -> Iterator[None]:
    """Clear the place of a checkpoint, and take away what was written when an error ends the block.

    Args:
        checkpoint: the directory.
        main: whether this process writes it.
    """
    whole = False
    if main:
        remove(checkpoint)
    try:
        yield
        whole = True
    finally:
        if main and not whole:
            remove(checkpoint)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its manifest first: one that is half gone does not exist, rather than being damaged."""
    with suppress(OSError):
        (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def seal(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: `facts`, of every file its size and sha256, and the sha256 of all this."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(checkpoint).as_posix(): _digest(path) for path in paths}
    content = {"schema_version": 1, **facts, "files": files}
    write_json(checkpoint / MANIFEST, {**content, "sha256": _sum(content)})


def facts(checkpoint: Path) -> dict[str, Any]:
    """What `seal` was told.

    Raises:
        ModelError: there is no readable manifest, or it is not as it was written.
    """
    path = checkpoint / MANIFEST
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        if found.pop("sha256") != _sum(found):
            raise ModelError("CHECKPOINT", f"{path} is damaged: it is not as it was written")
        return found
    except FileNotFoundError:
        raise ModelError("CHECKPOINT", f"{checkpoint} is incomplete: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("CHECKPOINT", f"{path} cannot be read: {error}") from error


def verify(checkpoint: Path) -> dict[str, Any]:
    """The facts of a checkpoint all of whose files are as they were sealed.

    Raises:
        ModelError: names the first file that is missing or differs.
    """
    found = facts(checkpoint)
    for name, expected in found["files"].items():
        path = checkpoint / name
        if not path.is_file():
            raise ModelError("CHECKPOINT", f"{checkpoint} is incomplete: {name} is missing")
        if _digest(path) != expected:
            raise ModelError("CHECKPOINT", f"{path} is damaged: its checksum is not that of the manifest")
    return found


def newest(parent: Path) -> Path | None:
    """The newest checkpoint that verifies; None where none was ever completed. What is passed over is said.

    Raises:
        ModelError: completed checkpoints exist, and all of them are damaged.
    """
    damaged = []
    for checkpoint in reversed(steps(parent)):
        try:
            verify(checkpoint)
            return checkpoint
        except ModelError as error:
            logger.warning("%s; it is passed over", error)
            damaged += [checkpoint] if (checkpoint / MANIFEST).exists() else []
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise ModelError(
            "CHECKPOINT", f"{parent}: every completed checkpoint is damaged: {names}; train anew elsewhere"
        )
    return None


def rotate(parent: Path, *, keep: int | None, best: int | None, sealed: Path | None = None) -> None:
    """Delete all but the newest `keep` verified checkpoints and that of step `best`; None keeps all.

    Args:
        parent: where they lie.
        keep: how many.
        best: step of one that stays.
        sealed: one that was sealed just now, and need not be verified.
    """
    if not keep:
        return
    kept = 0
    for checkpoint in reversed(steps(parent)):
        if kept >= keep and checkpoint.name != f"{_PREFIX}{best}":
            remove(checkpoint)
        else:
            kept += checkpoint == sealed or verifies(checkpoint)


def verifies(checkpoint: Path) -> bool:
    """Whether `verify` accepts it."""
    try:
        verify(checkpoint)
    except ModelError:
        return False
    return True


def steps(parent: Path) -> list[Path]:
    """The checkpoint directories of a run, oldest first, complete or not; links are not ours."""
    found = [path for path in parent.glob(f"{_PREFIX}*") if path.is_dir() and not path.is_symlink()]
    numbered = [path for path in found if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def _sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
