"""A validation split out of the training rows."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlptrain.errors import DataError

DECILES = 10
Keys = Sequence[str] | NDArray[np.int64]


def stratified(
    keys: Keys,
    targets: Sequence[float],
    *,
    names: Sequence[str] | None,
    fraction: float,
    seed: int,
    origin: str,
    remedy: str = "give data.validation, more rows or another data.validation_fraction",
) -> tuple[list[int], list[int]]:
    """Split rows into training and validation, the same way for the same rows and seed.

    Rows of one key stay together. Keys are drawn by stratum: the class, or the tenth of the sorted scores; a key whose
    rows differ counts as its first row does.

    Args:
        keys: what makes texts the same, see `nlptrain.data.keys`; (n,).
        targets: class ids, or scores; (n,).
        names: names of the classes; None: the targets are scores.
        fraction: share of the distinct keys that is held out; 0 to 1, exclusive.
        seed: of the draw.
        origin: what to call the rows in messages.
        remedy: what to do where there are too few.

    Returns:
        Training rows and validation rows, both ascending.

    Raises:
        DataError: too few distinct texts to have every class, or two scores, on both sides.
    """
    distinct, first, group = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    values = np.asarray(targets)[first]
    held = ceil(len(distinct) * fraction)
    needed = max(len(set(values.tolist())), 2) if names else 2
    too_few = _rare(values, names) if names else ""
    if too_few or min(held, len(distinct) - held) < needed:
        problem = _too_few(origin, len(distinct), needed, fraction, too_few, names is not None)
        raise DataError("DATA_SPLIT", f"{problem}; {remedy}")
    # imported late: most data come with a validation split
    from sklearn.model_selection import train_test_split

    strata = values if names else _deciles(values, min(held, len(distinct) - held))
    _, chosen = train_test_split(np.arange(len(distinct)), test_size=held, random_state=seed, stratify=strata)
    inside = np.isin(group, chosen)
    return np.flatnonzero(~inside).tolist(), np.flatnonzero(inside).tolist()


def tagged(
    keys: Keys,
    targets: Sequence[Sequence[int]],
    *,
    names: Sequence[str] | None,
    fraction: float,
    seed: int,
    origin: str,
) -> tuple[list[int], list[int]]:
    """As `stratified`, of rows that have several classes each: drawn at random, but every class stays in training.

    A row that alone holds a class is never held out, so that the held-out share may be smaller than asked for.
    """
    distinct, group = np.unique(np.asarray(keys), return_inverse=True)
    classes: list[set[int]] = [set() for _ in distinct]
    for key, target in zip(group.tolist(), targets, strict=True):
        classes[key] |= set(target)
    left, held = Counter(chain.from_iterable(classes)), ceil(len(distinct) * fraction)
    chosen: list[int] = []
    for key in np.random.default_rng(seed).permutation(len(distinct)).tolist():
        if len(chosen) < held and all(left[number] > 1 for number in classes[key]):
            chosen.append(key)
            left.subtract(classes[key])
    if not chosen:
        rare = ", ".join((names or ())[number] for number, count in sorted(left.items()) if count < 2)
        problem = f"{origin}: no row can be held out: every one holds a tag that no other has, of {rare}"
        raise DataError("DATA_SPLIT", f"{problem}; give data.validation or more rows")
    inside = np.isin(group, chosen)
    return np.flatnonzero(~inside).tolist(), np.flatnonzero(inside).tolist()


def dealt(keys: Keys, targets: Sequence[float], *, names: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Deal rows out to parts of equal size and like targets, the same way for the same rows and seed.

    Rows of one key stay together.

    Args:
        keys: as of `stratified`, (n,).
        targets: class ids, or scores; (n,).
        names: of the parts.
        seed: of the draw.

    Returns:
        Rows of each part, ascending.
    """
    distinct, first, group = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    # by target, and at random among equal ones
    order = np.lexsort((np.random.default_rng(seed).random(len(distinct)), np.asarray(targets)[first]))
    place = np.empty(len(distinct), dtype=np.int64)
    place[order] = np.arange(len(distinct)) % max(len(names), 1)
    return {name: np.flatnonzero(place[group] == number).tolist() for number, name in enumerate(names)}


def _deciles(scores: NDArray[Any], smaller: int) -> NDArray[Any]:
    """Equal shares of the scores in ascending order, at most one for every two rows of the smaller side."""
    strata = max(1, min(DECILES, smaller // 2))
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    return ranks * strata // len(scores)


def _rare(classes: NDArray[Any], names: Sequence[str]) -> str:
    """The classes that have a single distinct text."""
    found, counts = np.unique(classes, return_counts=True)
    return ", ".join(names[int(number)] for number, count in zip(found, counts, strict=True) if count < 2)


def _too_few(origin: str, distinct: int, needed: int, fraction: float, rare: str, classes: bool) -> str:
    least = next(n for n in count(2) if min(ceil(n * fraction), n - ceil(n * fraction)) >= needed)
    share = f"about {ceil(least / needed)} for each class and never fewer than 2" if classes else "with a score each"
    found = f"{distinct} rows" + (f", and a single one for {rare}" if rare else "")
    return (
        f"{origin}: a held-out part of {fraction:g} of the training rows needs at least {least} rows with distinct "
        f"texts, {share}; found {found}"
    )
