"""Commands about the head of a finished run. Heavy libraries are imported inside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nlptrain.command import Debug, Json, command
from nlptrain.score_lines import refinement_lines

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[refine.key=value]...", help="Over the run's own, e.g. refine.l2=0.1")
]
Unseen = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="Labelled rows the run has not seen; left out: those it held out."),
]

Output = Annotated[Path, typer.Option("--output", metavar="FILE", help="A .csv or .jsonl file to write.")]
Share = Annotated[float, typer.Option("--share", help="Of the training rows, above 0 and at most 1.")]

Verified = Annotated[Literal["refine"], typer.Argument(metavar="WHAT", help="refine: the second-order solvers.")]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def refine(
    run: Run, overrides: Settings = None, data: Unseen = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Fit the head again by a second-order method; it is kept where held-out rows find it no worse."""

    def work() -> Mapping[str, Any]:
        from nlptrain import processes
        from nlptrain.refine_command import refine_run

        processes.start()
        return refine_run(run, overrides or (), data)

    def show(done: Mapping[str, Any]) -> list[str]:
        return list(refinement_lines(done["refinement"], done["metrics"]))

    command(work, show, as_json=as_json, debug=debug)


@app.command()
def suspects(run: Run, output: Output, share: Share = 0.1, as_json: Json = False, debug: Debug = False) -> None:
    """Rank training rows by how little the head fitted without each believes its label, to find wrong ones."""

    def work() -> Mapping[str, Any]:
        from nlptrain import processes
        from nlptrain.suspects import find_suspects

        processes.start()
        return find_suspects(run, output, share)

    def show(done: Mapping[str, Any]) -> list[str]:
        return [f"the {done['written']} least plausible of {done['rows']} training rows -> {done['output']}"]

    command(work, show, as_json=as_json, debug=debug)


@app.command()
def verify(what: Verified, as_json: Json = False, debug: Debug = False) -> None:
    """Measure on this machine what is promised; exit code 1 where a check fails."""
    failed: list[Any] = []

    def work() -> Mapping[str, Any]:
        from dataclasses import asdict

        from nlptrain.verify.refine import refine as checks

        found = checks()
        failed.extend(one for one in found if not one.passed)
        return {"what": what, "checks": [asdict(one) for one in found]}

    def show(done: Mapping[str, Any]) -> list[str]:
        return [
            f"{one['name']:<58} {one['value']:<12.3g} {one['tolerance']:<14} {'PASS' if one['passed'] else 'FAIL'}"
            for one in done["checks"]
        ]

    command(work, show, as_json=as_json, debug=debug)
    if failed:
        raise typer.Exit(1)
