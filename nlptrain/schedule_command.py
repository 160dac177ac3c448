"""What `nlptrain schedule` says: the learning rate of every step, before anything is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlptrain import training_arguments
from nlptrain.check import steps
from nlptrain.config.schema import Config
from nlptrain.data.load import load_splits
from nlptrain.errors import ConfigError
from nlptrain.results import check_file
from nlptrain.schedule_plot import svg, terminal
from nlptrain.schedules import resolve, simulate


def schedule(config: Config, output: Path | None) -> dict[str, Any]:
    """`show` for the rows and settings of a configuration; with `output`, also drawn to an SVG file.

    Raises:
        ConfigError: the output cannot be written, or the configuration has no schedule or one that does not fit.
        DataError: the training rows cannot be read.
    """
    if output is not None:
        check_file("--output", output, ".svg")
    if config.schedule is None:
        found = config.training.get("lr_scheduler_type", training_arguments.DEFAULTS["lr_scheduler_type"])
        raise ConfigError("SCHEDULE", f"the configuration has no `schedule`, e.g. schedule: {{name: {found}}}")
    training = training_arguments.resolve(config.training, Path(config.training["output_dir"]), config.replaced)
    rows = load_splits(config.spec, config.data, seed=training["seed"]).rows["train"]
    total = steps(training, len(rows))["total"]
    facts = show(config.schedule.name, config.schedule_settings, total, training["learning_rate"])
    if output is not None:
        output.write_text(svg(facts["rates"], f"{config.schedule.name}, {total} steps"), encoding="utf-8")
    return facts


def show(name: str, settings: Mapping[str, Any], total: int, learning_rate: float) -> dict[str, Any]:
    """JSON-ready facts of a schedule.

    Args:
        name: a row of `nlptrain.schedules.SCHEDULES`.
        settings: ``warmup`` and those of the row.
        total: optimizer steps of the run.
        learning_rate: the peak.

    Returns:
        ``name``, ``settings`` (resolved, in steps), ``steps``, ``rates`` (one a step), ``landmarks`` (name ->
        {step from 1, rate}) and ``chart``, plain text.

    Raises:
        ConfigError: a setting is wrong for this number of steps or this rate.
    """
    try:
        rates = simulate(name, settings, total, learning_rate)
    except ValueError as error:
        raise ConfigError("SCHEDULE", f"schedule: {error}") from error
    marks = {"first": 0, "peak": rates.index(max(rates)), "middle": (total - 1) // 2, "last": total - 1}
    return {
        "name": name,
        "settings": resolve(name, settings, total),
        "steps": total,
        "learning_rate": learning_rate,
        "rates": rates,
        "landmarks": {mark: {"step": at + 1, "rate": rates[at]} for mark, at in marks.items()},
        "chart": terminal(rates),
    }
