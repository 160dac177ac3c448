"""The GLUE card: official scores beside published ones, and a submission as the benchmark reads it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlptrain.glue.benchmark import FILES, GLUE, average
from nlptrain.glue.references import REFERENCES
from nlptrain.glue.runs import gather
from nlptrain.glue.submission import archive, best, written
from nlptrain.results import RunResult
from nlptrain.tasks import TASKS
from tests.command_line import Done, sentences, write_csv
from tests.test_results import RECORD
from tests.tiny import tiny_model_dir


def write_run(folder: Path, task: str, seed: int = 1, score: float | None = 0.5, **changed: Any) -> Path:
    """A run folder as `train` leaves it, without a model, whose every official metric is `score`."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"task: {task}\ntraining: {{seed: {seed}}}\n")
    metrics: dict[str, dict[str, float | None]] = {}
    for split, metric in GLUE[task].measures:
        metrics.setdefault(split, {})[metric] = score
    undefined = {split: dict.fromkeys(row, "constant") for split, row in metrics.items()} if score is None else {}
    record = {"task": task, "kind": TASKS[task].kind, "seed": seed, "metrics": metrics, "undefined": undefined}
    record |= {"rows": GLUE[task].validation, "collapsed": {}, "baselines": {}, "intervals": {}, "data": {}}
    RunResult(**{**RECORD, **record, **changed}).write(folder / "results.json")
    return folder


def rows(found: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["task"], row["split"], row["metric"]): row for row in found["rows"]}


def test_every_official_metric_is_one_that_a_run_of_the_task_reports() -> None:
    assert set(GLUE) == set(TASKS)
    for name, task in GLUE.items():
        assert {metric for _, metric in task.measures} <= set(TASKS[name].metrics)
        assert {split for split, _ in task.measures} == set(task.validation) <= set(TASKS[name].splits)
    for one in REFERENCES:
        assert all(len(values) == len(GLUE[name].measures) for name, values in one.values.items())


def test_the_average_is_the_one_the_benchmark_published() -> None:
    published = [one for one in REFERENCES if one.average is not None]
    assert len(published) == 2
    for one in published:
        scores = {name: [value for value in values if value is not None] for name, values in one.values.items()}
        assert average(scores) == pytest.approx(one.average, abs=0.05)
        assert average({name: found for name, found in scores.items() if name != "wnli"}) is None


def test_seeds_become_median_and_range_and_tasks_without_a_run_are_missing(
    nlptrain: Callable[..., Done], tmp_path: Path
) -> None:
    for seed, score in ((1, 0.9), (2, 0.8), (3, 0.87)):
        write_run(tmp_path / "runs" / f"sst2-{seed}", "sst2", seed, score)
    write_run(tmp_path / "mnli", "mnli", score=0.7)
    found = json.loads(nlptrain("glue", tmp_path / "runs", tmp_path / "mnli", "--json").out)
    sst2 = rows(found)["sst2", "validation", "accuracy"]
    assert (sst2["seeds"], sst2["n"]) == ([1, 2, 3], 872)
    assert [sst2["median"], sst2["low"], sst2["high"]] == pytest.approx([87, 80, 90])
    assert rows(found)["mnli", "validation_mismatched", "accuracy"]["median"] == pytest.approx(70)
    assert found["missing"] == ["cola", "mrpc", "stsb", "qqp", "qnli", "rte", "wnli"]
    assert (found["average"], found["notes"]) == (None, [])
    shown = nlptrain("glue", tmp_path / "runs", tmp_path / "mnli").out
    assert "| SST-2 | accuracy | 872 | 87.0 | 80.0 to 90.0, 3 seeds | 93.2 |" in shown
    assert "| CoLA | matthews_correlation |  | missing |  | 58.9 |" in shown


def test_all_nine_have_an_average_and_one_seed_its_interval(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    scores = dict(zip(GLUE, np.linspace(0.1, 0.9, 9).tolist(), strict=True))
    ends = {"validation": {"accuracy": {"low": 0.15, "high": 0.25, "method": "bca", "reason": ""}}}
    for name, score in scores.items():
        write_run(tmp_path / name, name, score=score, **({"intervals": ends} if name == "sst2" else {}))
    found = json.loads(nlptrain("glue", tmp_path, "--json").out)
    assert found["average"] == pytest.approx(50)
    sst2 = rows(found)["sst2", "validation", "accuracy"]
    assert [sst2["median"], sst2["low"], sst2["high"]] == pytest.approx([20, 15, 25])
    assert "[15.0, 25.0]" in nlptrain("glue", tmp_path).out


def test_what_a_reader_should_know_is_said(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    write_run(tmp_path / "a", "stsb", 1, None, collapsed={"validation": "all scores are about 2"})
    write_run(tmp_path / "b", "stsb", 2, 0.8, rows={"validation": 574})
    with (tmp_path / "b" / "config.yaml").open("a") as file:
        file.write("loss: {name: huber}\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("task: {name: sst2, kind: classification}\n")
    done = nlptrain("glue", tmp_path)
    assert done.code == 0, done.err
    assert "stsb, validation, seed 1: collapsed: all scores are about 2" in done.out
    assert "stsb, validation: scored on 1500, 574 rows, not on the benchmark's 1500" in done.out
    assert "differ in more than the seed: loss.name" in done.out
    assert "task 'sst2' is not one of GLUE's by name; left out" in done.out
    # the undefined value counts as -1, the worst
    assert rows(json.loads(nlptrain("glue", tmp_path, "--json").out))["stsb", "validation", "pearson"]["low"] == -100


def test_what_cannot_be_a_card_is_refused(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    done = nlptrain("glue", tmp_path)
    assert (done.code, "expected finished runs of cola, sst2" in done.err) == (4, True)
    write_run(tmp_path / "a", "rte")
    write_run(tmp_path / "b", "rte")
    assert "are both of rte with seed 1; name only one of them" in nlptrain("glue", tmp_path).err
    for wrong in ("card.tar", "nowhere/card.zip"):
        assert nlptrain("glue", tmp_path / "a", "--submission", tmp_path / wrong).code == 2
    done = nlptrain("glue", tmp_path / "a", "--submission", tmp_path / "card.zip")
    assert (done.code, "no file of the submission could be made" in done.err) == (2, True)
    assert not (tmp_path / "card.zip").exists()


def test_the_seed_with_the_best_validation_score_answers(tmp_path: Path) -> None:
    for seed, score in ((1, 0.5), (2, 0.7), (3, 0.7), (4, None)):
        write_run(tmp_path / f"mrpc-{seed}", "mrpc", seed, score)
    runs, _ = gather([tmp_path])
    assert best("mrpc", list(runs["mrpc"].values())).result.seed == 2


def test_answers_are_written_as_the_benchmark_reads_them() -> None:
    scores = np.array([[-0.3], [5.2], [2.34567], [-0.0]])
    assert written(scores, (), (0.0, 5.0)) == ["0.000", "5.000", "2.346", "0.000"]
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert written(logits, ("entailment", "neutral", "contradiction"), None) == ["entailment", "contradiction"]
    assert written(logits, (), None) == ["0", "2"]
    assert archive({"CoLA.tsv": ["0", "1"]}) == archive({"CoLA.tsv": ["0", "1"]})


@pytest.fixture
def glue_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small data of CoLA, STS-B and MNLI with its two test splits and the diagnostic one, unlabelled as on the Hub."""
    data = tmp_path / "data"
    pair = {"stsb": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
    splits = {name: list(TASKS[name].splits.values()) for name in ("cola", "stsb", "mnli")} | {"ax": ["test"]}
    for name, stems in splits.items():
        (data / name).mkdir(parents=True)
        for number, stem in enumerate(stems):
            found = sentences({"train": 30}.get(stem, 7 + number), seed=number)
            # a test split has a blank text, which must keep its line
            texts = [" " if stem.startswith("test") and row == 3 else text for row, (text, _) in enumerate(found)]
            labels = [-1 if stem.startswith("test") else row % TARGETS.get(name, 3) for row in range(len(found))]
            columns = (texts, texts[::-1], labels) if name in pair else (texts, labels)
            header = (*pair.get(name, ("sentence",)), "label")
            write_csv(data / name / f"{stem}.csv", list(zip(*columns, strict=True)), header)
    monkeypatch.setenv("NLPTRAIN_DATA", str(data))
    return data


TARGETS = {"cola": 2, "stsb": 6}


def test_a_submission_holds_the_answers_of_the_runs_own_models(
    nlptrain: Callable[..., Done], glue_data: Path, tmp_path: Path
) -> None:
    model = tiny_model_dir(tmp_path / "tiny", dropout=0.0)
    card = tmp_path / "card.yaml"
    for name in ("cola", "stsb", "mnli"):
        settings = "data: {leakage: allow, empty_text: allow}\nreport: {bootstrap: 0, baselines: []}\n"
        training = f"{{output_dir: {tmp_path}/runs/{name}, max_steps: 4, learning_rate: 0.02, save_strategy: 'no'}}"
        card.write_text(f"task: {name}\nmodel: {{name: {model}}}\n{settings}training: {training}\n")
        done = nlptrain("train", card)
        assert done.code == 0, done.err
    output = tmp_path / "glue.zip"
    done = nlptrain("glue", tmp_path / "runs", "--submission", output, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["submission"]
    assert list(found["files"]) == ["CoLA.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]
    assert set(found["files"]) | set(found["missing"]) == {file.name for file in FILES}
    assert found["missing"]["RTE.tsv"] == "no run of rte"
    assert "STS-B.tsv: 9 rows, the benchmark expects 1379" in found["notes"]

    with zipfile.ZipFile(output) as zipped:
        tables = {name: zipped.read(name).decode() for name in zipped.namelist()}
    sources = {"CoLA.tsv": "cola/test", "MNLI-m.tsv": "mnli/test_matched", "MNLI-mm.tsv": "mnli/test_mismatched"}
    for name, source in (sources | {"STS-B.tsv": "stsb/test"}).items():
        header, *lines = tables[name].splitlines()
        task = source.split("/")[0]
        predicted = tmp_path / "predicted.jsonl"
        data = glue_data / f"{source}.csv"
        assert nlptrain("predict", tmp_path / "runs" / task, "--data", data, "--output", predicted).code == 0
        answers = [json.loads(line) for line in predicted.read_text().splitlines()]
        numbers = {"unacceptable": "0", "acceptable": "1"}
        expected = [
            f"{min(5, max(0, one['score'])):.3f}"
            if "score" in one
            else numbers.get(one["prediction"], one["prediction"])
            for one in answers
        ]
        assert header == "index\tprediction"
        assert lines == [f"{index}\t{answer}" for index, answer in enumerate(expected)]
    assert len(tables["AX.tsv"].splitlines()) == 1 + 7

    first = output.read_bytes()
    assert nlptrain("glue", tmp_path / "runs", "--submission", output).code == 0
    assert output.read_bytes() == first
