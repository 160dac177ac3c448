"""Classes of unequal size: weights for the loss, or an epoch in which every class comes equally often."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlptrain.errors import ConfigError


def class_weights(wanted: str | Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """How many times a training row of each class counts, scaled to a mean of 1 over the rows.

    Args:
        wanted: the ratios by label; balanced: n / (K * count), which needs no scaling.
        counts: rows of each class in an epoch, all of them by label.

    Raises:
        ConfigError: unknown or missing labels, or a class without rows that is to be balanced.
    """
    if isinstance(wanted, str):
        if empty := [name for name, count in counts.items() if not count]:
            problem = f"no training row has the label {empty[0]!r}, so it has no balanced weight"
            raise ConfigError("LOSS", f"loss.class_weights: {problem}; give a weight for each label")
        wanted = {name: 1 / count for name, count in counts.items()}
    if problems := [*_unknown(wanted, counts), *_lacking(wanted, counts)]:
        raise ConfigError("LOSS", [f"loss.class_weights: {problem}" for problem in problems])
    mean = sum(wanted[name] * count for name, count in counts.items()) / sum(counts.values())
    return {name: wanted[name] / mean for name in counts}


def _unknown(wanted: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    problems = []
    for name in (name for name in wanted if name not in counts):
        near = get_close_matches(name, counts, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(map(repr, counts))}"
        problems.append(f"unknown label {name!r}; {known}")
    return problems


def _lacking(wanted: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    return [f"no weight for the label {name!r}; 1 is that of an ordinary row" for name in counts if name not in wanted]


def epoch_rows(classes: ArrayLike) -> int:
    """Rows of an epoch of `oversampled`."""
    counts = np.unique_counts(classes).counts
    return int(counts.max() * len(counts))


def oversampled(classes: NDArray[Any], generator: np.random.Generator) -> NDArray[np.int64]:
    """Sorted row numbers with every class as often as the largest: all its rows equally often, give or take one.

    Args:
        classes: class id of each row.
        generator: draws the rows that come once more than the others.
    """
    members = [np.flatnonzero(classes == one) for one in np.unique(classes)]
    size = max(map(len, members))
    parts = [
        part
        for rows in members
        for part in (np.tile(rows, size // len(rows)), generator.choice(rows, size % len(rows), replace=False))
    ]
    return np.sort(np.concatenate(parts))
