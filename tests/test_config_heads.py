"""A wrong head, output or normalisation is refused before anything loads, with the nearest valid value."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nlptrain.config.load import check, dump, load
from nlptrain.errors import ConfigError
from tests.command_line import Done

SCORES = {"kind": "regression", "text": ["a", "b"]}


@pytest.mark.parametrize(
    ("task", "model", "expected"),
    [
        ("sst2", {"head": {"hidden": []}}, "for a linear head leave model.head out"),
        ("sst2", {"head": {"hidden": [64, 0]}}, r"the nearest valid value is \[64, 1\]"),
        ("sst2", {"head": {"skip": True}}, "missing key 'model.head.hidden'"),
        ("sst2", {"head": {"hidden": [4], "activation": "rely"}}, "'relu', 'leaky_relu'"),
        ("sst2", {"head": {"hidden": [4]}, "architecture": "stock"}, "use cross_encoder"),
        ("stsb", {"head": {"hidden": [4]}, "architecture": "bi_encoder", "output": "cosine"}, "takes no head"),
        ("stsb", {"output": "sigmoid", "target": "min_max"}, "leave target out"),
        ("mnli", {"output": "sigmoid"}, "'mnli' has 3: use softmax"),
        (SCORES, {"output": "sigmoid"}, r"give task.range: \[low, high\]"),
        (SCORES, {"output": "softmax"}, "is for classes"),
        ("sst2", {"output": "sigmoid", "architecture": "stock"}, "use cross_encoder"),
        ("sst2", {"hidden_act": "geluu", "pretrained": False}, "nearest valid name is 'gelu'"),
        ("sst2", {"hidden_act": "relu"}, "pretrained: false"),
        ("sst2", {"normalize": "l2", "architecture": "stock"}, "cannot be folded .* use cross_encoder"),
        ("sst2", {"normalize": "standardize", "normalize_components": 4}, "belongs to normalize: whiten"),
        ("sst2", {"normalize": "whiten", "normalize_components": 0}, "greater than or equal to 1"),
        ("sst2", {"normalize": "zscore"}, "'standardize', 'whiten'"),
    ],
)
def test_a_wrong_model_is_refused_with_a_remedy(task: object, model: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        check({"task": task, "model": model})


def test_a_wrong_bound_on_the_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        check({"task": "sst2", "embeddings": {"table": "max", "max_norm": 0.0}})


def test_more_components_than_the_embedding_has_are_refused_before_weights_load(
    nlptrain: Callable[..., Done], card: Path
) -> None:
    (card.parent / "tiny" / "model.safetensors").write_bytes(b"")  # reading weights would fail otherwise
    for command in ("check", "train"):
        for kind, nearest in (("whiten", 32), ("all_but_the_top", 31)):
            done = nlptrain(command, card, f"model.normalize={kind}", "model.normalize_components=40")
            assert (done.code, f"the nearest valid value is {nearest}" in done.err) == (2, True), done.err


def test_a_head_and_its_surroundings_survive_the_run_folder(tmp_path: Path) -> None:
    model = {"head": {"hidden": [256, 64], "activation": "leaky_relu", "skip": True}, "normalize": "whiten"}
    config = check({"task": "stsb", "model": {**model, "output": "sigmoid"}, "embeddings": {"table": "unit"}})
    (tmp_path / "card.yaml").write_text(dump(config), encoding="utf-8")
    assert load(tmp_path / "card.yaml") == config
