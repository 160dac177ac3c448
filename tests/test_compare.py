"""Comparisons: of synthetic predictions whose difference is known, and of run folders as users have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nlptrain.comparison import ROWS, check_same_rows, differences, mcnemar, seed_test
from nlptrain.errors import DataError
from nlptrain.metrics import bootstrap, weighted
from nlptrain.predictions import Predictions, digest
from nlptrain.results import RunResult
from tests.command_line import Done
from tests.test_results import RECORD

N = 2000


def predictions(right: Any, labels: Any) -> Predictions:
    """Of two classes, right where `right` is true."""
    ids = np.where(right, labels, 1 - labels)
    lines = np.arange(len(labels)) + 2
    return Predictions(lines, tuple(digest([str(line)]) for line in lines), np.asarray(labels), np.eye(2)[ids] * 2)


def runs(
    gain: float, seeds: int = 5, rows: int = N, seed: int = 0, seed_sd: float = 0.0
) -> list[dict[int, Predictions]]:
    """Two variants that agree on most rows; the second is right on `gain` more of them, give or take `seed_sd`."""
    rng = np.random.default_rng(seed)
    labels, easiness = rng.integers(0, 2, rows), rng.normal(size=rows)
    found: list[dict[int, Predictions]] = [{}, {}]
    for number in range(seeds):
        for side, share in enumerate((0.90, 0.90 + gain)):
            level = stats.norm.ppf(share) * np.sqrt(1 + 0.3**2) + rng.normal() * seed_sd
            found[side][number] = predictions(easiness + 0.3 * rng.normal(size=rows) + level > 0, labels)
    return found


def accuracy(a: Any, b: Any) -> Any:
    (found,) = differences("classification", a, b, metrics=["accuracy"])
    return found


def test_two_points_over_five_seeds_are_told_apart_and_none_are_not() -> None:
    found = accuracy(*runs(0.02))
    assert found.shown_better == "b"
    assert found.value == pytest.approx(0.02, abs=0.006)
    assert accuracy(*runs(0.0)).shown_better is None
    assert accuracy(*runs(0.02)[::-1]).shown_better == "a"


def test_a_seed_that_happens_to_be_good_is_no_better_variant() -> None:
    # seeds alone move the score by about 2 points, so three of them show nothing that the rows seem to show
    a, b = runs(0.0, seeds=3, seed_sd=0.15, seed=4)
    found = accuracy(a, b)
    rows_only = bootstrap.distribution(weighted.classification(b[0].outputs, b[0].labels), N, 200)["accuracy"].std()
    assert found.shown_better is None
    assert found.high - found.low > 4 * rows_only


def test_an_error_is_better_when_it_is_lower() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=300)
    noise = rng.normal(size=(2, 300))
    texts = tuple(map(str, range(300)))
    good, bad = (
        {1: Predictions(np.arange(300), texts, labels, (labels + scale * noise[0] + 0.1 * noise[1])[:, None])}
        for scale in (0.2, 0.8)
    )
    found = {one.metric: one for one in differences("regression", bad, good)}
    assert {found[name].shown_better for name in ("pearson", "spearman", "mse", "nmse", "mae", "r2")} == {"b"}
    assert found["nmse"].value < 0 < found["r2"].value
    assert found["nmse"].value == pytest.approx(-found["r2"].value)


def test_of_one_seed_the_interval_is_the_paired_bootstrap_of_scipy() -> None:
    a, b = runs(0.03, seeds=1, rows=200)
    right = [rows[0].outputs.argmax(axis=1) == rows[0].labels for rows in (a, b)]
    expected = stats.bootstrap(
        right, lambda x, y, axis: y.mean(axis) - x.mean(axis), paired=True, n_resamples=2000, rng=0
    ).confidence_interval
    found = accuracy(a, b)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.method == ROWS


def test_of_several_seeds_both_variances_are_those_of_the_textbook() -> None:
    a, b = runs(0.01, seeds=4, rows=500, seed_sd=0.05)
    d = np.stack([(b[s].outputs.argmax(1) == b[s].labels) * 1.0 - (a[s].outputs.argmax(1) == a[s].labels) for s in a])
    over_rows, over_seeds = d.mean(axis=0).var(ddof=1) / 500, d.mean(axis=1).var(ddof=1) / 4
    freedom = (over_rows + over_seeds) ** 2 / (over_rows**2 / 499 + over_seeds**2 / 3)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(over_rows + over_seeds)
    found = accuracy(a, b)
    assert found.value == pytest.approx(d.mean())
    # 2000 resamples know a variance to a few percent
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.05, 0.2])
def test_intervals_over_seeds_and_rows_cover_the_truth(seed_sd: float) -> None:
    inside = []
    truth = stats.norm.cdf(stats.norm.ppf(0.92) * np.sqrt(1.09) / np.sqrt(1.09 + seed_sd**2)) - stats.norm.cdf(
        stats.norm.ppf(0.90) * np.sqrt(1.09) / np.sqrt(1.09 + seed_sd**2)
    )
    for number in range(300):
        a, b = runs(0.02, seeds=5, rows=400, seed=number, seed_sd=seed_sd)
        (found,) = differences("classification", a, b, metrics=["accuracy"], resamples=300)
        inside.append(found.low <= truth <= found.high)
    # conservative where seeds hardly matter, because their noise is counted with the rows and with the seeds
    assert 0.93 <= np.mean(inside) <= 0.995


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a, b = (rows[0] for rows in runs(0.02, seeds=1))
    found = mcnemar(a, b)
    only_a, only_b = found["only_a_right"], found["only_b_right"]
    both = only_a + only_b
    # both tails of a fair coin, summed by hand
    tail = stats.binom.cdf(min(only_a, only_b), both, 0.5)
    assert found["p"] == pytest.approx(min(1.0, 2 * tail))
    assert only_b - only_a == ((b.outputs.argmax(1) == b.labels).sum() - (a.outputs.argmax(1) == a.labels).sum())
    assert mcnemar(a, a) == {"only_a_right": 0, "only_b_right": 0, "p": 1.0}


def test_the_test_over_seeds_is_that_of_scipy() -> None:
    a, b = [0.90, 0.91, 0.89], [0.92, 0.93, 0.90]
    expected = stats.ttest_rel(b, a)
    found = seed_test([y - x for x, y in zip(a, b, strict=True)])
    assert found is not None
    assert (found["t"], found["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert seed_test([0.1]) is seed_test([0.1, None]) is seed_test([0.1, 0.1]) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"lines": np.arange(3), "texts": ("a", "b", "d")}, "row 3 is line 4 of A's source and line 2 of B's"),
        ({"labels": np.array([0, 0, 1])}, "line 3 has the label 1 in A and 0 in B"),
        ({"outputs": np.zeros((3, 3))}, "A has 2 outputs, B has 3"),
    ],
)
def test_other_rows_are_refused_with_the_first_that_differs(changed: dict[str, Any], expected: str) -> None:
    whole = {"lines": np.arange(2, 5), "texts": ("a", "b", "c"), "labels": np.array([0, 1, 1]), "outputs": np.eye(3, 2)}
    with pytest.raises(DataError, match=expected):
        check_same_rows(Predictions(**whole), Predictions(**{**whole, **changed}), ("A", "B"))


def write_runs(folder: Path, seeds: dict[int, Predictions], **changed: Any) -> Path:
    """Run folders as `train` leaves them, without models."""
    for seed, rows in seeds.items():
        run = folder / f"seed-{seed}"
        rows.write(run / "predictions" / "test.jsonl")
        (run / "config.yaml").write_text("task: sst2\n")
        record = {"task": "sst2", "kind": "classification", "seed": seed, "metrics": {"test": {"accuracy": 0.9}}}
        record |= {"undefined": {}, "rows": {"test": len(rows)}, "intervals": {}, "collapsed": {}, "baselines": {}}
        RunResult(**{**RECORD, **record, **changed}).write(run / "results.json")
    return folder


def test_folders_of_seeds_get_one_plain_verdict(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    a, b = (write_runs(tmp_path / name, seeds) for name, seeds in zip("ab", runs(0.03, rows=600), strict=True))
    done = nlptrain("compare", a, b, a)
    assert done.code == 0, done.err
    assert f"{b} is better: accuracy of {b} is 0.0" in done.out
    assert "5 seeds" in done.out
    assert "2 comparisons: each interval is of its own" in done.out
    found = json.loads(nlptrain("compare", a, b, a, "--json").out)["comparisons"]
    assert found[0]["seed_test"]["p"] < 0.01
    assert found[1]["verdict"].startswith("no difference shown: accuracy")
    assert found[1]["differences"][0]["value"] == 0


def test_a_run_is_not_different_from_itself(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    run = write_runs(tmp_path, runs(0.02, seeds=1)[0]) / "seed-0"
    found = json.loads(nlptrain("compare", run, run, "--json").out)
    assert found["comparisons"][0]["verdict"].startswith("no difference shown")
    assert {(row["low"], row["high"]) for row in found["comparisons"][0]["differences"]} == {(0, 0)}


def test_a_collapsed_run_is_named_and_only_common_seeds_are_paired(
    nlptrain: Callable[..., Done], tmp_path: Path
) -> None:
    good, bad = runs(0.02, seeds=3)
    a = write_runs(tmp_path / "a", good)
    b = write_runs(tmp_path / "b", {0: bad[0], 7: bad[1]}, collapsed={"test": "one class"})
    done = nlptrain("compare", a, b)
    assert f"collapsed: {b}, seed 0: one class" in done.out
    assert f"{b}: without seeds [1, 2, 7], which only one side has" in done.out


@pytest.mark.parametrize(
    ("b", "code", "expected"),
    [
        ("shorter", 3, "not the same rows"),
        ("nothing", 4, "expected a finished run"),
        ("other seeds", 4, "no seed in common"),
        ("twice", 4, "expected runs of one task with different seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    nlptrain: Callable[..., Done], tmp_path: Path, b: str, code: int, expected: str
) -> None:
    seeds = runs(0.02, seeds=2, rows=50)[0]
    a = write_runs(tmp_path / "a", seeds)
    other = tmp_path / b
    other.mkdir()
    if b == "shorter":
        write_runs(other, runs(0.02, seeds=2, rows=40)[0])
    if b == "other seeds":
        write_runs(other, {seed + 10: rows for seed, rows in seeds.items()})
    if b == "twice":
        write_runs(other, seeds, seed=3)
    done = nlptrain("compare", a, other)
    assert (done.code, expected in done.err) == (code, True)
    assert nlptrain("compare", a).code == 2
    assert nlptrain("compare", a, a, "--split", "train").code == 2
