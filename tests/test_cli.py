"""The commands as a user gives them: the whole way from a CSV to predictions, and what wrong input gets."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from nlptrain import checkpoints
from tests.command_line import Done, sentences, write_csv

GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
RUN_FILES = {"config.yaml", "results.json", "history.jsonl", "model", "checkpoints", "run_status.json", "predictions"}


def test_from_csv_to_predictions(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    trained = nlptrain("train", card, "--json")
    assert trained.code == 0, trained.err
    run, result = tmp_path / "run", json.loads(trained.out)
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert result["metrics"]["test"]["accuracy"] > 0.9
    assert result["rows"] == {"train": 108, "validation": 12, "test": 31}

    evaluated = json.loads(nlptrain("evaluate", run, "--data", tmp_path / "test.csv", "--json").out)
    assert evaluated["metrics"] == pytest.approx(result["metrics"]["test"], abs=1e-6)

    predicted = nlptrain("predict", run, "--data", tmp_path / "test.csv", "--output", tmp_path / "out.csv")
    assert predicted.code == 0, predicted.err
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = sentences(31, 1)
    assert [row["text"] for row in rows] == [text for text, _ in truth]
    right = np.mean([row["prediction"] == label for row, (_, label) in zip(rows, truth, strict=True)])
    assert right == pytest.approx(evaluated["metrics"]["accuracy"])


def test_two_runs_with_one_seed_are_bitwise_equal(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert nlptrain("train", card, f"training.output_dir={tmp_path / name}", "model.dropout=0.1").code == 0
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert all(one[key].equal(two[key]) for key in one)
    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("one", "two")]
    losses = [[entry.get("loss") for entry in map(json.loads, lines)] for lines in histories]
    assert losses[0] == losses[1]


def test_regression_answers_in_the_users_unit(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    rows = [(text, 1000 + 50 * (label == "positive")) for text, label in sentences(120, 0)]
    write_csv(tmp_path / "train.csv", rows, ("text", "score"))
    write_csv(
        tmp_path / "test.csv", [(t, 1000 + 50 * (b == "positive")) for t, b in sentences(31, 1)], ("text", "score")
    )
    text = card.read_text().replace("{name: words, kind: classification, labels: [negative, positive]}", "REGRESSION")
    card.write_text(text.replace("REGRESSION", "{name: words, kind: regression, label: score, range: [900, 1100]}"))
    for architecture in ("cross_encoder", "stock"):
        run = tmp_path / architecture
        longer = ("training.num_train_epochs=8", "training.learning_rate=0.003")
        words = (f"model.architecture={architecture}", f"training.output_dir={run}", *longer)
        done = nlptrain("train", card, *words, "--json")
        metrics = json.loads(done.out)["metrics"]["test"]
        assert metrics["nmse"] < 0.5
        assert metrics["mse"] == pytest.approx(metrics["nmse"] * 25**2, rel=0.01)
        evaluated = json.loads(nlptrain("evaluate", run, "--data", tmp_path / "test.csv", "--json").out)["metrics"]
        assert evaluated == pytest.approx(metrics, rel=1e-4)


def test_a_checkpoint_that_lacks_a_weight_is_not_continued(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", card, "training.max_steps=14").code == 0
    weights = tmp_path / "run" / "checkpoints" / "checkpoint-14" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if name != "head.linear.bias"}
    save_file(kept, weights, {"format": "pt"})
    checkpoints.seal(weights.parent, checkpoints.facts(weights.parent))
    done = nlptrain("train", card, "training.max_steps=14", "--resume")
    assert (done.code, "missing: ['head.linear.bias']" in done.err) == (4, True)


def test_early_stopping_ends_a_run_that_no_longer_improves(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    # a rate of next to nothing: the second evaluation cannot be better than the first
    done = nlptrain("train", card, "early_stopping.patience=1", "training.learning_rate=1e-30", "--json")
    assert json.loads(done.out)["training"]["epochs"] == 2


def test_a_model_whose_labels_are_not_the_tasks_is_not_evaluated(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", card, "training.max_steps=2").code == 0
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(config.read_text().replace("negative", "POSITIVE").replace("positive", "negative"))
    done = nlptrain("evaluate", tmp_path / "run", "--data", tmp_path / "test.csv")
    assert (done.code, "'positive'" in done.err, "'POSITIVE'" in done.err) == (4, True, True)


def test_continuing_with_another_setting_is_refused_by_name(nlptrain: Callable[..., Done], card: Path) -> None:
    assert nlptrain("train", card, "training.max_steps=2").code == 0
    done = nlptrain("train", card, "training.seed=7", "--resume")
    assert done.code == 4
    assert "training.seed: 42 in the run, 7 now" in done.err


def test_a_folder_that_is_not_empty_is_left_alone(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    done = nlptrain("train", card)
    assert (done.code, [path.name for path in (tmp_path / "run").iterdir()]) == (2, ["thesis.txt"])


def test_check_says_rows_steps_and_balance_and_writes_nothing(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    facts = json.loads(nlptrain("check", card, "--json").out)
    assert facts["steps"]["total"] == 3 * 14
    assert facts["data"]["train"]["labels"] == {"negative": 54, "positive": 54}
    assert facts["memory"]["parameters"] > 10_000
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("rows", "header", "code", "expected"),
    [
        ([("good film", "positive")] * 3, ("text", "lable"), 3, "the nearest is 'lable'"),
        ([("good", "positive"), ("bad", "negative"), ("fine", "positive")], ("text", "label"), 3, "rows"),
        ([], ("text", "label"), 3, "found only a header"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_exit_code_3(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, rows: list[Any], header: Any, code: int, expected: str
) -> None:
    write_csv(tmp_path / "train.csv", rows, header)
    done = nlptrain("train", card)
    assert done.code == code
    assert expected in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_latin_1_is_named_with_its_place_and_read_when_asked(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    text = (tmp_path / "train.csv").read_text(encoding="utf-8").replace("film", "caf\u00e9")
    (tmp_path / "train.csv").write_text(text, encoding="latin-1")
    refused = nlptrain("check", card)
    assert (refused.code, "data.encoding: latin-1" in refused.err) == (3, True)
    (tmp_path / "test.csv").write_text((tmp_path / "test.csv").read_text("utf-8"), encoding="latin-1")
    assert nlptrain("check", card, "data.encoding=latin-1").code == 0


def test_an_error_is_one_json_document_when_asked(nlptrain: Callable[..., Done], card: Path) -> None:
    done = nlptrain("train", card, "training.learning_rat=1", "--json")
    assert json.loads(done.out)["exit_code"] == done.code == 2
    assert "learning_rate" in done.err


@pytest.mark.parametrize("words", [["trian"], ["train"], ["predict", "x", "--data"]])
def test_a_wrong_command_line_is_exit_code_2(nlptrain: Callable[..., Done], words: list[str]) -> None:
    done = nlptrain(*words)
    assert done.code == 2
    assert done.err.startswith("nlptrain: error[E_USAGE]:")


def test_tasks_lists_the_nine_of_glue(nlptrain: Callable[..., Done]) -> None:
    assert set(json.loads(nlptrain("tasks", "--json").out)) == set(GLUE)


def test_a_half_written_checkpoint_is_passed_over_and_a_run_without_one_begins(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", card, "training.save_total_limit=9").code == 0
    torn = tmp_path / "run" / "checkpoints" / "checkpoint-42"
    (torn / "trainer_state.json").unlink()
    done = nlptrain("train", card, "training.save_total_limit=9", "--resume")
    assert (done.code, f"{torn} is incomplete" in done.err, "checkpoint-28" in done.err) == (0, True, True)
    subprocess.run(["rm", "-r", str(torn.parent), str(tmp_path / "run" / "model")], check=True)
    done = nlptrain("train", card, "training.save_total_limit=9", "--resume")
    assert (done.code, "starting at step 0" in done.err) == (0, True)


def test_scores_of_a_half_precision_run_are_those_of_the_saved_model(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    rows = [(text, 1000 + 50 * (label == "positive")) for text, label in sentences(60, 0)]
    for name in ("train", "test"):
        write_csv(tmp_path / f"{name}.csv", [(f"{t} {name}", score) for t, score in rows], ("text", "score"))
    kind = "{name: words, kind: regression, label: score}"
    words = (f"task={kind}", "model.architecture=stock", "training.bf16=true", "training.num_train_epochs=1")
    result = json.loads(nlptrain("train", card, *words, "--json").out)
    evaluated = json.loads(nlptrain("evaluate", tmp_path / "run", "--data", tmp_path / "test.csv", "--json").out)
    assert result["training"]["bf16"] is True
    assert evaluated["metrics"] == result["metrics"]["test"]


def test_predictions_never_replace_the_file_they_are_for(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", card, "training.max_steps=2").code == 0
    data = tmp_path / "test.csv"
    before = data.read_bytes()
    assert nlptrain("predict", tmp_path / "run", "--data", data, "--output", data).code == 2
    assert data.read_bytes() == before


TECHNIQUES = """
optim: {name: rmsprop, head_learning_rate: 0.01, layer_decay: 0.9, decay_schedule: cosine}
clipping: {by: percentile, threshold: 50, window: 20}
schedule: {name: cosine_restarts, warmup: 0.1, T_0: 10, T_mult: 2}
"""


def test_techniques_work_together_and_resume_exactly(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    card.write_text(card.read_text() + TECHNIQUES)
    settings = ["training.learning_rate=0.002", "training.weight_decay=0.1", "training.logging_steps=1"]
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    for run in runs:
        words = [*settings, "training.save_total_limit=9", f"training.output_dir={run}"]
        done = nlptrain("train", card, *words)
        assert done.code == 0, done.err
    for path in (runs[1] / "model", *runs[1].glob("checkpoints/checkpoint-42")):
        subprocess.run(["rm", "-r", str(path)], check=True)
    assert nlptrain("train", card, *settings, f"training.output_dir={runs[1]}", "--resume").code == 0
    one, two = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(one[key].equal(two[key]) for key in one)
    entries = [[json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] for run in runs]
    wanted = {"grad_norm_before_clipping", "clipped_share", "weight_decay", "learning_rate", "loss"}
    logged = [[{key: entry[key] for key in wanted} for entry in run if "loss" in entry] for run in entries]
    assert logged[0] == logged[1]
    shown = json.loads(nlptrain("schedule", card, *settings, "--json").out)
    assert [entry["learning_rate"] for entry in logged[0]] == pytest.approx(shown["rates"])


def test_the_schedule_is_drawn_to_a_file(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    done = nlptrain("schedule", card, "schedule.name=linear", "--output", tmp_path / "rate.svg")
    assert done.code == 0, done.err
    assert (tmp_path / "rate.svg").read_text().startswith("<svg")
    for wrong in (tmp_path / "rate.png", tmp_path / "nowhere" / "rate.svg"):
        assert nlptrain("schedule", card, "schedule.name=linear", "--output", wrong).code == 2


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("schedule={name: linear, warmup: -1}", "nearest valid value: 0"),
        ("schedule={name: cosine_restarts, T_0: 0}", "nearest valid value: 1"),
        ("clipping={by: percentile, threshold: 150}", "nearest valid value is 100"),
        ("schedule={name: step, factor: 1.0}", "0.999"),
        ("optim={name: adamw, settings: {beta: 1}}", "betas"),
    ],
)
def test_a_wrong_technique_is_refused_with_the_nearest_valid_value(
    nlptrain: Callable[..., Done], card: Path, setting: str, expected: str
) -> None:
    done = nlptrain("check", card, setting)
    assert done.code == 2
    assert expected in done.err


def test_a_technique_and_the_librarys_own_way_are_not_both_set(nlptrain: Callable[..., Done], card: Path) -> None:
    done = nlptrain("check", card, "clipping={by: value}", "training.max_grad_norm=0.5")
    assert (done.code, "training.max_grad_norm" in done.err) == (2, True)
