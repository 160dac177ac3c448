"""Commands about the head of a finished run. Heavy libraries are imported inside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
