"""How fast the stock ways are and ours, as a benchmark script has measured it."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from nlptrain.errors import ConfigError
from nlptrain.report.bars import bars
from nlptrain.report.blocks import Cell, Chart, Section, Table

HEAD = ["recipe", "texts a second, median", "lowest to highest", "repeats", "ratio"]


class _Run(BaseModel):
    texts_per_second: float = Field(gt=0, allow_inf_nan=False)


class _Measured(BaseModel):
    runs: Annotated[dict[str, Annotated[list[_Run], Field(min_length=1)]], Field(min_length=1)]


def section(file: Path) -> Section:
    """Texts a second of every recipe, as a ratio to the first of its task.

    Args:
        file: what `scripts/bench_train.py` or `scripts/bench_predict.py` print with --json.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        found = TypeAdapter(dict[str, _Measured]).validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError("SPEED", f"--speed: {file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        expected = "expected what scripts/bench_train.py or scripts/bench_predict.py print with --json"
        raise ConfigError("SPEED", f"--speed: {file}: {expected}; {where}: {first['msg']}") from error
    return Section("Speed", [_chart(name, measured.runs) for name, measured in found.items()])


def _chart(name: str, runs: Mapping[str, list[_Run]]) -> Chart:
    rates = {recipe: [run.texts_per_second for run in repeats] for recipe, repeats in runs.items()}
    medians = {recipe: median(found) for recipe, found in rates.items()}
    base = next(iter(medians.values()))
    rows: list[list[Cell]] = [
        [
            recipe,
            f"{medians[recipe]:.0f}",
            f"{min(found):.0f} to {max(found):.0f}",
            str(len(found)),
            f"{medians[recipe] / base:.2f}",
        ]
        for recipe, found in rates.items()
    ]
    ends = [(min(found), max(found)) for found in rates.values()]
    table = Table(f"{name}: texts a second", HEAD, rows)
    return bars(f"Speed on {name}", "texts a second", list(medians), list(medians.values()), ends, table)
