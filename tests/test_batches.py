"""The order of rows: a function of seed and epoch, the same for any number of processes and accumulation steps."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest

from nlptrain.data.batches import RankBatches

LENGTHS = np.random.default_rng(0).integers(4, 60, size=203).tolist()


def batches(rank: int = 0, epoch: int = 0, lengths: list[int] = LENGTHS, **settings: Any) -> list[list[int]]:
    sampler = RankBatches(lengths, rank=rank, **{"batch_size": 8, **settings})
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def windows(processes: int, accumulation: int, batch_size: int, lengths: list[int] = LENGTHS) -> list[set[int]]:
    ranks = [
        batches(r, 3, lengths, processes=processes, accumulation=accumulation, batch_size=batch_size, padding_index=-1)
        for r in range(processes)
    ]
    assert len({len(found) for found in ranks}) == 1
    steps = [list(zip(*ranks, strict=True))[i : i + accumulation] for i in range(0, len(ranks[0]), accumulation)]
    return [set(chain(*chain(*step))) - {-1} for step in steps]


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_every_row_once_an_epoch(strategy: str) -> None:
    assert Counter(chain(*batches(strategy=strategy))) == Counter(range(len(LENGTHS)))


@pytest.mark.parametrize("rows", [203, 201, 200, 33, 3])
@pytest.mark.parametrize(("processes", "accumulation", "size"), [(2, 1, 16), (1, 4, 8), (2, 4, 4), (4, 2, 4)])
def test_an_optimizer_step_sees_the_same_rows_however_it_is_divided(
    rows: int, processes: int, accumulation: int, size: int
) -> None:
    assert windows(processes, accumulation, size, LENGTHS[:rows]) == windows(1, 1, 32, LENGTHS[:rows])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert batches(epoch=1) == batches(epoch=1)
    assert batches(epoch=1) != batches(epoch=2)
    assert batches(seed=1) != batches(seed=2)


def test_grouping_by_length_saves_padding() -> None:
    def padded(strategy: str) -> int:
        return sum(len(b) * max(LENGTHS[i] for i in b) for b in batches(strategy=strategy))

    assert padded("group_by_length") < 1.1 * sum(LENGTHS) < padded("random")
