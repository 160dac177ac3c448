"""A grid: tasks x variants x seeds, each cell one configuration, all checked before the first one trains."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from nlptrain.config import load as config_file
from nlptrain.config.schema import Config
from nlptrain.config.section import Section
from nlptrain.config.task import Name
from nlptrain.errors import ConfigError

Overrides = dict[str, Any] | list[str] | None
FIXED = (("training", "seed"), ("training", "output_dir"))


class GridConfig(Section):
    """The YAML of a grid."""

    output: str
    """Folder of the cells, ``<output>/<task>/<variant>/seed-<seed>``."""
    base: dict[Name, str | dict[str, Any]] = Field(min_length=1)
    """Name of a task to its configuration: the path of a card, or written inline."""
    variants: dict[Name, Overrides] = Field(min_length=1)
    """Name to what differs from the base: settings as in a configuration, or key=value words. The first is the one
    that the others are compared with."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """One run each."""
    common: Overrides = None
    """Settings of every cell, below those of the variant."""
    only: dict[Name, list[Name]] = Field(default_factory=dict)
    """Variant to the tasks it is for; left out: all."""
    keep_models: bool = False
    """Whether model/ and checkpoints/ stay after a cell is scored."""

    @model_validator(mode="after")
    def _consistent(self) -> "GridConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, found {self.seeds}")
        for variant, tasks in self.only.items():
            if variant not in self.variants:
                raise ValueError(f"only: unknown variant {variant!r}; one of {', '.join(self.variants)}")
            if unknown := [task for task in tasks if task not in self.base]:
                raise ValueError(f"only.{variant}: unknown task {unknown[0]!r}; one of {', '.join(self.base)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    task: str
    variant: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.task}/{self.variant}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(self.config.training["output_dir"])


@dataclass(frozen=True)
class Grid:
    """A checked grid.

    Attributes:
        settings: as written.
        cells: seed by seed, so that a part of them is already a comparison.
    """

    settings: GridConfig
    cells: list[Cell]

    @property
    def output(self) -> Path:
        """Folder of the cells and tables."""
        return Path(self.settings.output)


def load_grid(path: Path) -> Grid:
    """Read a grid and check every cell.

    Raises:
        ConfigError: every problem found, each with the cell it is of.
    """
    tree = config_file.parse(path)
    try:
        settings = GridConfig.model_validate(config_file.plain(tree))
    except ValidationError as error:
        where = lambda keys: f"{path}:{config_file.line(tree, keys)}"  # noqa: E731
        problems = [config_file.describe(item, where, GridConfig) for item in error.errors()]
        raise ConfigError("GRID", problems) from None
    problems, checked = [], {}
    for task, variant in _pairs(settings):
        try:
            checked[task, variant] = _config(settings, task, variant, path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError("GRID", problems)
    cells = [
        Cell(task, variant, seed, _placed(config, settings, f"{task}/{variant}", seed))
        for seed in settings.seeds
        for (task, variant), config in checked.items()
    ]
    return Grid(settings, cells)


def _pairs(settings: GridConfig) -> Iterator[tuple[str, str]]:
    for task in settings.base:
        for variant in settings.variants:
            if task in settings.only.get(variant, settings.base):
                yield task, variant


def _config(settings: GridConfig, task: str, variant: str, path: Path) -> Config:
    base = settings.base[task]
    document = deepcopy(base) if isinstance(base, dict) else config_file.plain(config_file.parse(Path(base)))
    for name, overrides in (("common", settings.common), (f"variants.{variant}", settings.variants[variant])):
        for keys, value in _assignments(overrides):
            if keys in FIXED:
                raise ConfigError("GRID", f"{path}: {name}: {'.'.join(keys)} belongs to the grid; see seeds and output")
            config_file.assign(document, keys, value)
    source = "inline" if isinstance(base, dict) else base
    return config_file.check(document, lambda _: f"{path}: task {task} ({source}) with variant {variant}")


def _assignments(overrides: Overrides) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(overrides, list):
        yield from map(config_file.override, overrides)
    else:
        yield from _leaves(overrides or {}, ())


def _leaves(settings: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _placed(config: Config, settings: GridConfig, name: str, seed: int) -> Config:
    fixed = {"seed": seed, "output_dir": str(Path(settings.output) / name / f"seed-{seed}")}
    return config.model_copy(update={"training": {**config.training, **fixed}})
