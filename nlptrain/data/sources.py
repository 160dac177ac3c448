"""Where the rows of each split come from: files, package data or the Hub; nothing is read here."""

import difflib
import importlib.machinery
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nlptrain.config.schema import DataConfig
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TaskSpec

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DATA_FOLDER = "NLPTRAIN_DATA"
_GIVEN = ("train", "validation", "test")
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?", re.ASCII)
_PACKAGE = re.compile(r"package://([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(.+)", re.ASCII)


@dataclass(frozen=True)
class Source:
    """One split of one data set.

    Attributes:
        kind: a file of this machine, or a data set of the Hub.
        location: path of the file, or id on the Hub.
        config: configuration of the Hub data set, where it has several.
        split: the source's own name of the split.
    """

    kind: Literal["file", "hub"]
    location: str
    config: str | None
    split: str

    def __str__(self) -> str:
        """What to call the source in messages."""
        if self.kind == "file":
            return self.location
        return (
            f"{self.location}:{self.config} split {self.split}"
            if self.config
            else f"{self.location} split {self.split}"
        )


def resolve(task: TaskSpec, data: DataConfig) -> dict[str, Source]:
    """Split name to source: what `data` names, then ``$NLPTRAIN_DATA/<task>/``, then the task's Hub data set.

    With `data.train` given, nothing is taken from anywhere else.

    Raises:
        ConfigError: there is no source of training rows, or two files could be one split.
    """
    sources = available(task, data)
    if "train" not in sources:
        raise ConfigError("DATA_SOURCE", _no_train(task))
    return sources


def available(task: TaskSpec, data: DataConfig) -> dict[str, Source]:
    """As `resolve`, also where there are no training rows."""
    named = {split: getattr(data, split) for split in _GIVEN}
    given = {s: source_of(text, task.splits.get(s, s)) for s, text in named.items() if text is not None}
    return given if "train" in given else (_in_folder(task) or _on_hub(task)) | given


def source_of(text: str, split: str) -> Source:
    """The source that `text` means: ``package://...``, a file, or ``owner/name[:config]`` on the Hub.

    Text that could be either is a file if it, or the folder it would be in, exists.
    """
    if text.startswith("package://"):
        return Source("file", str(open_package(text)), None, split)
    path = Path(text)
    is_file = path.suffix.lower() in SUFFIXES or path.exists() or path.parts[:1] and Path(path.parts[0]).is_dir()
    if is_file or not _HUB.fullmatch(text):
        return Source("file", text, None, split)
    location, _, config = text.partition(":")
    return Source("hub", location, config or None, split)


def open_package(spec: str) -> Path:
    """The file or folder that ``package://import.name/path`` names; the package is found but not imported.

    Raises:
        ConfigError: not such a text, the package is not installed, or the path is missing or outside the package.
    """
    found = _PACKAGE.fullmatch(spec)
    if found is None:
        raise ConfigError("PACKAGE", f"expected package://import.name/path/in/package, found {spec!r}")
    name, inner = found.groups()
    for folder in _package_folders(name):
        path = (folder / inner).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ConfigError("PACKAGE", f"{spec}: the path leads out of the package {name}; give one inside it")
        if path.exists():
            return path
    raise ConfigError("PACKAGE", f"{spec}: the package {name} has no file or folder {inner!r}; check the path")


def existing(path: Path) -> Path:
    """The path if it is a file in a known format; DataError, with the nearest name there is, if not."""
    if path.suffix.lower() not in SUFFIXES:
        found = f"a {path.suffix} file" if path.suffix else "a folder" if path.is_dir() else "a name without suffix"
        raise DataError("DATA_FORMAT", f"{path}: expected one of {', '.join(SUFFIXES)}, found {found}; convert it")
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise DataError("DATA_FILE", f"{path}: there is no folder {path.parent}; check the path")
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], 1, 0)
    hint = f"; the nearest name there is {near[0]!r}" if near else ", which is empty"
    raise DataError("DATA_FILE", f"{path}: there is no such file in {path.parent}{hint}")


def _package_folders(name: str) -> list[Path]:
    """Folders of a package; parents are walked by path because `find_spec` of a dotted name imports them."""
    top, *inner = name.split(".")
    spec = importlib.util.find_spec(top)
    for depth in range(len(inner)):
        if spec is None or spec.submodule_search_locations is None:
            break
        full = ".".join([top, *inner[: depth + 1]])
        spec = importlib.machinery.PathFinder.find_spec(full, list(spec.submodule_search_locations))
    if spec is None:
        raise ConfigError("PACKAGE", f"package {name} is not installed here; install it, or give a file")
    if spec.submodule_search_locations is None:
        raise ConfigError("PACKAGE", f"{name} is a single module, not a package with files in it; give a package")
    return [Path(folder) for folder in spec.submodule_search_locations]


def _in_folder(task: TaskSpec) -> dict[str, Source]:
    """The splits that have a file below ``$NLPTRAIN_DATA/<task>/``."""
    root = os.environ.get(DATA_FOLDER)
    if not root:
        return {}
    if not Path(root).is_dir():
        raise ConfigError("DATA_SOURCE", f"{DATA_FOLDER} must name a folder of data sets; {root!r} is not a folder")
    sources = {}
    for split, stem in task.splits.items():
        files = [str(path) for suffix in SUFFIXES if (path := Path(root, task.name, stem + suffix)).is_file()]
        if len(files) > 1:
            raise ConfigError("DATA_SOURCE", f"split {split} could be any of {', '.join(files)}; keep one of them")
        if files:
            sources[split] = Source("file", files[0], None, stem)
    return sources


def _on_hub(task: TaskSpec) -> dict[str, Source]:
    if task.hub is None:
        return {}
    location, config = task.hub
    return {split: Source("hub", location, config, name) for split, name in task.splits.items()}


def _no_train(task: TaskSpec) -> str:
    root = os.environ.get(DATA_FOLDER)
    searched = f"{Path(root, task.name)} has no training file" if root else f"{DATA_FOLDER} is not set"
    stem = task.splits.get("train", "train")
    return (
        f"no training rows for task {task.name!r}: data.train is not given and {searched}; set data.train to a "
        f"{', '.join(SUFFIXES)} file or {DATA_FOLDER} to a folder that holds {task.name}/{stem}{{{','.join(SUFFIXES)}}}"
    )
