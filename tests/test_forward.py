"""The logits of all rows: each row's own whatever stands beside it, in order, however many processes there are."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import BertConfig, DataCollatorWithPadding, RobertaConfig

from nlptrain import forward
from nlptrain.data.encode import encode, length_limit
from nlptrain.fast import speed_up
from nlptrain.models.modes import encoding_in_bfloat16
from nlptrain.tasks import TASKS
from tests.tiny import WORDS, built, tiny_model_dir, tiny_tokenizer

ARCHITECTURES = ["stock", "cross_encoder", "bi_encoder"]
Array = NDArray[Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("tiny"), dropout=0.1)


def pairs(count: int) -> Dataset:
    rng = np.random.default_rng(3)
    texts = [[" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(count)] for _ in range(2)]
    return Dataset.from_dict({"sentence1": texts[0], "sentence2": texts[1], "line": list(range(count))})


def scorer(folder: Path, architecture: str, *, fast: bool = True) -> tuple[Any, Dataset, DataCollatorWithPadding]:
    """A model of the similarity of pairs, in training mode, and rows of different lengths."""
    torch.manual_seed(0)
    model, tokenizer = built(folder, "stsb", architecture=architecture)
    assert not fast or speed_up(model)
    rows = encode(pairs(40), TASKS["stsb"], tokenizer, 64, clean=())
    return model.train(), rows, DataCollatorWithPadding(tokenizer)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_row_gets_what_it_gets_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    model, rows, collate = scorer(folder, architecture)
    plain, *_ = scorer(folder, architecture, fast=False)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        alone = [plain.eval()(**{n: torch.tensor([row[n]]) for n in names}).logits[0].numpy() for row in rows]
    monkeypatch.setattr(forward, "BUDGET", 90)
    state = torch.get_rng_state()
    np.testing.assert_allclose(forward.logits(model, rows, collate), np.stack(alone), atol=1e-5)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("processes", [2, 40])
def test_processes_share_the_batches_of_one(folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    model, rows, collate = scorer(folder, "cross_encoder")
    monkeypatch.setattr(forward, "BUDGET", 90)
    whole, parts = forward.logits(model, rows, collate), []
    for rank in range(processes):
        monkeypatch.setattr(forward, "ranks", lambda rank=rank: (rank, processes))
        parts.append(forward.logits(model, rows, collate))
    assert np.array_equal(np.sum(parts, axis=0), whole)
    assert all((part == 0).any() for part in parts)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_in_the_encoder_and_only_there(folder: Path, architecture: str, fast: bool) -> None:
    model, rows, collate = scorer(folder, architecture, fast=fast)
    exact = forward.logits(model, rows, collate)
    # what the head gets, and gives
    seen: list[Any] = []
    head = getattr(model, "head", None) or model.classifier
    hook = head.register_forward_hook(lambda _, given, out: seen.append((given[0].dtype, out.dtype)))
    found = forward.logits(model, rows, collate, bf16=True)
    hook.remove()
    assert set(seen) == {(torch.float32, torch.float32)}
    assert not np.array_equal(found, exact)
    np.testing.assert_allclose(found, exact, atol=0.02 * np.ptp(exact) + 0.005)
    assert np.array_equal(forward.logits(model, rows, collate), exact)


def test_an_error_within_bfloat16_gives_the_encoder_back(folder: Path) -> None:
    model, *_ = scorer(folder, "stock")
    before = model.bert.forward
    with suppress(KeyError), encoding_in_bfloat16(model):
        assert model.bert.forward is not before
        raise KeyError
    assert model.bert.forward is before


@pytest.mark.parametrize("config", [BertConfig(max_position_embeddings=29), RobertaConfig(max_position_embeddings=31)])
@pytest.mark.parametrize("multiple", [2, 8])
def test_padding_finds_a_position_too(config: Any, multiple: int) -> None:
    tokenizer = tiny_tokenizer()
    ids = [5] * length_limit(tokenizer, config, 512)
    width = tokenizer.pad([{"input_ids": ids}], pad_to_multiple_of=multiple, return_tensors="pt")["input_ids"].shape[1]
    # those of RoBERTa begin after the padding id, which is 1
    assert 20 < width <= 29
