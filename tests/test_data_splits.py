"""The held-out part: seeded, stratified, and no text on both sides."""

import numpy as np
import pytest

from nlptrain.data.splits import stratified
from nlptrain.errors import DataError

NAMES = ["a", "b", "c"]


def test_each_class_is_held_out_in_proportion() -> None:
    targets = [0] * 500 + [1] * 300 + [2] * 200
    keys = [f"text {row}" for row in range(1000)]
    kept, held = stratified(keys, targets, names=NAMES, fraction=0.1, seed=3, origin="t")
    assert np.bincount(np.asarray(targets)[held]).tolist() == [50, 30, 20]
    assert sorted(kept + held) == list(range(1000))


def test_each_decile_of_the_scores_is_held_out_in_proportion() -> None:
    scores = np.random.default_rng(0).permutation(1000) / 200
    kept, held = stratified(list(map(str, range(1000))), scores.tolist(), names=None, fraction=0.2, seed=3, origin="t")
    assert np.bincount((scores[held] * 2).astype(int)).tolist() == [20] * 10
    assert len(kept) == 800


def test_equal_texts_stay_on_one_side() -> None:
    keys = [f"text {row // 5}" for row in range(500)]
    kept, held = stratified(keys, [row // 5 % 2 for row in range(500)], names=NAMES, fraction=0.3, seed=0, origin="t")
    assert not {keys[row] for row in kept} & {keys[row] for row in held}
    assert len(held) == 150


def test_the_seed_alone_decides() -> None:
    keys, targets = list(map(str, range(200))), [row % 2 for row in range(200)]
    first, again, other = (
        stratified(keys, targets, names=NAMES, fraction=0.1, seed=seed, origin="t")[1] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_number_of_rows_asked_for_is_the_least_that_works() -> None:
    def held(rows: int) -> list[int]:
        targets = [row % 2 for row in range(rows)]
        return stratified(list(map(str, range(rows))), targets, names=NAMES, fraction=0.1, seed=0, origin="t.csv")[1]

    with pytest.raises(
        DataError, match=r"t\.csv: .* at least 11 rows .*6 for each class .*found 10 .*data\.validation"
    ):
        held(10)
    assert len(held(11)) == 2


def test_a_class_with_one_text_is_named() -> None:
    with pytest.raises(DataError, match="a single one for b; give data.validation"):
        stratified(list(map(str, range(50))), [0] * 49 + [1], names=NAMES, fraction=0.1, seed=0, origin="t")


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("rows", [40, 41, 57])
def test_scores_can_be_split_at_any_fraction(fraction: float, rows: int) -> None:
    _, held = stratified(list(map(str, range(rows))), [1.0] * rows, names=None, fraction=fraction, seed=0, origin="t")
    assert len(held) == int(np.ceil(rows * fraction))
