"""From one embedding, or the two of a pair, to logits; and from the one logit of a sigmoid to what it stands for."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_STD = 0.02
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def pair_features(u: Tensor, v: Tensor) -> Tensor:
    """[u, v, |u - v|, u * v] of two (B, H) embeddings: (B, 4H) (Conneau et al. 2017, arXiv:1705.02364, section 3.1)."""
    return torch.cat([u, v, (u - v).abs(), u * v], dim=-1)


def feature_size(embedding: int, texts: int) -> int:
    """Inputs of a head: the embedding's own size, or that of the `pair_features` of two."""
    return embedding if texts == 1 else 4 * embedding


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
        self.linear = _output_layer(feature_size(hidden_size, texts), outputs)

    def forward(self, *embeddings: Tensor) -> Tensor:
        """(B, C) logits of one or two (B, H) embeddings."""
        features = embeddings[0] if len(embeddings) == 1 else pair_features(*embeddings)
        logits: Tensor = self.linear(self.dropout(features))
        return logits

    @property
    def bias(self) -> Tensor:
        """(C,), what the logits start from."""
        return self.linear.bias


class MLPHead(nn.Module):
    """``f(x) = W_out a_n + b_out (+ W_skip x)`` with ``a_i = phi(W_i a_(i-1) + b_i)``, ``a_0 = x``.

    x is the embedding, or the `pair_features` of two. Dropout is applied to x, once for both ways, and to every a_i.
    The parameters are ``layers.<i>``, ``output`` and ``skip`` (without a bias of its own). Hidden layers start with
    the normal distribution of Glorot and Bengio (2010), what leads to the logits with a std of 0.02, biases at 0.

    Args:
        hidden_size: H, size of an embedding.
        texts: 1 or 2, number of embeddings per row.
        outputs: number of logits C.
        dropout: probability in [0, 1).
        widths: outputs of each hidden layer, from the embedding to the logits; at least one, each at least 1.
        activation: phi, one of `ACTIVATIONS`; leaky_relu has slope 0.01 below 0.
        skip: whether the embedding also leads to the logits directly.
    """

    def __init__(
        self,
        hidden_size: int,
        texts: int,
        outputs: int,
        dropout: float,
        *,
        widths: Sequence[int],
        activation: str = "leaky_relu",
        skip: bool = False,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or activation not in ACTIVATIONS:
            raise ValueError(
                f"expected widths of at least 1 and an activation of {', '.join(ACTIVATIONS)}, "
                f"found {list(widths)} and {activation!r}"
            )
        size = feature_size(hidden_size, texts)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation
        layers = [nn.Linear(*pair) for pair in zip([size, *widths], widths, strict=False)]
        for layer in layers:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.output = _output_layer(widths[-1], outputs)
        self.skip = _output_layer(size, outputs, bias=False) if skip else None

    def forward(self, *embeddings: Tensor) -> Tensor:
        """(B, C) logits of one or two (B, H) embeddings."""
        features = self.dropout(embeddings[0] if len(embeddings) == 1 else pair_features(*embeddings))
        inner, phi = features, ACTIVATIONS[self.activation]
        for layer in self.layers:
            inner = self.dropout(phi(layer(inner)))
        logits: Tensor = self.output(inner)
        return logits if self.skip is None else logits + self.skip(features)

    @property
    def bias(self) -> Tensor:
        """(C,), what the logits start from."""
        return self.output.bias


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


def two_logits(logit: Tensor) -> Tensor:
    """(B, 1) to (B, 2): 0 and z, whose softmax is ``[1 - sigmoid(z), sigmoid(z)]`` and cross entropy the binary one."""
    return torch.cat([torch.zeros_like(logit), logit], dim=-1)


def bounded(logit: Tensor, low: float, high: float) -> Tensor:
    """``low + (high - low) * sigmoid(z)``, never outside by a rounding."""
    return torch.lerp(logit.new_tensor(low), logit.new_tensor(high), logit.sigmoid())


def logit_of(score: float, low: float, high: float) -> float:
    """The z of which `bounded` gives `score`, strictly between low and high."""
    return math.log((score - low) / (high - score))


def _output_layer(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=INITIAL_STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
