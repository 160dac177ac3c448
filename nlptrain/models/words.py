"""A tokeniser that is given the words of a text one by one has to see them as it sees them in the text."""

from pathlib import Path

from tokenizers import pre_tokenizers
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from nlptrain.errors import ModelError

WORD = "a"


def prepare_for_words(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Let a byte-level tokeniser, as of RoBERTa, put the space before each word of a list that stands there in a text.

    Without it the words of a list become tokens that the encoder has only seen within words. The setting is saved with
    the tokeniser.

    Raises:
        ModelError: the tokeniser still sees a list of words as another text than the words with spaces between them,
            or pads on the left, which would move the first token of every word.
    """
    if not _reads_words(tokenizer):
        _set_prefix_space(tokenizer)
    if not _reads_words(tokenizer):
        problem = f"{folder}: the tokeniser takes a list of words for another text than the same words with spaces"
        raise ModelError("MODEL_TOKENIZER", f"{problem}; use another encoder for token_classification")
    if tokenizer.padding_side != "right":
        problem = f"{folder}: token_classification needs a tokeniser that pads on the right, found the left"
        raise ModelError("MODEL_TOKENIZER", f"{problem}; use another encoder")


def _reads_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    words = tokenizer([WORD, WORD], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    second = tokenizer(f"{WORD} {WORD}", add_special_tokens=False)["input_ids"][len(words) // 2 :]
    return bool(words == second * 2)


def _set_prefix_space(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        byte_level = backend.pre_tokenizer
        byte_level.add_prefix_space = True
        backend.pre_tokenizer = byte_level
        tokenizer.init_kwargs["add_prefix_space"] = tokenizer.add_prefix_space = True
