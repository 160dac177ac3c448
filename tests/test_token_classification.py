"""Token classification from files to entities: trained, scored, predicted and served, on one process and on two."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nlptrain.metrics.entities import entities
from nlptrain.metrics.scores import score
from nlptrain.tasks import ENTITY_METRICS
from tests.command_line import Done
from tests.tiny import tiny_model_dir
from tests.token_rows import TAGS, tagged, write_jsonl

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
TRUTH = tagged(31, 1)


@pytest.fixture
def ner(tmp_path: Path) -> Path:
    """An experiment on a tiny random model that learns the gazetteer in a few seconds."""
    model = tiny_model_dir(tmp_path / "tiny", dropout=0.0)
    write_jsonl(tmp_path / "train.jsonl", tagged(120, 0))
    write_jsonl(tmp_path / "test.jsonl", TRUTH)
    path = tmp_path / "ner.yaml"
    path.write_text(
        "task: {name: ner, kind: token_classification, text: [tokens], label: tags}\n"
        f"data: {{train: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl}}\n"
        f"model: {{name: {model}, dropout: 0.0}}\n"
        f"training: {{output_dir: {tmp_path}/run, num_train_epochs: 5, learning_rate: 0.01, bf16: false, "
        "per_device_train_batch_size: 8}\n",
        encoding="utf-8",
    )
    return path


def predictions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
def test_a_gazetteer_is_learnt_scored_and_predicted(
    nlptrain: Callable[..., Done], ner: Path, tmp_path: Path, architecture: str
) -> None:
    done = nlptrain("train", ner, f"model.architecture={architecture}", "--json")
    assert done.code == 0, done.err
    result, run = json.loads(done.out), tmp_path / "run"
    metrics = result["metrics"]["test"]
    assert metrics["entity_f1"] > 0.9
    majority = score(ENTITY_METRICS, [["O"] * len(words) for words, _ in TRUTH], [tags for _, tags in TRUTH])
    assert majority.values["entity_f1"] == 0
    assert result["baselines"]["constant"]["test"]["entity_f1"] == 0
    assert result["baselines"]["constant"]["test"]["token_accuracy"] == majority.values["token_accuracy"]
    assert result["model"]["labels"] == list(TAGS)

    evaluated = json.loads(nlptrain("evaluate", run, "--data", tmp_path / "test.jsonl", "--json").out)
    assert evaluated["metrics"] == metrics

    for name in ("out.jsonl", "out.csv"):
        assert nlptrain("predict", run, "--data", tmp_path / "test.jsonl", "--output", tmp_path / name).code == 0
    rows = predictions(tmp_path / "out.jsonl")
    assert [list(row) for row in rows] == [["tokens", "tags", "flag"]] * len(TRUTH)
    assert [row["tokens"] for row in rows] == [words for words, _ in TRUTH]
    again = score(ENTITY_METRICS, [row["tags"] for row in rows], [tags for _, tags in TRUTH])
    assert again.values == metrics
    kept = predictions(run / "predictions" / "test.jsonl")
    assert [(row["label"], row["output"]) for row in kept] == [
        (tags, row["tags"]) for (_, tags), row in zip(TRUTH, rows, strict=True)
    ]
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        spaced = list(csv.DictReader(file))
    assert [row["tags"].split(" ") for row in spaced] == [row["tags"] for row in rows]
    assert [row["tokens"].split(" ") for row in spaced] == [row["tokens"] for row in rows]


SERVE = """
import json, sys
{imports}
from transformers import pipeline
texts = json.load(open(sys.argv[2]))
serve = pipeline("token-classification", model=sys.argv[1], aggregation_strategy="first", device="cpu")
print(json.dumps([[[one["entity_group"], one["start"], one["end"]] for one in found] for found in serve(texts)]))
assert ("nlptrain" in sys.modules) == {ours}
"""


@pytest.mark.parametrize("architecture", [pytest.param("stock", marks=pytest.mark.slow), "cross_encoder"])
def test_pipeline_serves_the_same_entities(
    nlptrain: Callable[..., Done], ner: Path, tmp_path: Path, architecture: str
) -> None:
    words = (f"model.architecture={architecture}", "training.num_train_epochs=3")
    assert nlptrain("train", ner, *words).code == 0
    nlptrain("predict", tmp_path / "run", "--data", tmp_path / "test.jsonl", "--output", tmp_path / "out.jsonl")
    ours = []
    for row in predictions(tmp_path / "out.jsonl"):
        starts = [len(" ".join(row["tokens"][:place])) + (place > 0) for place in range(len(row["tokens"]))]
        found = entities(row["tags"])
        ours.append([[kind, starts[a], starts[b - 1] + len(row["tokens"][b - 1])] for kind, a, b in found])
    (tmp_path / "texts.json").write_text(json.dumps([" ".join(words) for words, _ in TRUTH]))
    is_ours = architecture != "stock"
    code = SERVE.format(imports="import nlptrain" if is_ours else "", ours=is_ours)
    command = [sys.executable, "-c", code, str(tmp_path / "run" / "model"), str(tmp_path / "texts.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ours
    assert sum(map(len, ours)) > 20


def test_runs_are_compared_by_their_entities(nlptrain: Callable[..., Done], ner: Path, tmp_path: Path) -> None:
    weak, good = tmp_path / "weak", tmp_path / "good"
    assert nlptrain("train", ner, f"training.output_dir={weak}", "training.max_steps=1").code == 0
    weights = "loss.class_weights={O: 1, B-PER: 2, B-THING: 2, I-PER: 2}"
    head = "model.head={hidden: [16], skip: true}"
    assert nlptrain("train", ner, f"training.output_dir={good}", weights, head).code == 0
    assert sorted(json.loads((good / "results.json").read_text())["per_class"]["test"]) == ["PER", "THING"]
    found = json.loads(nlptrain("compare", weak, good, "--json").out)
    (one,) = found["comparisons"]
    assert found["metric"] == "entity_f1"
    assert one["verdict"].startswith(f"{good} is better: entity_f1")
    assert one["mcnemar"] == {}


def test_what_is_too_long_is_counted_flagged_and_scored_as_outside(
    nlptrain: Callable[..., Done], ner: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", ner, "data.max_length=10").code == 0
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["data"]["tokens"]["test"]["truncated"] > 5
    output = tmp_path / "out.jsonl"
    assert nlptrain("predict", tmp_path / "run", "--data", tmp_path / "test.jsonl", "--output", output).code == 0
    rows = predictions(output)
    assert [len(row["tags"]) for row in rows] == [len(words) for words, _ in TRUTH]
    assert sum(row["flag"] == "truncated" for row in rows) == result["data"]["tokens"]["test"]["truncated"]
    again = score(ENTITY_METRICS, [row["tags"] for row in rows], [tags for _, tags in TRUTH])
    assert again.values == result["metrics"]["test"]
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    best = max(entry.get("eval_entity_f1", 0) for entry in history)
    assert result["metrics"]["validation"]["entity_f1"] == pytest.approx(best)


def test_a_row_without_tokens_is_predicted_as_one(nlptrain: Callable[..., Done], ner: Path, tmp_path: Path) -> None:
    assert nlptrain("train", ner, "training.max_steps=2").code == 0
    (tmp_path / "new.jsonl").write_text('{"tokens": ["a", "man"]}\n{"tokens": []}\n{"tokens": ["it"]}\n')
    output = tmp_path / "out.jsonl"
    assert nlptrain("predict", tmp_path / "run", "--data", tmp_path / "new.jsonl", "--output", output).code == 0
    found = [(row["tokens"], len(row["tags"]), row["flag"]) for row in predictions(output)]
    assert found == [(["a", "man"], 2, ""), ([], 0, "empty"), (["it"], 1, "")]


def test_a_stopped_run_continues_to_the_same_weights(nlptrain: Callable[..., Done], ner: Path, tmp_path: Path) -> None:
    settings = ["training.num_train_epochs=2", "training.save_total_limit=9", "model.dropout=0.1"]
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    for run in runs:
        assert nlptrain("train", ner, *settings, f"training.output_dir={run}").code == 0
    for path in (runs[1] / "model", *runs[1].glob("checkpoints/checkpoint-28")):
        subprocess.run(["rm", "-r", str(path)], check=True)
    assert nlptrain("train", ner, *settings, f"training.output_dir={runs[1]}", "--resume").code == 0
    one, two = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(one[key].equal(two[key]) for key in one)


def test_a_model_with_other_tags_is_not_evaluated(nlptrain: Callable[..., Done], ner: Path, tmp_path: Path) -> None:
    labels = "task={name: ner, kind: token_classification, text: [tokens], label: tags, labels: %s}"
    assert nlptrain("train", ner, "training.max_steps=2", labels % "[O, B-PER, I-PER, B-THING]").code == 0
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(config.read_text().replace("B-PER", "B-X"))
    done = nlptrain("evaluate", tmp_path / "run", "--data", tmp_path / "test.jsonl")
    assert (done.code, "'B-PER'" in done.err, "'B-X'" in done.err) == (4, True, True)


def test_check_says_tags_entities_and_lengths(nlptrain: Callable[..., Done], ner: Path) -> None:
    facts = json.loads(nlptrain("check", ner, "--json").out)
    assert set(facts["data"]["train"]["labels"]) == set(TAGS)
    assert set(facts["data"]["train"]["entities"]) == {"PER", "THING"}
    assert facts["tokens"]["train"]["max_length"] > 12


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.architecture=bi_encoder", "needs a pair of texts"),
        ("model.pooling=cls", "leave it out"),
        ("model={architecture: bi_encoder, output: cosine}", "needs a pair of texts"),
        ("model.output=sigmoid", "use softmax"),
        ("model.normalize=whiten", "the one embedding of a row"),
        ("model.target=none", "the unit of a regression"),
        ("loss.name=mse", "one of cross_entropy, bce"),
        ("data.clean=[lowercase]", "part tokens from their tags"),
        ("data.balance=oversample", "these have many"),
        ("report.baselines=[tfidf]", "are of whole texts"),
        ("data.empty_text=allow", "rows without any token"),
        ("task.text=[tokens, others]", "one column of tokens"),
        ("task.labels=[O, PER]", "found 'PER'"),
        ("task.labels=[B-PER, I-PER]", "must contain 'O'"),
        ("task.range=[0, 1]", "`range` to regression"),
        ("task.metrics=[accuracy]", "one of entity_f1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(
    nlptrain: Callable[..., Done], ner: Path, setting: str, expected: str
) -> None:
    done = nlptrain("check", ner, setting)
    assert done.code == 2
    assert expected in done.err


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_score_and_predict_as_one(nlptrain: Callable[..., Done], ner: Path, tmp_path: Path) -> None:
    # 117 of 130 rows train: the last step of an epoch has one row, and one of the processes none
    write_jsonl(tmp_path / "train.jsonl", tagged(130, 0))
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ["training.logging_steps=1", "training.learning_rate=1e-3", "training.num_train_epochs=2"]
    settings += ["training.per_device_eval_batch_size=3"]
    result = json.loads(nlptrain("train", ner, *settings, *batch(one, 4), "--json").out)
    launch("-m", "nlptrain", "train", ner, *settings, *batch(two, 2))
    other = json.loads((two / "results.json").read_text())
    assert (result["rows"]["train"] % 4, other["environment"]["processes"]) == (1, 2)
    entries = [[json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] for run in (one, two)]
    for name in ("loss", "eval_loss"):
        losses = [[entry[name] for entry in run if name in entry] for run in entries]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert other["metrics"]["test"] == pytest.approx(result["metrics"]["test"], abs=1e-9)

    data = ("--data", tmp_path / "test.jsonl", "--output")
    assert nlptrain("predict", one, *data, tmp_path / "one.jsonl").code == 0
    launch("-m", "nlptrain", "predict", one, *data, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()


def batch(run: Path, size: int) -> list[str]:
    return [f"training.output_dir={run}", f"training.per_device_train_batch_size={size}"]


def launch(*words: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*TORCHRUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment, check=False)
    assert done.returncode == 0, done.stderr
