"""The 8-bit path: the exported graph is the model, its integers are near it, and what they cost is said."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from nlptrain import forward, pipeline
from nlptrain.config.load import load
from nlptrain.data.encode import TOKEN_COLUMNS, encode
from nlptrain.errors import ConfigError, ModelError
from nlptrain.fast import int8
from nlptrain.inference import open_run
from nlptrain.run_folder import RunFolder
from nlptrain.score_lines import cost_lines
from nlptrain.tasks import TASKS
from tests.command_line import Done, sentences, write_card, write_csv
from tests.tiny import WORDS, Family, built, tiny_model_dir

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"needs {package}: pip install nlptrain[onnx]")
INT8 = ("--backend", "onnx_int8")
MODELS = [("stock", "sst2", "bert"), ("stock", "stsb", "distilbert"), ("cross_encoder", "stsb", "roberta")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    words = ("training.max_steps=12", "training.eval_strategy=no", "training.bf16=false")
    pipeline.run(load(write_card(folder), (*words, "report={bootstrap: 0, baselines: []}")))
    return folder / "run"


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def model_and_names(folder: Path, family: Family, architecture: str, task: str) -> tuple[Any, Any, list[str]]:
    """A model whose answers differ from row to row, its tokenizer and its arguments."""
    model, tokenizer = built(tiny_model_dir(folder, family=family), task, architecture=architecture)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.2)
    return model.eval(), tokenizer, [name for name in TOKEN_COLUMNS if name in tokenizer.model_input_names]


def tokens(names: list[str], rows: int, length: int) -> dict[str, torch.Tensor]:
    """Random tokens, of which every second row has less than the others."""
    ids, mask = torch.randint(5, 100, (rows, length)), torch.ones(rows, length, dtype=torch.int64)
    mask[1::2, (length + 1) // 2 :] = 0
    types = (torch.arange(length) > length // 2).long().expand(rows, length).contiguous()
    every = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}
    return {name: every[name] for name in names}


def similar_pairs(count: int, tokenizer: Any) -> Dataset:
    rng = np.random.default_rng(3)
    texts = [[" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)] for _ in range(2)]
    rows = Dataset.from_dict({"sentence1": texts[0], "sentence2": texts[1], "line": list(range(count))})
    return encode(rows, TASKS["stsb"], tokenizer, 64, clean=())


def predicted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "task", "family"), MODELS)
def test_the_exported_graph_is_the_model(tmp_path: Path, family: Family, architecture: str, task: str) -> None:
    model, _, names = model_and_names(tmp_path / "tiny", family, architecture, task)
    int8.export(model, names, tmp_path / "graph.onnx")
    graph = int8.OnnxModel(model.config, tmp_path / "graph.onnx")
    spread = []
    for rows, length in ((1, 1), (1, 7), (2, 8), (5, 64), (33, 3)):
        batch = tokens(names, rows, length)
        with torch.no_grad():
            expected = model(**batch).logits.numpy()
        np.testing.assert_allclose(graph(**batch).logits.numpy(), expected, atol=1e-4)
        spread.append(float(np.ptp(expected)))
    assert max(spread) > 0.1


def test_scores_in_integers_are_near(tmp_path: Path) -> None:
    model, tokenizer, names = model_and_names(tmp_path / "tiny", "bert", "cross_encoder", "stsb")
    rows, collate = similar_pairs(60, tokenizer), DataCollatorWithPadding(tokenizer)
    exact = forward.logits(model, rows, collate)
    found = forward.logits(int8.quantized(model, names), rows, collate)
    assert not np.array_equal(found, exact)
    np.testing.assert_allclose(found, exact, atol=0.15 * np.ptp(exact))
    assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.97


def test_rows_in_are_rows_out_with_probabilities_near_those_of_torch(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, left: Path
) -> None:
    texts = [row for row, _ in sentences(60, 1)]
    data = write_csv(tmp_path / "rows.csv", [(row,) for row in texts], ("text",))
    for words in ((), INT8):
        done = nlptrain("predict", run, "--data", data, "--output", tmp_path / f"{len(words)}.jsonl", "--json", *words)
        assert (done.code, json.loads(done.out)["backend"]) == (0, words[-1] if words else "torch"), done.err
    exact, found = predicted(tmp_path / "0.jsonl"), predicted(tmp_path / "2.jsonl")
    assert [row["text"] for row in found] == texts
    apart = [abs(a["probability_positive"] - b["probability_positive"]) for a, b in zip(exact, found, strict=True)]
    assert 0 < max(apart) < 0.1
    assert list(left.glob("nlptrain-*")) == []


@pytest.mark.slow
def test_evaluate_shows_what_it_costs_on_the_same_rows(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "rows.csv", list(sentences(60, 1)))
    for words in ((), INT8):
        nlptrain("predict", run, "--data", data, "--output", tmp_path / f"{len(words)}.jsonl", *words)
    exact, found = predicted(tmp_path / "0.jsonl"), predicted(tmp_path / "2.jsonl")
    pairs = list(zip(exact, found, strict=True))
    result = json.loads(nlptrain("evaluate", run, "--data", data, "--json", *INT8).out)
    most = max(abs(a["probability_positive"] - b["probability_positive"]) for a, b in pairs)
    assert result["backend"] == "onnx_int8"
    assert result["cost"]["labels_changed"] == np.mean([a["prediction"] != b["prediction"] for a, b in pairs])
    assert result["cost"]["largest_probability_difference"] == pytest.approx(most, abs=1e-9)
    assert next(cost_lines(result)) in nlptrain("evaluate", run, "--data", data, *INT8).out.splitlines()


def test_cost_of_classes_is_of_labels_and_probabilities_and_that_of_scores_in_their_unit() -> None:
    exact, found = np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([[0.0, np.log(3)], [9.0, 0.0]])
    classes = int8.cost("classification", found, exact)
    assert classes == pytest.approx({"labels_changed": 0.5, "largest_probability_difference": 0.25})
    scores = int8.cost("regression", np.array([[1.0], [4.0]]), np.array([[1.5], [4.0]]))
    assert scores == {"largest_difference": 0.5, "mean_difference": 0.25}
    (line,) = cost_lines({"backend": "onnx_int8", "cost": scores})
    assert line == "onnx_int8 beside torch: scores differ by at most 0.5, 0.25 on average"
    assert list(cost_lines({"backend": "torch"})) == []


@pytest.mark.slow
def test_torch_answers_bit_for_bit_what_it_did(nlptrain: Callable[..., Done], run: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", list(sentences(60, 1)))
    for number, words in enumerate(((), ("--backend", "torch"))):
        nlptrain("predict", run, "--data", data, "--output", tmp_path / f"{number}.jsonl", *words)
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()
    assert "cost" not in json.loads(nlptrain("evaluate", run, "--data", data, "--json").out)
    torch_run, int8_run = open_run(RunFolder(run)), open_run(RunFolder(run), "onnx_int8")
    rows = torch_run.encode(Dataset.from_dict({"text": [row for row, _ in sentences(60, 1)], "line": list(range(60))}))
    expected = torch_run.trainer.logits(rows)
    assert np.array_equal(torch_run.logits(rows), expected)
    assert np.array_equal(int8_run.exact_logits(rows), expected)
    assert not np.array_equal(int8_run.logits(rows), expected)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_sentence_with_the_command_and_torch_needs_none(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    data = write_csv(tmp_path / "rows.csv", list(sentences(8, 1)))
    done = nlptrain("evaluate", run, "--data", data, *INT8)
    assert done.code == 2
    assert "error[E_BACKEND]: --backend onnx_int8: needs packages that are not installed: pip install" in done.err
    assert f"nlptrain[onnx], found no {package}" in done.err
    assert nlptrain("evaluate", run, "--data", data).code == 0


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("many lines")

    monkeypatch.setattr(torch.onnx, "export", broken)
    data = write_csv(tmp_path / "rows.csv", list(sentences(8, 1)))
    done = nlptrain("predict", run, "--data", data, "--output", tmp_path / "out.csv", *INT8)
    assert done.code == 4
    assert "cannot be exported to ONNX: the exporter cannot follow a NlpTrainForSequence" in done.err
    assert [list(tmp_path.glob("*out.csv*")), list(left.glob("nlptrain-*"))] == [[], []]


def test_tags_and_bi_encoders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers for whole rows, found a token_classification; use torch") as refused:
        int8.check("token_classification")
    assert refused.value.exit_code == 2
    model, _, names = model_and_names(tmp_path / "tiny", "bert", "bi_encoder", "stsb")
    with pytest.raises(ModelError, match="a bi_encoder takes pairs apart") as cannot:
        int8.quantized(model, names)
    assert cannot.value.exit_code == 4


def test_a_model_that_the_exporter_cannot_follow_is_one_error_and_no_print(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, _ = built(tiny_model_dir(tmp_path), "sst2", architecture="cross_encoder", normalize="whiten")
    model.normalizer.rows.fill_(2)
    capfd.readouterr()
    with pytest.raises(ModelError, match="cannot follow a NlpTrainForSequenceClassification; use torch"):
        int8.quantized(model.eval(), TOKEN_COLUMNS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [((*INT8, "--uncertainty"), "--uncertainty: is of the exact model"), (("--backend", "int4"), "'int4'")],
)
def test_words_that_do_not_fit_are_refused(
    nlptrain: Callable[..., Done], run: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    data = write_csv(tmp_path / "rows.csv", list(sentences(8, 1)))
    done = nlptrain("predict", run, "--data", data, "--output", tmp_path / "out.csv", *words)
    assert (done.code, message in done.err) == (2, True), done.err
