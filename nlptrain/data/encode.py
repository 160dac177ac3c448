"""From checked text rows to token rows, and from token rows to padded batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from nlptrain.data import cleaning, tags
from nlptrain.data.mapped import arrow_file, mapped
from nlptrain.tasks import IGNORED, Kind, TaskSpec

TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
NO_TOKEN = -1

Columns = dict[str, list[Any]]


def row_columns(targets: Sequence[Any] | None, encodings: Sequence[Encoding], _: Sequence[Any]) -> Columns:
    """What there is besides the tokens where a row has one target."""
    columns: Columns = {"truncated": [bool(one.overflowing) for one in encodings]}
    return columns if targets is None else columns | {"labels": list(targets)}


def word_columns(targets: Sequence[Any] | None, encodings: Sequence[Encoding], texts: Sequence[list[str]]) -> Columns:
    """The same where every word has one: ``labels`` are at the first token of each word, and -100 elsewhere.

    A word that was cut off, or of which the tokenizer leaves nothing, has no token and so no label: its row counts as
    truncated. ``starts`` keeps where each word begins, `NO_TOKEN` for such a word, and ``targets`` the labels of all.
    """
    starts = [_starts(one, len(words)) for one, words in zip(encodings, texts, strict=True)]
    cut = [bool(one.overflowing) or NO_TOKEN in places for one, places in zip(encodings, starts, strict=True)]
    columns: Columns = {"starts": starts, "truncated": cut}
    if targets is None:
        return columns
    labels = [[IGNORED] * len(one.ids) for one in encodings]
    for row, places, target in zip(labels, starts, targets, strict=True):
        for place, number in zip(places, target, strict=True):
            if place != NO_TOKEN:
                row[place] = number
    return columns | {"labels": labels, "targets": list(targets)}


def _starts(encoding: Encoding, words: int) -> list[int]:
    first: dict[int | None, int] = {}
    for place, word in enumerate(encoding.word_ids):
        first.setdefault(word, place)
    return [first.get(word, NO_TOKEN) for word in range(words)]


@dataclass(frozen=True)
class _Encoding:
    """How the rows of one kind become tokens.

    Attributes:
        text: what the tokenizer is given of a text.
        columns: of labels (None where there are none), encodings and the first texts: the columns besides the tokens.
        arguments: of the tokenizer.
    """

    text: Callable[[str], Any] = str
    columns: Callable[[Sequence[Any] | None, Sequence[Encoding], Sequence[Any]], Columns] = row_columns
    arguments: tuple[tuple[str, Any], ...] = ()


ENCODINGS: dict[Kind, _Encoding] = {
    "classification": _Encoding(),
    "regression": _Encoding(),
    "token_classification": _Encoding(tags.split, word_columns, (("is_split_into_words", True),)),
}


def length_limit(tokenizer: PreTrainedTokenizerBase, model_config: Any, max_length: int) -> int:
    """Tokens per row that tokenizer and encoder have room for, at most `max_length`."""
    encoder = getattr(model_config, "encoder", None) or model_config
    positions = getattr(encoder, "max_position_embeddings", None)
    if positions and ("roberta" in encoder.model_type or encoder.model_type == "camembert"):
        positions -= encoder.pad_token_id + 1  # they count positions from the padding id on
    # batches are padded to a multiple of 8 (of 2 on a CPU), and padding has a position too
    room = (int(positions) // 8 * 8 or int(positions)) if positions else max_length
    limits = [max_length, int(tokenizer.model_max_length), room]
    return min(limits)


def encode(
    rows: Dataset, task: TaskSpec, tokenizer: PreTrainedTokenizerBase, max_length: int, *, clean: Sequence[str]
) -> Dataset:
    """Clean the task's texts by the steps `clean` and tokenise them, pairs as one sequence.

    Where there are too many tokens, the longer text is truncated first.

    Returns:
        A data set in the same order with `TOKEN_COLUMNS` (those the tokenizer gives), ``line`` (where the row stands
        in its source), ``length`` (tokens, int), ``truncated`` (bool) and, where the rows are labelled, ``labels``
        (class id, or score in the user's unit); of a token classification as `word_columns` has them.
    """
    kind = ENCODINGS[task.kind]

    def tokens(batch: Columns) -> Columns:
        texts = [[kind.text(cleaning.clean(text, clean)) for text in batch[column]] for column in task.text]
        found = tokenizer(*texts, truncation=True, max_length=max_length, **dict(kind.arguments))
        columns = {name: found[name] for name in TOKEN_COLUMNS if name in found}
        columns["line"] = batch["line"]
        columns["length"] = [len(ids) for ids in found["input_ids"]]
        return columns | kind.columns(batch.get("label"), found.encodings, texts[0])

    with arrow_file() as path:
        settings = {"cache_file_name": str(path), "new_fingerprint": path.stem}
        rows.map(tokens, batched=True, remove_columns=rows.column_names, **settings)
        return mapped(path)


def length_facts(encoded: Dataset) -> dict[str, float]:
    """Median and largest length in tokens and the share of truncated rows."""
    lengths = sorted(encoded["length"][:])
    truncated = sum(encoded["truncated"][:])
    return {
        "tokens": sum(lengths),
        "median_length": lengths[len(lengths) // 2],
        "max_length": lengths[-1],
        "truncated": truncated,
        "truncated_share": truncated / len(lengths),
    }
