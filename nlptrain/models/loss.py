"""What training lowers: the table of losses, and `Loss`, the mean of one over the rows of an optimizer step."""

import inspect
import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nlptrain.tasks import IGNORED


def counted(labels: Tensor) -> Tensor:
    """Which labels count: class ids other than -100, scores that are numbers."""
    return ~labels.isnan() if labels.is_floating_point() else labels.ne(IGNORED)


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy in nats of logits (N, C) and class ids (N,).

    `label_smoothing` is the share of the target spread evenly over all classes (Szegedy et al. 2016,
    arXiv:1512.00567, section 7), in [0, 1).
    """
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy in nats of two logits (N, 2), on their difference, and class ids (N,).

    That is the cross entropy of two classes. One sigmoid for each of more classes is refused: a served model turns
    its logits into probabilities by softmax, and such logits would come out as other ones than they were trained for.
    """
    if logits.shape[-1] != 2:
        raise ValueError(
            f"bce is for two classes, found {logits.shape[-1]}: probabilities are served by softmax over the classes, "
            "not by one sigmoid each; use cross_entropy"
        )
    difference = logits[:, 1] - logits[:, 0]
    return functional.binary_cross_entropy_with_logits(difference, labels.to(difference.dtype), reduction="none")


def mse(logits: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
    """Squared error of scores (N, 1) against (N,), in units of `scale`."""
    return (_error(logits, labels) / scale).square()


def huber(logits: Tensor, labels: Tensor, *, scale: float = 1.0, delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, linear beyond (Huber 1964), of scores (N, 1) in units of `scale`."""
    error = _error(logits, labels) / scale
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def cosent(logits: Tensor, labels: Tensor, *, scale: float = 1.0, inverse_temperature: float = 20.0) -> Tensor:
    """``log(1 + sum of exp(inverse_temperature * (cos_j - cos_i)) over the pairs with label_i > label_j)``.

    The ranking loss of Huang et al. 2024, CoSENT, doi:10.1109/TASLP.2024.3402087. It belongs to all N rows together,
    and each row stands for all of it: micro-batches are thus weighted by their rows, and no pair is made across them.
    Takes N log N time, the whole split of an evaluation included.

    Args:
        logits: (N, 1) any line of the cosine, of slope `scale`.
        labels: (N,) scores, of which only the order matters.
        scale: score per unit of cosine, above 0.
        inverse_temperature: lambda, above 0.
    """
    falling, order = labels.sort(descending=True)
    cosines = inverse_temperature / scale * logits.squeeze(-1)[order]
    # entry k: log of the sum of exp(-cosine) over the k highest rows
    sums = torch.cat([cosines.new_full((1,), -math.inf), (-cosines).logcumsumexp(0)])
    higher = torch.searchsorted(-falling, -falling)
    return torch.cat([cosines.new_zeros(1), cosines + sums[higher]]).logsumexp(0).expand(len(labels))


# a new loss: one function from logits (N, C) or scores (N, 1) to (N,), and one entry
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": bce,
    "mse": mse,
    "huber": huber,
    # the squared error of the cosine itself, where `scale` is the score per unit of cosine
    "cosine_mse": mse,
    "cosent": cosent,
}


class Loss:
    """One of `LOSSES` as a mean over the rows of an optimizer step: ``Trainer(..., compute_loss_func=Loss("huber"))``.

    A step's loss is the sum of ``weight * loss`` over its rows, divided by their number, over all micro-batches and
    processes. torch's weighted cross entropy divides by the weights in the batch instead, so that a batch of one class
    would not feel them; with weights whose mean over the training rows is 1, the loss here is, for any batch, an
    unbiased estimate of what torch's is on all rows at once.

    Args:
        name: a key of `LOSSES`.
        class_weights: how many times a row of each class counts, in the order of the class ids; above 0.
        settings: those of the loss: label_smoothing, delta, scale, inverse_temperature.

    Raises:
        ValueError: an unknown loss or setting, or a value out of range.
    """

    def __init__(self, name: str, *, class_weights: Sequence[float] | None = None, **settings: float) -> None:
        if name not in LOSSES:
            near = get_close_matches(name, LOSSES, n=1)
            raise ValueError(f"unknown loss {name!r}; {f'did you mean {near[0]!r}' if near else 'one of'}: {[*LOSSES]}")
        _check(name, settings, class_weights)
        self.name = name
        self.class_weights = None if class_weights is None else tuple(class_weights)
        self.settings = settings

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The part of one micro-batch in the loss of its step.

        Args:
            outputs: with ``logits`` (..., C); of a regression (..., 1).
            labels: (...) class ids or scores; -100 or NaN: the row does not count.
            num_items_in_batch: rows of the whole step; None: those of this micro-batch.
        """
        logits, keep = outputs["logits"], counted(labels)
        _check_shapes(logits, labels)
        total = self.rows(logits[keep], labels[keep]).sum()
        mean: Tensor = total / (keep.sum() if num_items_in_batch is None else num_items_in_batch)
        return mean

    def rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted loss of each row, (N,), at least in float32, of logits (N, C) and labels (N,)."""
        _check_shapes(logits, labels)
        losses = LOSSES[self.name](_precise(logits), _precise(labels), **self.settings)
        return losses if self.class_weights is None else losses * losses.new_tensor(self.class_weights)[labels]

    def evaluation(self, logits: Tensor, labels: Tensor) -> float:
        """Mean over the rows that count, of logits (..., C) and labels (...): without class weights and smoothing."""
        plain = Loss(self.name)
        plain.settings = {key: value for key, value in self.settings.items() if key != "label_smoothing"}
        return float(plain({"logits": logits}, labels))


def usual(scale: float | None) -> Loss:
    """Cross entropy for a classification (`scale` None); else the squared error in units of `scale`."""
    return Loss("cross_entropy") if scale is None else Loss("mse", scale=scale)


def _check(name: str, settings: dict[str, float], class_weights: Sequence[float] | None) -> None:
    known = [p.name for p in inspect.signature(LOSSES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(f"loss {name} has no setting {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    if class_weights is not None and "scale" in known:
        raise ValueError(f"class_weights are for a classification, not for {name}; leave them out")
    for key, value in settings.items():
        if key == "label_smoothing" and not 0 <= value < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), found {value}")
        if key != "label_smoothing" and not 0 < value < math.inf:
            raise ValueError(f"{key} must be a finite number above 0, found {value}")
    if wrong := [weight for weight in class_weights or () if not 0 < weight < math.inf]:
        raise ValueError(f"class_weights must be finite numbers above 0, found {wrong[0]}")


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    if labels.shape != logits.shape[:-1]:
        found = f"logits {tuple(logits.shape)}, labels {tuple(labels.shape)}"
        raise ValueError(f"expected one label per row, found {found}")


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32)) if values.is_floating_point() else values


def _error(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1:] != torch.Size([1]):
        raise ValueError(f"a regression has scores of shape (N, 1), found {tuple(logits.shape)}")
    return logits.squeeze(-1) - labels
