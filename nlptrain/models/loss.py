"""The training losses, once: the model's forward and the trainer both take their mean from here."""

import torch
from torch import Tensor
from torch.nn import functional


def per_row_loss(logits: Tensor, labels: Tensor, *, scale: float | None, label_smoothing: float = 0.0) -> Tensor:
    """Loss of every row, in float32 whatever the precision of the logits.

    Args:
        logits: classification (B, C) unnormalised log-probabilities; regression (B, 1) scores in the user's unit.
        labels: classification (B,) class ids; regression (B,) scores in the user's unit.
        scale: None for a classification; for a regression the unit of the loss, as a rule the targets' standard
            deviation, which makes the mean the MSE of the standardised scores.
        label_smoothing: classification only, in [0, 1]: the share of the target spread evenly over all classes
            (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Returns:
        (B,) float32: cross entropy in nats, or ``((logits - labels) / scale) ** 2``.

    Raises:
        ValueError: the shapes do not belong together, or a regression is to be smoothed.
    """
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected one label per row, found logits {tuple(logits.shape)}, labels {tuple(labels.shape)}"
        )
    if scale is None:
        return functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=label_smoothing)
    if label_smoothing or logits.shape[1:] != torch.Size([1]):
        raise ValueError(
            f"a regression has logits (B, 1) and no label smoothing, found {tuple(logits.shape)}, {label_smoothing}"
        )
    return ((logits.squeeze(-1).float() - labels.float()) / scale).square()
