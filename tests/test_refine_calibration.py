"""Temperature against scikit-learn and its definition, calibration error on data calibrated by construction."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from nlptrain.refine import ece, fit_temperature, nll, reliability


def drawn(classes: int, temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at `temperature`."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(rows, classes)) * 3
    return logits, (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 40.0])
def test_the_temperature_is_a_minimum_and_keeps_every_decision(classes: int, temperature: float) -> None:
    logits, labels = drawn(classes, temperature)
    found = fit_temperature(logits, labels)
    step = 1e-5 * found.value
    around = [nll(logits / (found.value + move), labels) for move in (-step, step)]
    assert abs(found.slope) <= 1e-6
    assert (around[1] - around[0]) / (2 * step) == pytest.approx(0, abs=1e-6)
    assert found.nll_after == pytest.approx(nll(logits / found.value, labels), abs=1e-12)
    assert found.nll_after <= min(found.nll_before, *around) + 1e-15
    assert found.nll_before == pytest.approx(nll(logits, labels), abs=1e-12)
    assert ((logits / found.value).argmax(axis=1) == logits.argmax(axis=1)).all()
    assert found.iterations <= 30
    if temperature < 3:
        assert found.value == pytest.approx(temperature, rel=0.1)


def test_the_slope_is_the_derivative_in_the_temperature() -> None:
    logits, labels = drawn(3, 2.5)
    early = fit_temperature(logits, labels, tolerance=0.2)
    step = 1e-5 * early.value
    higher, lower = (nll(logits / (early.value + move), labels) for move in (step, -step))
    assert abs(early.slope) > 1e-3
    assert early.slope == pytest.approx((higher - lower) / (2 * step), rel=1e-5)


def test_for_two_classes_it_is_a_logistic_regression_on_the_logit() -> None:
    logits, labels = drawn(2, 1.7)
    logit = (logits[:, 1] - logits[:, 0])[:, None]
    reference = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    assert 1 / fit_temperature(logits, labels).value == pytest.approx(
        reference.fit(logit, labels).coef_[0, 0], abs=1e-5
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_logits_does_not_matter(scale: float) -> None:
    logits, labels = drawn(3, 1.0)
    base = fit_temperature(logits, labels).value
    assert fit_temperature(logits * scale, labels).value == pytest.approx(base * scale, rel=1e-6)


def test_no_temperature_is_given_where_none_is_best() -> None:
    logits, labels = drawn(3, 1.0)
    with pytest.raises(ValueError, match="all 4000 rows are right"):
        fit_temperature(logits, logits.argmax(axis=1))
    with pytest.raises(ValueError, match="check that labels and logits belong"):
        fit_temperature(logits, logits.argmin(axis=1))
    assert (logits.argmax(axis=1) != labels).any()


def test_nll_is_the_mean_of_the_log_probabilities() -> None:
    logits, labels = drawn(3, 1.0, 50)
    assert nll(logits, labels) == pytest.approx(-log_softmax(logits, axis=1)[np.arange(50), labels].mean(), abs=1e-14)


@pytest.mark.parametrize("classes", [2, 4])
def test_calibrated_data_has_no_calibration_error(classes: int) -> None:
    logits, labels = drawn(classes, 1.0, 100_000)
    assert ece(reliability(softmax(logits, axis=1), labels)) <= 0.01
    # and the same logits twice as sure have one
    assert ece(reliability(softmax(2 * logits, axis=1), labels)) > 0.03


def test_the_table_and_its_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.5, 0.5], [0.0, 1.0]])
    table = reliability(p, np.array([0, 1, 1, 0, 1]), bins=5)
    assert [row.rows for row in table] == [0, 0, 2, 1, 2]
    assert (table[0].confidence, table[0].accuracy) == (None, None)
    assert (table[2].confidence, table[2].accuracy) == pytest.approx((0.55, 1.0))
    assert (table[4].low, table[4].high, table[4].confidence) == pytest.approx((0.8, 1.0, 0.95))
    assert ece(table) == pytest.approx((2 * 0.45 + 0.7 + 2 * 0.05) / 5)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 1)), np.zeros(3, dtype=int), "2 or more classes"),
        (np.zeros((3, 2)), np.zeros(2, dtype=int), "2 or more classes"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "n > 0"),
        (np.full((1, 2), np.nan), np.zeros(1, dtype=int), "finite"),
        (np.zeros((1, 2)), np.full(1, 2), "class ids 0 to 1"),
        (np.zeros((1, 2)), np.zeros(1), "class ids 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    for function in (nll, fit_temperature, reliability):
        with pytest.raises(ValueError, match=message):
            function(logits, labels)


@pytest.mark.parametrize(("p", "bins"), [([[0.5, 0.6]], 5), ([[-0.5, 1.5]], 5), ([[0.5, 0.5]], 0)])
def test_what_is_no_probability_is_refused(p: list[list[float]], bins: int) -> None:
    with pytest.raises(ValueError, match="rows sum to 1"):
        reliability(np.array(p), np.zeros(1, dtype=int), bins)
