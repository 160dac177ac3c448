"""Leave-one-out against refits, predictive uncertainty against integration and textbook regression."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import t as student

from nlptrain.errors import ResourceError
from nlptrain.refine import Head, Refined, matrices, posterior, refine, suspects

ROWS, FEATURES = 80, 4


def rows(classes: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, FEATURES)) * [1, 3, 0.1, 1] + 1
    logits = (x - 1) / [1, 3, 0.1, 1] @ rng.normal(size=(FEATURES, classes))
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def fit(x: np.ndarray, y: np.ndarray, outputs: int, l2: float = 0.02, *, loss: str = "cross_entropy") -> Refined:
    head = Head(FEATURES, outputs)
    return refine(x, y, head, np.zeros(head.size), loss=loss, proximal=False, l2=l2)


def refits(x: np.ndarray, y: np.ndarray, found: Refined) -> np.ndarray:
    """Outputs for every row of the head fitted without it: in the same space, and with the penalty of the sum."""
    outputs = []
    z, head = found.space.design(x)[:, :-1], found.head
    for row in range(len(x)):
        kept = np.arange(len(x)) != row
        # standardising the remaining rows anew would change the penalty, so weights of 0 stand for the missing row
        l2 = found.certificate.l2 * len(x) / (len(x) - 1)
        again = _without_standardising(z[kept], y[kept], head, l2, found.loss)
        outputs.append(again(z[row : row + 1])[0])
    return np.array(outputs)


def _without_standardising(z: np.ndarray, y: np.ndarray, head: Head, l2: float, loss: str):  # noqa: ANN202
    from sklearn.linear_model import LogisticRegression, Ridge

    if loss == "mse":
        model = Ridge(alpha=len(z) * l2 / 2, tol=1e-12).fit(z, y)
        return lambda rows: model.predict(rows)[:, None]
    c = 1 / (len(z) * l2) * (2 if head.outputs == 2 else 1)
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(z, y)
    return lambda rows: model.predict_log_proba(rows)


def test_leave_one_out_of_ridge_is_exact() -> None:
    x, _ = rows(2)
    y = x @ [1.0, 0.3, 2.0, -1.0] + np.random.default_rng(0).normal(size=ROWS)
    found = fit(x, y, 1, loss="mse")
    left = posterior(found, x, y).left_out(x, y)
    expected = refits(x, y, found)
    np.testing.assert_allclose(left.outputs, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(left.loss, (y - expected[:, 0]) ** 2, atol=1e-9)
    assert (left.gain >= 0).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_leave_one_out_of_a_classifier_is_close_to_refits(classes: int) -> None:
    """One Newton step a row: an approximation, and a better one than the fit with the row."""
    x, y = rows(classes)
    found = fit(x, y, classes)
    left = posterior(found, x, y).left_out(x, y)
    expected = -refits(x, y, found)[np.arange(ROWS), y]
    assert np.corrcoef(left.loss, expected)[0, 1] > 0.99
    assert np.abs(left.loss - expected).max() <= 0.1 * np.abs(left.loss - left.gain - expected).max()
    # how far the row bent the head, where the two are not alike
    assert np.corrcoef(left.gain, expected - (left.loss - left.gain))[0, 1] > 0.99


def test_planted_wrong_labels_come_first() -> None:
    x, _ = rows(2, 400)
    y = (x @ [1, 1 / 3, 10, 1] > 13).astype(int)
    planted = np.arange(400)[np.abs(x @ [1, 1 / 3, 10, 1] - 13) > 1.5][::20]
    y[planted] = 1 - y[planted]
    worst = suspects(posterior(fit(x, y, 2), x, y).left_out(x, y).loss, len(planted))
    assert len(planted) >= 5
    assert set(worst) == set(planted)
    assert suspects(np.array([1.0, 3.0, 1.0]), 9).tolist() == [1, 0, 2]


@pytest.mark.parametrize("outputs", [1, 2])
def test_averaged_probabilities_of_two_classes_are_near_the_integral(outputs: int) -> None:
    x, y = rows(2, 30)
    found = fit(x, y, outputs, 1e-3)
    sure = posterior(found, x, y)
    far = np.vstack([x, x * 5])
    apart = found.outputs(far) @ ([1.0] if outputs == 1 else [-1.0, 1.0])
    variance = sure.variance(far)[:, 0, 0] * (1 if outputs == 1 else 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    integral = expit(apart[:, None] + np.sqrt(variance)[:, None] * nodes) @ weights / np.sqrt(2 * np.pi)
    found_p = sure.probabilities(far)[:, 1]
    assert np.abs(found_p - integral).max() <= 0.02
    assert np.abs(expit(apart) - integral).max() > 0.05


def test_variance_is_that_of_the_parameters_seen_by_the_row() -> None:
    x, y = rows(3)
    found = fit(x, y, 3)
    sure = posterior(found, x, y)
    z = found.space.design(x)
    wide = np.zeros((ROWS, 2, 2 * (FEATURES + 1)))
    wide[:, 0, : FEATURES + 1] = wide[:, 1, FEATURES + 1 :] = z
    np.testing.assert_allclose(sure.variance(x), wide @ sure.covariance @ wide.transpose(0, 2, 1), atol=1e-12)
    p = sure.probabilities(x)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    plain = np.exp(found.outputs(x)) / np.exp(found.outputs(x)).sum(axis=1, keepdims=True)
    assert (p.max(axis=1) <= plain.max(axis=1) + 1e-3).all()


def test_the_interval_is_that_of_least_squares_where_the_penalty_vanishes() -> None:
    x, _ = rows(2)
    y = x @ [1.0, 0.3, 2.0, -1.0] + np.random.default_rng(0).normal(size=ROWS)
    sure = posterior(found := fit(x, y, 1, 1e-12, loss="mse"), x, y)
    design = np.hstack([x, np.ones((ROWS, 1))])
    freedom = ROWS - FEATURES - 1
    noise = np.sum((y - design @ np.linalg.lstsq(design, y)[0]) ** 2) / freedom
    leverage = np.einsum("nd,de,ne->n", design, np.linalg.inv(design.T @ design), design)
    reach = student.ppf(0.975, freedom) * np.sqrt(noise * (1 + leverage))
    low, high = sure.interval(x)
    np.testing.assert_allclose((high - low)[:, 0] / 2, reach, rtol=1e-6)
    np.testing.assert_allclose((high + low)[:, 0] / 2, found.outputs(x)[:, 0], rtol=1e-9)


def test_intervals_hold_the_share_of_new_scores_that_they_claim() -> None:
    rng, inside = np.random.default_rng(3), []
    for _ in range(200):
        x, new = rng.normal(size=(30, FEATURES)), rng.normal(size=(50, FEATURES))
        y = x @ np.ones(FEATURES) + rng.normal(size=30)
        low, high = posterior(fit(x, y, 1, 1e-4, loss="mse"), x, y).interval(new, 0.9)
        truth = new @ np.ones(FEATURES) + rng.normal(size=50)
        inside.append(np.mean((low[:, 0] <= truth) & (truth <= high[:, 0])))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.015)


def test_what_a_posterior_cannot_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(2)
    found = fit(x, y, 2)
    sure, scores = posterior(found, x, y), posterior(fit(x, x[:, 0] + y, 1, loss="mse"), x, x[:, 0] + y)
    with pytest.raises(ValueError, match="use probabilities"):
        sure.interval(x)
    with pytest.raises(ValueError, match="use interval"):
        scores.probabilities(x)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), found 95"):
        scores.interval(x, 95)
    head = Head(FEATURES, 2, 2)
    deep = refine(x, y, head, np.ones(head.size), loss="cross_entropy", proximal=False, l2=0.1)
    with pytest.raises(ValueError, match="needs a linear head"):
        posterior(deep, x, y)
    monkeypatch.setattr(matrices, "available", lambda: 100)
    with pytest.raises(ResourceError, match="the posterior needs"):
        posterior(found, x, y)
