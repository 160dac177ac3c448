"""The command line. Heavy libraries are imported inside the commands, so that ``--help`` is instant."""

import atexit
import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nlptrain import cli_evidence, cli_refine
from nlptrain.backends import Backend
from nlptrain.command import ConfigFile, Debug, Json, Overrides
from nlptrain.command import command as _command
from nlptrain.command import fail as _fail
from nlptrain.errors import ConfigError
from nlptrain.score_lines import cost_lines, refinement_lines, score_lines

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Data = Annotated[
    str, typer.Option("--data", metavar="FILE", help="CSV, TSV, JSONL or Parquet file, or a Hub data set.")
]
Output = Annotated[Path, typer.Option("--output", metavar="FILE", help="A .csv or .jsonl file to write.")]
By = Annotated[
    Backend, typer.Option("--backend", help="What computes: torch, or onnx_int8, faster on CPUs and less exact.")
]
Drawing = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Also draw it to an .svg file.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue from the newest checkpoint, or from the one whose PATH is given besides."),
]
Uncertain = Annotated[
    bool,
    typer.Option("--uncertainty", help="With standard errors, and 95 % intervals of scores, from held-out rows."),
]

app = typer.Typer(
    name="nlptrain",
    help="Fine-tune small transformers for text classification and similarity regression, and say how good they are.",
    epilog="Exit codes: 0 done, 1 a check of verify failed, 2 usage or configuration, 3 data, 4 checkpoint or model, "
    "5 diverged, 6 resources, 7 processes, 130 interrupted, 143 terminated.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune, evaluate and write a run folder."""

    def work() -> Mapping[str, Any]:
        words, checkpoint = _checkpoint(overrides or []) if resume else (overrides, None)
        checked = _load(config, words)
        from nlptrain.pipeline import run

        return run(checked, resume=checkpoint or resume).model_dump(mode="json") | {
            "run": checked.training["output_dir"]
        }

    _command(work, _show_run, as_json=as_json, debug=debug)


@app.command()
def check(config: ConfigFile, overrides: Overrides = None, as_json: Json = False, debug: Debug = False) -> None:
    """Say everything that can be known before training: rows, lengths, labels, steps, memory."""

    def work() -> Mapping[str, Any]:
        checked = _load(config, overrides)
        from nlptrain.check import check

        return check(checked)

    _command(work, _show_check, as_json=as_json, debug=debug)


@app.command()
def schedule(
    config: ConfigFile,
    overrides: Overrides = None,
    output: Drawing = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the learning rate of every step, before anything trains."""

    def work() -> Mapping[str, Any]:
        checked = _load(config, overrides)
        from nlptrain.schedule_command import schedule

        return schedule(checked, output)

    _command(work, _show_schedule, as_json=as_json, debug=debug)


@app.command()
def evaluate(run: Run, data: Data, backend: By = "torch", as_json: Json = False, debug: Debug = False) -> None:
    """Score a finished run on a labelled file."""

    def work() -> Mapping[str, Any]:
        from nlptrain.evaluate import evaluate

        return evaluate(_open(run, backend), data)

    _command(work, _show_scores, as_json=as_json, debug=debug)


@app.command()
def predict(
    run: Run,
    data: Data,
    output: Output,
    uncertainty: Uncertain = False,
    backend: By = "torch",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict every row of a file; rows in = rows out, in their order."""

    def work() -> Mapping[str, Any]:
        from nlptrain.predict import predict

        if not uncertainty:
            return predict(_open(run, backend), data, output)
        if backend != "torch":
            raise ConfigError("BACKEND", f"--uncertainty: is of the exact model, found --backend {backend}; use torch")
        from nlptrain import processes
        from nlptrain.uncertainty import predict_with_uncertainty

        processes.start()
        return predict_with_uncertainty(run, data, output)

    _command(work, _show_predicted, as_json=as_json, debug=debug)


def _show_predicted(done: Mapping[str, Any]) -> list[str]:
    lines = [f"{done['rows']} rows -> {done['output']}"]
    if found := done.get("interval"):
        share = f"{found['coverage']:.1%} of {found['rows']} {found['split']} rows"
        lines.append(f"{found['level']:.0%} intervals hold the score of {share}")
    return lines


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks that are known by name."""
    from dataclasses import asdict

    from nlptrain.tasks import TASKS

    def show(rows: Mapping[str, Any]) -> list[str]:
        return [
            f"{name:<6} {row['kind']:<14} {' + '.join(row['text']):<24} {', '.join(row['metrics'])}"
            for name, row in rows.items()
        ]

    _command(lambda: {name: asdict(row) for name, row in TASKS.items()}, show, as_json=as_json, debug=False)


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON schema of the configuration, so that an editor can complete it."""
    from nlptrain.config.load import json_schema

    _command(json_schema, lambda found: [json.dumps(found, indent=2)], as_json=as_json, debug=False)


app.add_typer(cli_evidence.app)
app.add_typer(cli_refine.app)


def main() -> None:
    """Run the command line; every error of the user's is one message and its exit code."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "true")
    # imports make a million objects that stay, and looking for garbage among them is a third of a start
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except typer.TyperException as error:
        _fail(ConfigError("USAGE", f"{error}; see nlptrain --help"), as_json=False)


def _load(config: Path, overrides: list[str] | None) -> Any:
    from nlptrain.config.load import load

    checked = load(config, overrides or ())
    folder = checked.training.get("output_dir") or f"runs/{config.stem}"
    return checked.model_copy(update={"training": {**checked.training, "output_dir": folder}})


def _checkpoint(words: list[str]) -> tuple[list[str], str | None]:
    """The words of a resumed run that are settings, and the one that is the path of a checkpoint."""
    paths = [word for word in words if "=" not in word or Path(word).is_dir()]
    if len(paths) > 1:
        raise ConfigError("USAGE", f"--resume takes one checkpoint, found {' and '.join(paths)}")
    return [word for word in words if word not in paths], paths[0] if paths else None


def _open(run: Path, backend: Backend) -> Any:
    from nlptrain import processes
    from nlptrain.inference import open_run
    from nlptrain.run_folder import RunFolder

    processes.start()
    return open_run(RunFolder(run), backend)


def _show_run(result: Mapping[str, Any]) -> list[str]:
    folder, lines = result["run"], []
    for split, metrics in result["metrics"].items():
        others = {name: found[split] for name, found in result["baselines"].items()}
        lines.append(f"{split}, n = {result['rows'][split]}" + (", beside baselines" if others else ""))
        lines += score_lines(metrics, result["intervals"].get(split, {}), others)
        lines += [f"  collapsed: {result['collapsed'][split]}"] if split in result["collapsed"] else []
    if result["refinement"]:
        lines += refinement_lines(result["refinement"], result["metrics"])
    return [*lines, f"model    {folder}/model", f"results  {folder}/results.json"]


def _show_scores(result: Mapping[str, Any]) -> list[str]:
    notes = [f"{name}: undefined, {reason}" for name, reason in result["undefined"].items()]
    notes += [f"collapsed: {result['collapsed']}"] if result["collapsed"] else []
    scores = score_lines(result["metrics"], result["intervals"], {})
    return [*result["notes"], f"n = {result['rows']}", *scores, *notes, *cost_lines(result)]


def _show_schedule(facts: Mapping[str, Any]) -> list[str]:
    landmarks = [f"{name:<7} step {at['step']:<7} {at['rate']:.3g}" for name, at in facts["landmarks"].items()]
    return [facts["chart"], *landmarks]


def _show_check(facts: Mapping[str, Any]) -> list[str]:
    lines = list(facts["notes"])
    for split, length in facts["tokens"].items():
        found = facts["data"][split]
        balance = found.get("labels") or found.get("score") or "unlabelled"
        lines.append(
            f"{split}: {found['rows']} rows, {length['median_length']} tokens (median), "
            f"{length['max_length']} (longest), "
            f"{length['truncated_share']:.1%} truncated; {balance}"
        )
    loss, steps, memory = facts["loss"], facts["steps"], facts["memory"]
    weights = [f"{label} {weight:.4g}" for label, weight in (loss["class_weights"] or {}).items()]
    lines.append(f"loss: {loss['name']}" + (f", class weights {', '.join(weights)}" if weights else ""))
    lines.append(f"steps: {steps['per_epoch']} per epoch, {steps['total']} in all (one process)")
    lines.append(f"memory: about {memory['total'] / 2**30:.1f} GiB for {memory['parameters'] / 1e6:.1f} M parameters")
    return lines
