"""Resampled metrics are the metrics of the resampled rows, and intervals hold what they promise."""

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from nlptrain.metrics import bootstrap, functions, probabilities, weighted
from nlptrain.metrics.bootstrap import Interval, draws, intervals
from nlptrain.metrics.registry import PROBABILITY_METRICS, REPORTED

N = 60


def logits(classes: int, rows: int = N, seed: int = 0) -> tuple[Any, Any]:
    """Logits with ties, and labels that they half tell."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    # eighths, so that equal differences are equal floats
    found = (8 * rng.normal(size=(rows, classes))).round() / 8
    found[np.arange(rows), labels] += 1
    return found, labels


def scores(rows: int = N, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, rows) + 1000.0
    return (labels + rng.normal(size=rows)).round(1)[:, None], labels


def value(name: str, outputs: Any, labels: Any) -> float:
    """By the functions that are reported, which are those of scikit-learn and scipy."""
    if name in PROBABILITY_METRICS:
        return probabilities.compute(name, outputs, labels)
    ids = outputs[:, 0] if labels.dtype == np.float64 else outputs.argmax(axis=1)
    return functions.compute(name, ids, labels)


@pytest.mark.parametrize(("kind", "classes"), [("classification", 2), ("classification", 4), ("regression", 1)])
def test_a_weighted_metric_is_that_of_the_rows_drawn(kind: str, classes: int) -> None:
    outputs, labels = logits(classes) if kind == "classification" else scores()
    drawn = next(draws(N, 20))
    found = weighted.KINDS[kind](outputs, labels)(drawn)
    names = {*REPORTED[kind], *(["f1"] if classes == 2 else [])}
    assert set(found) == names
    for number, counts in enumerate(drawn.astype(int)):
        rows = np.repeat(np.arange(N), counts)
        for name in names:
            assert found[name][number] == pytest.approx(value(name, outputs[rows], labels[rows]), rel=1e-9), name


def test_metrics_of_probabilities_are_those_of_scikit_learn() -> None:
    for classes in (2, 5):
        found, labels = logits(classes)
        p = special.softmax(found, axis=1)
        ranked = p[:, 1] if classes == 2 else p
        assert probabilities.nll(found, labels) == pytest.approx(sk.log_loss(labels, p), rel=1e-12)
        assert probabilities.auroc(found, labels) == pytest.approx(
            sk.roc_auc_score(labels, ranked, multi_class="ovr", average="macro"), rel=1e-12
        )
        # Guo et al., bin by bin
        confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
        expected = 0.0
        for low in np.arange(15) / 15:
            inside = (confidence > low) & (confidence <= low + 1 / 15)
            expected += inside.mean() * abs(confidence[inside].mean() - hit[inside].mean()) if inside.any() else 0.0
        assert probabilities.ece(found, labels) == pytest.approx(expected, rel=1e-12)
    predicted = found.argmax(axis=1)
    for name, theirs in (("precision_macro", sk.precision_score), ("recall_macro", sk.recall_score)):
        assert functions.compute(name, predicted, labels) == theirs(labels, predicted, average="macro")


def test_probabilities_that_round_to_one_still_rank_and_cost() -> None:
    found, labels = np.array([[0.0, 50.0], [0.0, 60.0], [0.0, 70.0]]), np.array([0, 1, 1])
    assert probabilities.auroc(found, labels) == 1
    assert probabilities.nll(found, labels) == pytest.approx(50 / 3)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "matthews_correlation", "nll"])
def test_intervals_of_a_classification_are_those_of_scipy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # several chunks, so that their seams are tested
    monkeypatch.setattr(bootstrap, "CHUNK", 7 * N)
    outputs, labels = logits(3)
    expected = stats.bootstrap(
        (np.arange(N),), lambda rows: value(name, outputs[rows], labels[rows]), n_resamples=200, vectorized=False, rng=0
    ).confidence_interval
    found = intervals(weighted.classification(outputs, labels), N, 200)[name]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.method == "bca"


@pytest.mark.parametrize("name", REPORTED["regression"])
def test_intervals_of_a_regression_are_those_of_scipy(name: str) -> None:
    outputs, labels = scores()
    expected = stats.bootstrap(
        (outputs[:, 0], labels),
        lambda p, y: functions.compute(name, p, y),
        n_resamples=200,
        paired=True,
        vectorized=False,
        rng=0,
    ).confidence_interval
    found = intervals(weighted.regression(outputs, labels), N, 200)[name]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_nmse_is_one_minus_r2_in_every_resample() -> None:
    found = bootstrap.distribution(weighted.regression(*scores()), N, 500)
    assert found["nmse"] == pytest.approx(1 - found["r2"], abs=1e-12)


def test_where_bca_has_no_value_the_percentile_is_taken_and_said() -> None:
    labels = np.arange(40) % 2
    perfect = np.stack([1.0 - labels, labels], axis=1)
    found = intervals(weighted.classification(perfect, labels), 40, 100)
    assert found["accuracy"] == Interval(1.0, 1.0, "percentile", "every resample has the same value")
    assert intervals(weighted.regression(*scores(2)), 2, 100)["mae"].method == "percentile"


def test_an_undefined_metric_has_a_reason_in_place_of_an_interval_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = intervals(weighted.regression(np.full((N, 1), 3.3), scores()[1]), N, 100)
        one_class = intervals(weighted.classification(logits(2)[0], np.ones(N, int)), N, 100)
    assert found["pearson"] == found["spearman"] == "undefined in 100 of 100 resamples"
    assert isinstance(found["nmse"], Interval)
    assert one_class["auroc"] == "undefined in 100 of 100 resamples"
    assert isinstance(one_class["accuracy"], Interval)


def test_the_same_resamples_however_they_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(9, 50)))
    monkeypatch.setattr(bootstrap, "CHUNK", 30)
    assert np.array_equal(np.concatenate(list(draws(9, 50))), whole)
    assert (whole.sum(axis=1) == 9).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "truth"), [("accuracy", 0.85), ("pearson", 0.8), ("nmse", 0.36)])
def test_intervals_cover_the_truth_as_often_as_they_say(name: str, truth: float) -> None:
    rng = np.random.default_rng(5)
    inside = []
    for _ in range(1000):
        if name == "accuracy":
            labels = rng.integers(0, 2, 300)
            ids = np.where(rng.random(300) < truth, labels, 1 - labels)
            statistics = weighted.classification(np.eye(2)[ids], labels)
        else:
            # y = p + e with correlation 0.8: NMSE of p is Var(e) / Var(y) = 1 - 0.8^2
            p, e = rng.normal(size=(2, 300)) * np.array([[0.8], [0.6]])
            statistics = weighted.regression(p[:, None], p + e)
        found = intervals(statistics, 300, 500)[name]
        inside.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.97
