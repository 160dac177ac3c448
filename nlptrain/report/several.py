"""The page of several runs: their scores side by side, the comparison with its verdict, and their curves in one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from nlptrain.compare import Runs, compare
from nlptrain.errors import DataError, ModelError
from nlptrain.report.blocks import TO, Block, Cell, Page, Section, Table
from nlptrain.report.curves import COLORS, Series, lines
from nlptrain.report.facts import RunFacts
from nlptrain.report.repeat import command
from nlptrain.report.training import STEP
from nlptrain.score_lines import shown


def page(paths: Sequence[Path]) -> Page:
    """Runs, or folders of one run per seed, of one task.

    Args:
        paths: one or more; the others are compared with the first.

    Raises:
        ModelError: not a run, not finished, or of different tasks.
        ConfigError: no split that all have scored.
    """
    opened = [Runs.open(path) for path in paths]
    facts = {name: RunFacts.read(path) for name, path in _named(opened).items()}
    compared, why_not = _compared(paths)
    verdicts = [one["verdict"] for one in compared["comparisons"]] if compared else []
    first = next(iter(facts.values()))
    title = f"{first.result.task}, {len(facts)} runs"
    return Page(
        title,
        _answer(verdicts, facts),
        [_scores(facts), _comparison(compared, why_not), _curves(facts), _repeat(facts)],
    )


def _named(opened: Sequence[Runs]) -> dict[str, Path]:
    """A short name for each run, to its folder: the last parts of its path that tell it from the others."""
    folders = [folder.path for runs in opened for _, folder in sorted(runs.folders.items())]
    depth = next((n for n in range(1, 20) if len({path.parts[-n:] for path in folders}) == len(folders)), 20)
    return {"/".join(path.parts[-depth:]): path for path in folders}


def _compared(paths: Sequence[Path]) -> tuple[dict[str, Any] | None, str | None]:
    """The comparison, or why there is none: one folder, older runs without predictions, or other rows."""
    if len(paths) < 2:
        return None, "one folder is no comparison; give two or more"
    try:
        return compare(paths), None
    except DataError as error:
        return None, str(error)
    except ModelError as error:
        if error.code != "E_PREDICTIONS":
            raise
        return None, str(error)


def _answer(verdicts: Sequence[str], facts: Mapping[str, RunFacts]) -> str:
    if verdicts:
        return ". ".join(f"{one[0].upper()}{one[1:]}" for one in verdicts) + "."
    name, split = next(iter(facts.values())).config.spec.primary, next(iter(facts.values())).split
    values = [
        value for one in facts.values() if (value := one.result.metrics.get(split or "", {}).get(name)) is not None
    ]
    if not values:
        return f"{name} is defined in none of {len(facts)} runs."
    spread = f"from {min(values):.4f} to {max(values):.4f} over {len(values)} runs"
    return f"{name} on {split}: mean {mean(values):.4f}, {spread}."


def _scores(facts: Mapping[str, RunFacts]) -> Section:
    blocks: list[Block] = []
    for split in dict.fromkeys(split for one in facts.values() for split in one.result.metrics):
        names = list(dict.fromkeys(n for one in facts.values() for n in one.result.metrics.get(split, {})))
        rows: list[list[Cell]] = [
            [name, *(shown(one.result.metrics[split].get(metric)) for metric in names)]
            for name, one in facts.items()
            if split in one.result.metrics
        ]
        blocks.append(Table(f"Scores on {split}", ["run", *names], rows))
    blocks += [
        f"Collapsed: {name} on {split}: {reason}."
        for name, one in facts.items()
        for split, reason in one.result.collapsed.items()
    ]
    return Section("Scores", blocks)


def _comparison(found: Mapping[str, Any] | None, why_not: str | None) -> Section:
    if found is None:
        return Section("Comparison", [], [why_not or "unknown"])
    blocks: list[Block] = []
    for one in found["comparisons"]:
        rows: list[list[Cell]] = [
            [row["metric"], shown(row["a"]), shown(row["b"]), shown(row["value"]), _between(row)]
            for row in one["differences"]
        ]
        caption = f"{found['split']}: A = {one['a']}, B = {one['b']}"
        # of a single one it is the answer of the page
        blocks += [f"{one['verdict']}."] if len(found["comparisons"]) > 1 else []
        blocks += [Table(caption, ["metric", "A", "B", "B - A", "95 % interval"], rows)]
        tests: list[list[Cell]] = [
            [str(seed), str(test["only_a_right"]), str(test["only_b_right"]), f"{test['p']:.3g}"]
            for seed, test in one["mcnemar"].items()
        ]
        if tests:
            blocks.append(Table("McNemar's exact test", ["seed", "only A right", "only B right", "p"], tests))
        if one["seed_test"]:
            blocks.append(f"t test over seeds, which takes the rows for granted: p = {one['seed_test']['p']:.3g}.")
    return Section("Comparison", [*blocks, *(f"{note}." for note in found["notes"])])


def _between(row: Mapping[str, Any]) -> str:
    return row["reason"] if row["low"] is None else f"{row['low']:+.4f}{TO}{row['high']:+.4f}"


def _curves(facts: Mapping[str, RunFacts]) -> Section:
    first = next(iter(facts.values()))
    drawn = dict(list(facts.items())[:COLORS])
    blocks: list[Block] = []
    keys = {"eval_loss": "Validation loss", f"eval_{first.primary.name}": f"Validation {first.primary.name}"}
    for key, title in {"loss": "Training loss", **keys}.items():
        series = [Series(name, one.curve(key), dots=key != "loss") for name, one in drawn.items()]
        if any(one.points for one in series):
            blocks.append(lines(title, (STEP, title.split(maxsplit=1)[1]), series))
    missing = [one.missing["history"] for one in facts.values() if "history" in one.missing]
    missing += [f"{len(facts) - len(drawn)} more runs are not drawn"] if len(drawn) < len(facts) else []
    return Section("Learning curves", blocks, missing)


def _repeat(facts: Mapping[str, RunFacts]) -> Section:
    rows: list[list[Cell]] = [
        [name, str(one.result.environment.get("commit") or "not known")[:12], command(one)]
        for name, one in facts.items()
    ]
    return Section("How to repeat them", [Table("Commits and commands", ["run", "commit", "command"], rows, wide=True)])
