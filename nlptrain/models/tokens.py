"""Token dropout: in training some tokens are hidden, so that no single word decides."""

from collections.abc import Collection

import torch
from torch import Tensor


def drop_tokens(input_ids: Tensor, probability: float, *, mask: int, keep: Collection[int]) -> Tensor:
    """Replace each token by the mask token with a probability (word dropout, Iyyer et al. 2015, section 3.2).

    Args:
        input_ids: (B, T).
        probability: in [0, 1).
        mask: the id that replaces.
        keep: ids that are never replaced: padding and what frames the texts.

    Returns:
        (B, T); `input_ids` itself, with no random number drawn, where the probability is 0.
    """
    if not probability:
        return input_ids
    kept = torch.isin(input_ids, torch.tensor(sorted(keep), device=input_ids.device))
    dropped = torch.rand(input_ids.shape, device=input_ids.device) < probability
    return input_ids.masked_fill(dropped & ~kept, mask)
