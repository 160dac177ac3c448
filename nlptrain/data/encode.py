"""From checked text rows to token rows, and from token rows to padded batches."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from nlptrain.data import cleaning
from nlptrain.tasks import TaskSpec

TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


def length_limit(tokenizer: PreTrainedTokenizerBase, model_config: Any, max_length: int) -> int:
    """Tokens per row that tokenizer and encoder have room for, at most `max_length`."""
    encoder = getattr(model_config, "encoder", None) or model_config
    positions = getattr(encoder, "max_position_embeddings", None)
    if positions and ("roberta" in encoder.model_type or encoder.model_type == "camembert"):
        positions -= encoder.pad_token_id + 1  # they count positions from the padding id on
    limits = [max_length, int(tokenizer.model_max_length), int(positions or max_length)]
    return min(limits)


def encode(
    rows: Dataset, task: TaskSpec, tokenizer: PreTrainedTokenizerBase, max_length: int, *, clean: Sequence[str]
) -> Dataset:
    """Clean the task's texts by the steps `clean` and tokenise them, pairs as one sequence.

    Where there are too many tokens, the longer text is truncated first.

    Returns:
        A data set in the same order with `TOKEN_COLUMNS` (those the tokenizer gives), ``line`` (where the row stands
        in its source), ``length`` (tokens, int), ``truncated`` (bool) and, where the rows are labelled, ``labels``
        (class id, or score in the user's unit).
    """

    def tokens(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = ([cleaning.clean(text, clean) for text in batch[column]] for column in task.text)
        found = tokenizer(*texts, truncation=True, max_length=max_length)
        columns = {name: found[name] for name in TOKEN_COLUMNS if name in found}
        columns["line"] = batch["line"]
        columns["length"] = [len(ids) for ids in found["input_ids"]]
        columns["truncated"] = [bool(one.overflowing) for one in found.encodings]
        if "label" in batch:
            columns["labels"] = batch["label"]
        return columns

    return rows.map(tokens, batched=True, remove_columns=rows.column_names, keep_in_memory=True)


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
