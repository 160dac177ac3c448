"""Takes the joint encoding of a pair apart, so that every architecture is fed by the same tokeniser call."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nlptrain.errors import DataError


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that frame a sequence."""

    cls: int
    separator: int
    pad: int


def split_pairs(ids: Tensor, mask: Tensor, types: Tensor | None, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """Turn B jointly encoded pairs into 2B single sequences, as if each text had been encoded alone.

    ``[CLS] a [SEP] b [SEP]`` or ``<s> a </s></s> b </s>``, padded on either side, becomes ``[CLS] a [SEP]`` and
    ``[CLS] b [SEP]``, padded on the right to the longest of them.

    Args:
        ids: (B, T) token ids.
        mask: (B, T), non-zero at real tokens.
        types: (B, T), 1 at the second text and its separator; None where the tokeniser has no types. Then the first
            run of separators divides the texts, so neither text may contain the separator token itself.
        special: ids of the framing tokens.

    Returns:
        ids and mask, both (2B, longest): the B first texts, then the B second texts.

    Raises:
        DataError: a row is a single text.
    """
    real = mask.bool()
    if types is not None:
        first, second, is_pair = _by_types(real, types)
    else:
        first, second, is_pair = _by_separators(real, ids == special.separator)
    if not bool(is_pair.all()):
        raise DataError("DATA_PAIR", 'a bi_encoder needs two texts per row, {"text": ..., "text_pair": ...}; found one')
    return _pack(ids, torch.cat([first, second & ~_ends(real)]), special)


def _by_types(real: Tensor, types: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inner tokens of the first text (B, T), tokens of the second with its frame (B, T), which rows are pairs (B,)."""
    second = real & (types == 1)
    framed = real & ~second
    return framed & ~_ends(framed), second, second.any(dim=1)


def _by_separators(real: Tensor, is_separator: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_by_types`; an empty second text leaves its closing separator in the first run."""
    separators = real & is_separator
    seen = separators.cumsum(dim=1) > 0
    behind_run = (seen & real & ~separators).cumsum(dim=1) > 0
    return real & ~seen & ~_ends(real), real & behind_run, separators.sum(dim=1) >= 2


def _ends(member: Tensor) -> Tensor:
    """(B, T) bool: the first and the last true position of each row."""
    before = member.cumsum(dim=1)
    return member & ((before == 1) | (before == before[:, -1:]))


def _pack(ids: Tensor, content: Tensor, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """Frame the `content` (2B, T) of each sequence and pad on the right."""
    lengths = content.sum(dim=1)
    width = int(lengths.max()) + 2
    packed = ids.new_full((len(content), width), special.pad)
    rows, columns = content.nonzero(as_tuple=True)
    packed[rows, content.cumsum(dim=1)[rows, columns]] = ids.repeat(2, 1)[rows, columns]
    packed[:, 0] = special.cls
    packed[torch.arange(len(content), device=ids.device), lengths + 1] = special.separator
    positions = torch.arange(width, device=ids.device)
    return packed, (positions < lengths.unsqueeze(1) + 2).to(ids.dtype)
