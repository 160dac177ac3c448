"""Commands about many runs at once. Heavy libraries are imported inside them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nlptrain.command import Debug, Json, Overrides, command
from nlptrain.errors import ConfigError
from nlptrain.verify import VERIFICATIONS, WITHOUT_CONFIG

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="A YAML file with base, variants, seeds and output.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time, each with its share of the cores.")]
CellNumber = Annotated[int | None, typer.Option("--cell", metavar="K", help="Run the K-th cell alone, from 1.")]
Shard = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Run the I-th of N equal parts.")]
Table = Annotated[bool, typer.Option("--table", help="Run nothing; show the tables of what is there.")]

RunPaths = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of one run per seed; the first is A.")
]
Reported = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="A run folder; or several, or folders of one run per seed.")
]
ReportFolder = Annotated[
    Path | None, typer.Option("--output", metavar="DIR", help="Where to write; left out: the run folder of one run.")
]
Speed = Annotated[
    Path | None, typer.Option("--speed", metavar="FILE", help="Also show what a benchmark script printed with --json.")
]
GluePaths = Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders, or folders of them.")]
Submission = Annotated[
    Path | None, typer.Option("--submission", metavar="FILE", help="Also write the benchmark's .zip; needs the models.")
]
VerifiedConfig = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help=f"A YAML file; not for {', '.join(sorted(WITHOUT_CONFIG))}."),
]
What = Annotated[str, typer.Argument(metavar="WHAT", help=f"One of {', '.join(VERIFICATIONS)}.")]
Split = Annotated[str | None, typer.Option("--split", help="Which rows; left out: test, else validation.")]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def grid(
    grid: GridFile,
    jobs: Jobs = 1,
    cell: CellNumber = None,
    shard: Shard = None,
    table: Table = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train tasks x variants x seeds and compare them; can be stopped and started again."""

    def work() -> Mapping[str, Any]:
        from nlptrain.config.grid import load_grid
        from nlptrain.grid import run as stages
        from nlptrain.grid import table as tables

        if (cell is not None) + (shard is not None) + table > 1:
            raise ConfigError("USAGE", "--cell, --shard and --table exclude each other; give one of them")
        checked = load_grid(grid)
        if table:
            return tables.tables(checked)
        if cell is not None or shard is not None:
            numbers = [cell] if cell is not None else stages.shard(shard or "", len(checked.cells))
            return stages.run_some(checked, numbers)
        return stages.run_all(checked, jobs=jobs)

    command(work, _show_grid, as_json=as_json, debug=debug)


@app.command()
def compare(runs: RunPaths, split: Split = None, as_json: Json = False, debug: Debug = False) -> None:
    """Say whether one run, or one way of training over several seeds, is better than another."""

    def work() -> Mapping[str, Any]:
        from nlptrain.compare import compare

        return compare(runs, split)

    command(work, _show_comparisons, as_json=as_json, debug=debug)


@app.command()
def report(
    runs: Reported, output: ReportFolder = None, speed: Speed = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Write what is known of a run as one HTML page, a Markdown summary and a model card; of several, a comparison."""

    def work() -> Mapping[str, Any]:
        from nlptrain.report.write import report

        return report(runs, output, speed)

    command(work, _show_report, as_json=as_json, debug=debug)


def _show_report(found: Mapping[str, Any]) -> list[str]:
    files = [f"{name:<8} {found[name]}" for name in ("html", "markdown", "card") if found[name]]
    return [found["answer"], *(f"not shown: {reason}" for reason in found["missing"]), *files]


@app.command()
def glue(runs: GluePaths, submission: Submission = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show the nine tasks of GLUE beside published figures, and write a submission."""

    def work() -> Mapping[str, Any]:
        from nlptrain.glue.card import card
        from nlptrain.glue.runs import gather

        gathered, notes = gather(runs)
        found = card(gathered, notes)
        if submission is None:
            return found
        from nlptrain import processes
        from nlptrain.glue import submission as stage

        stage.check_output(submission)
        processes.start()
        return found | {"submission": stage.submit(gathered, submission)}

    command(work, _show_glue, as_json=as_json, debug=debug)


@app.command()
def verify(
    what: What, config: VerifiedConfig = None, overrides: Overrides = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Prove a promise on this machine with a few steps of this configuration; exit code 1 where it does not hold."""
    held: list[bool] = []

    def work() -> Mapping[str, Any]:
        from nlptrain.config.load import load
        from nlptrain.verify import verify

        if config is None and what not in WITHOUT_CONFIG:
            raise ConfigError("USAGE", f"verify {what}: name the configuration whose training is to be verified")
        found = verify(what, load(config, overrides or ()) if config else None)
        held.append(found["passed"])
        return found

    command(work, _show_checks, as_json=as_json, debug=debug)
    if not all(held):
        sys.exit(1)


def _show_checks(found: Mapping[str, Any]) -> list[str]:
    from nlptrain.verify.check import lines

    return lines(found)


def _show_comparisons(found: Mapping[str, Any]) -> list[str]:
    from nlptrain.score_lines import shown

    lines = []
    for one in found["comparisons"]:
        lines += [f"{found['task']}, {found['split']}: A = {one['a']}, B = {one['b']}"]
        for row in one["differences"]:
            between = row["reason"] if row["low"] is None else f"[{row['low']:+.4f}, {row['high']:+.4f}]"
            numbers = f"A {shown(row['a'])}  B {shown(row['b'])}  B - A {shown(row['value'])}"
            lines.append(f"  {row['metric']:<21} {numbers}  {between}")
        for seed, test in one["mcnemar"].items():
            only = f"only A right {test['only_a_right']}, only B right {test['only_b_right']}"
            lines.append(f"  McNemar, seed {seed}: {only}, p = {test['p']:.3g}")
        if one["seed_test"]:
            lines.append(f"  t test over seeds, rows taken for granted: p = {one['seed_test']['p']:.3g}")
        for path, seeds in one["collapsed"].items():
            lines += [f"  collapsed: {path}, seed {seed}: {reason}" for seed, reason in seeds.items()]
        lines += [one["verdict"], ""]
    return [*lines[:-1], *found["notes"]]


def _show_grid(found: Mapping[str, Any]) -> list[str]:
    from nlptrain.grid.table import markdown

    if "cells" in found:
        return [f"{name}: {state}" for name, state in found["cells"].items()]
    return markdown(dict(found))


def _show_glue(found: Mapping[str, Any]) -> list[str]:
    from nlptrain.glue.card import markdown

    lines, submission = markdown(dict(found)), found.get("submission")
    if submission:
        files = [f"{name}: {one['rows']} rows by {one['run']}" for name, one in submission["files"].items()]
        missing = [f"{name}: missing: {reason}" for name, reason in submission["missing"].items()]
        lines += ["", f"submission -> {submission['output']}", *files, *missing, *submission["notes"]]
    return lines
