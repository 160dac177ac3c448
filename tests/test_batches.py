"""The order of rows: a function of seed and epoch, the same for any number of processes and accumulation steps."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest

from nlptrain.data.batches import RankBatches, token_batches

LENGTHS = np.random.default_rng(0).integers(4, 60, size=203).tolist()


CLASSES = np.random.default_rng(1).choice(3, size=203, p=[0.7, 0.25, 0.05]).tolist()


def batches(rank: int = 0, epoch: int = 0, lengths: list[int] = LENGTHS, **settings: Any) -> list[list[int]]:
    sampler = RankBatches(lengths, rank=rank, **{"batch_size": 8, **settings})
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def windows(
    processes: int,
    accumulation: int,
    batch_size: int,
    lengths: list[int] = LENGTHS,
    classes: list[int] | None = None,
) -> list[Counter[int]]:
    division = {"processes": processes, "accumulation": accumulation, "batch_size": batch_size, "padding_index": -1}
    ranks = [batches(r, 3, lengths, classes=classes, **division) for r in range(processes)]
    assert len({len(found) for found in ranks}) == 1
    steps = [list(zip(*ranks, strict=True))[i : i + accumulation] for i in range(0, len(ranks[0]), accumulation)]
    return [Counter(row for row in chain(*chain(*step)) if row != -1) for step in steps]


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_every_row_once_an_epoch(strategy: str) -> None:
    assert Counter(chain(*batches(strategy=strategy))) == Counter(range(len(LENGTHS)))


@pytest.mark.parametrize("rows", [203, 201, 200, 33, 3])
@pytest.mark.parametrize(("processes", "accumulation", "size"), [(2, 1, 16), (1, 4, 8), (2, 4, 4), (4, 2, 4)])
def test_an_optimizer_step_sees_the_same_rows_however_it_is_divided(
    rows: int, processes: int, accumulation: int, size: int
) -> None:
    for classes in (None, CLASSES[:rows]):
        whole = windows(1, 1, 32, LENGTHS[:rows], classes)
        assert windows(processes, accumulation, size, LENGTHS[:rows], classes) == whole


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_oversampling_draws_every_class_equally_often_and_every_row(strategy: str) -> None:
    rows = Counter(chain(*batches(strategy=strategy, classes=CLASSES)))
    drawn: Counter[int] = Counter()
    for row, times in rows.items():
        drawn[CLASSES[row]] += times
    assert set(drawn.values()) == {max(Counter(CLASSES).values())}
    assert rows.keys() == set(range(len(CLASSES)))
    for one in range(3):
        times = [rows[row] for row, found in enumerate(CLASSES) if found == one]
        assert max(times) - min(times) <= 1


def test_oversampling_repeats_other_rows_in_the_next_epoch() -> None:
    first, second = (Counter(chain(*batches(epoch=epoch, classes=CLASSES))) for epoch in (0, 1))
    assert first != second
    assert first == Counter(chain(*batches(epoch=0, classes=CLASSES, strategy="random")))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert batches(epoch=1) == batches(epoch=1)
    assert batches(epoch=1) != batches(epoch=2)
    assert batches(seed=1) != batches(seed=2)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_the_padding_share_is_that_of_the_padded_batches(strategy: str, multiple: int) -> None:
    settings = {"batch_size": 8, "processes": 2, "padding_index": len(LENGTHS), "multiple": multiple}
    found = RankBatches(LENGTHS, strategy=strategy, **settings)
    lengths = [[LENGTHS[row] for row in batch] for batch in found if batch != [len(LENGTHS)]]
    padding = sum(-(-max(batch) // multiple) * multiple - length for batch in lengths for length in batch)
    assert found.padding_share == pytest.approx(padding / (padding + sum(map(sum, lengths))))


def test_grouping_by_length_saves_padding() -> None:
    def padded(strategy: str) -> int:
        return sum(len(b) * max(LENGTHS[i] for i in b) for b in batches(strategy=strategy))

    assert padded("group_by_length") < 1.1 * sum(LENGTHS) < padded("random")


@pytest.mark.parametrize("budget", [1, 50, 300, 10**6])
def test_token_batches_hold_every_row_once_within_the_budget(budget: int) -> None:
    lengths = np.array([*LENGTHS, 0])
    found = token_batches(lengths, budget)
    assert sorted(chain(*found)) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in found)
    # a row that would have fitted into the batch before it was not left out
    assert all((len(a) + 1) * lengths[a].max() > budget for a in found[:-1])
    widths = [lengths[batch] for batch in found]
    assert np.array_equal(np.concatenate(widths), np.sort(lengths)[::-1])
