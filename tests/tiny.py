"""A tiny random encoder with its tokeniser, for tests that need a model folder but no meaning."""

from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast, RobertaTokenizer

from nlptrain.config.schema import ModelConfig
from nlptrain.models.build import build
from nlptrain.models.target import TargetScale
from nlptrain.tasks import TASKS

Family = Literal["bert", "distilbert", "roberta"]

TARGET = TargetScale(mean=2.5, scale=1.2, low=0.0, high=5.0)
MASK = "[MASK]"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    *["the", "a", "an", "is", "was", "it", "this", "that", "film", "movie", "book", "story", "food", "good", "great"],
    *["fine", "nice", "bad", "awful", "poor", "boring", "not", "very", "and", "but", "or", "of", "in", "on", "to"],
    *["with", "for", "no", "love", "hate", "like", "happy", "sad", "man", "woman", "dog", "cat", "plays", "eats"],
    *["runs", "music", "new", "old", "one", "two", "all", "more"],
]
SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "$A [SEP] $B:1 [SEP]:1"),
    "distilbert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "$A [SEP] $B [SEP]"),
    "roberta": ("<pad>", "<unk>", "<s>", "</s>", "$A </s> </s> $B </s>"),
}


def tiny_tokenizer(family: Family = "bert") -> PreTrainedTokenizerFast:
    """WordPiece with about 120 entries that frames texts and pairs as `family` does; 0 is the padding."""
    pad, unknown, start, end, pair = SPECIAL[family]
    tokens = dict.fromkeys([pad, unknown, start, end, *".,!?'", *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS, MASK])
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} {pair}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if family == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        pad_token=pad,
        cls_token=start,
        sep_token=end,
        mask_token=MASK,
        model_input_names=names,
        model_max_length=64,
    )


def _tiny_settings(family: Family, dropout: float) -> dict[str, Any]:
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
        return {**sizes, "dropout": dropout, "attention_dropout": dropout, "seq_classif_dropout": dropout}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    types = 2 if family == "bert" else 1
    return {**sizes, **rates, "type_vocab_size": types, "max_position_embeddings": 66}


def tiny_model_dir(folder: Path, *, dropout: float = 0.1, family: Family = "bert", seed: int = 0) -> Path:
    """Write an encoder checkpoint (2 layers, hidden size 32) and tokeniser to `folder`; the weights follow `seed`."""
    tokenizer = tiny_tokenizer(family)
    settings = {"vocab_size": len(tokenizer), "pad_token_id": 0, **_tiny_settings(family, dropout)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, **settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def built(name: Path | str | None, task: str, **settings: Any) -> Any:
    """Model and tokeniser of `build` for a task with fixed labels, or a regression in the unit of `TARGET`."""
    target = TARGET if TASKS[task].kind == "regression" else None
    return build(None if name is None else str(name), ModelConfig(**settings), TASKS[task], TASKS[task].labels, target)


def byte_level_dir(folder: Path, *, generic: bool = False) -> Path:
    """As `tiny_model_dir` of a RoBERTa with its own kind of tokeniser, which by default glues the words of a list.

    `generic`: the tokeniser is saved as one of no family, as newer encoders have it.
    """
    vocab = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<mask>"])}
    for piece in (*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"\u0120{word}" for word in WORDS)):
        vocab.setdefault(piece, len(vocab))
    tokenizer: Any = RobertaTokenizer(vocab=vocab, merges=_merges(vocab), model_max_length=64)
    if generic:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>", pad_token="<pad>", model_max_length=64
        )
    settings = {"vocab_size": len(tokenizer), "pad_token_id": 0, **_tiny_settings("roberta", 0.0)}
    AutoModel.from_config(AutoConfig.for_model("roberta", **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Merges that make each word of the vocabulary out of its letters from the left."""
    merges: dict[tuple[str, str], None] = {}
    for word in [piece for piece in vocab if piece.startswith("\u0120") and len(piece) > 1]:
        for size in range(1, len(word)):
            vocab.setdefault(word[: size + 1], len(vocab))
            merges[word[:size], word[size]] = None
    return list(merges)
