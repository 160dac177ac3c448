"""From one embedding, or the two of a pair, to logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_STD = 0.02


def pair_features(u: Tensor, v: Tensor) -> Tensor:
    """[u, v, |u - v|, u * v] of two (B, H) embeddings: (B, 4H) (Conneau et al. 2017, arXiv:1705.02364, section 3.1)."""
    return torch.cat([u, v, (u - v).abs(), u * v], dim=-1)


class LinearHead(nn.Module):
    """Dropout and a linear layer on the embedding, or on the `pair_features` of two.

    Args:
        hidden_size: H, size of an embedding.
        texts: 1 or 2, number of embeddings per row.
        outputs: number of logits C.
        dropout: probability in [0, 1).
    """

    def __init__(self, hidden_size: int, texts: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size if texts == 1 else 4 * hidden_size, outputs)
        nn.init.normal_(self.linear.weight, std=INITIAL_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, *embeddings: Tensor) -> Tensor:
        """(B, C) logits of one or two (B, H) embeddings."""
        features = embeddings[0] if len(embeddings) == 1 else pair_features(*embeddings)
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class CosineHead(nn.Module):
    """``weight * cosine(u, v) + bias`` with two learnt scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def span(self, low: float, high: float) -> None:
        """Map cosine 0 to `low` and cosine 1 to `high`: the sentence encoders in use seldom go below 0."""
        self.weight.fill_(high - low)
        self.bias.fill_(low)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(B, 1) scores of two (B, H) embeddings."""
        return (self.weight * functional.cosine_similarity(u, v) + self.bias).unsqueeze(-1)
