"""A bound on the norms of the rows of an embedding table."""

import torch
from torch import nn


@torch.no_grad()
def project_rows(table: nn.Embedding, norm: float, *, shrink_only: bool) -> int:
    """Scale rows to Euclidean norm `norm`, in place, and return how many.

    Touched are only rows whose norm is off by more than a rounding; never the padding row, nor a row of zeros, which
    has no direction.

    Args:
        table: whole, not sharded.
        norm: above 0.
        shrink_only: whether shorter rows stay as they are.
    """
    weight, rounding = table.weight, 8 * torch.finfo(table.weight.dtype).eps
    norms = torch.linalg.vector_norm(weight, dim=1)
    wrong = norms > norm * (1 + rounding)
    if not shrink_only:
        wrong |= (norms < norm * (1 - rounding)) & (norms > 0)
    if table.padding_idx is not None:
        wrong[table.padding_idx] = False
    rows = wrong.nonzero().squeeze(1)
    weight[rows] = weight[rows] * (norm / norms[rows]).unsqueeze(1)
    return len(rows)
