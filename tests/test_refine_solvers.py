"""Solvers against scikit-learn, explicit refits, theorems and each other."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der
from sklearn.linear_model import LogisticRegression, Ridge

from nlptrain.errors import ResourceError
from nlptrain.refine import SOLVERS, Certificate, Head, Refined, derivatives, descent, matrices, refine
from nlptrain.refine.descent import MAX_TRIALS, Step, armijo
from nlptrain.refine.fit import over, prepare
from nlptrain.refine.objective import Limits

ROWS, FEATURES = 203, 7


def rows(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of unequal scale, and labels that no head gets all right."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, FEATURES)) @ rng.normal(size=(FEATURES, FEATURES)) * np.logspace(-1, 1, FEATURES) + 2
    logits = (x - x.mean(axis=0)) / x.std(axis=0) @ rng.normal(size=(FEATURES, classes))
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, _ = rows(2, seed)
    rng = np.random.default_rng(seed + 100)
    return x, x @ rng.normal(size=FEATURES) + rng.normal(size=ROWS)


def fit(x: np.ndarray, y: np.ndarray, outputs: int, **settings: Any) -> Refined:
    head = Head(x.shape[1], outputs)
    base: dict[str, Any] = {"proximal": False, "l2": 1e-2, "loss": "cross_entropy"}
    before = settings.pop("before", np.zeros(head.size))
    return refine(x, y, settings.pop("head", head), before, **{**base, **settings})


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def test_ridge_is_that_of_scikit_learn() -> None:
    x, y = scores()
    found = fit(x, y, 1, loss="mse", l2=0.3)
    # mean of squares + l2/2 |w|^2 is sum of squares + n l2/2 |w|^2
    reference = Ridge(alpha=ROWS * 0.3 / 2).fit(standardised(x), y)
    weight, bias = found.head.unpack(found.parameters).values()
    np.testing.assert_allclose(weight[0], reference.coef_ / x.std(axis=0), rtol=1e-8)
    np.testing.assert_allclose(found.outputs(x)[:, 0], reference.predict(standardised(x)), rtol=1e-8)
    assert found.certificate.solver == "ridge"
    assert found.certificate.gradient_inf <= 1e-10
    assert bias.shape == (1,)


@pytest.mark.parametrize("proximal", [False, True])
def test_the_curve_of_ridge_is_the_error_of_n_refits(proximal: bool) -> None:
    x, y = scores()
    grid, before = (1e-3, 0.1, 10.0), np.random.default_rng(0).normal(size=FEATURES + 1) / 10
    found = fit(x, y, 1, loss="mse", l2="auto", grid=grid, proximal=proximal, before=before)
    z = np.hstack([standardised(x), np.ones((ROWS, 1))])
    anchor = found.space.enter(before) if proximal else np.zeros(FEATURES + 1)
    marks = np.ones(FEATURES + 1) if proximal else np.append(np.ones(FEATURES), 0)
    for l2, score in found.certificate.l2_curve:
        errors = []
        for row in range(ROWS):
            kept = np.arange(ROWS) != row
            # the penalty of the sum stays as it is: n l2 / 2, not (n - 1) l2 / 2
            matrix = z[kept].T @ z[kept] + np.diag(marks) * ROWS * l2 / 2
            w = anchor + np.linalg.solve(matrix, z[kept].T @ (y[kept] - z[kept] @ anchor))
            errors.append((y[row] - z[row] @ w) ** 2)
        assert score == pytest.approx(np.mean(errors), rel=1e-10)
    assert found.certificate.l2 == min(found.certificate.l2_curve, key=lambda pair: pair[1])[0]
    assert found.certificate.l2_by == "exact leave-one-out"


def test_gcv_is_its_definition_by_the_hat_matrix() -> None:
    x, y = scores()
    found = fit(x, y, 1, loss="mse", l2="auto", l2_by="gcv", grid=(0.01, 1.0))
    z = standardised(x)
    for l2, score in found.certificate.l2_curve:
        hat = z @ np.linalg.solve(z.T @ z + ROWS * l2 / 2 * np.eye(FEATURES), z.T) + 1 / ROWS
        expected = np.mean((y - hat @ y) ** 2) / (1 - np.trace(hat) / ROWS) ** 2
        assert score == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("classes", [2, 5])
def test_newton_is_newton_cholesky_of_scikit_learn(classes: int) -> None:
    x, y = rows(classes)
    l2 = 0.01
    found = fit(x, y, classes, l2=l2, method="newton", tolerance=1e-10)
    # its two-class model has one weight vector, the difference of ours, whose square is twice the sum of ours
    c = 1 / (ROWS * l2) * (2 if classes == 2 else 1)
    reference = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(standardised(x), y)
    weight, bias = found.head.unpack(found.parameters).values()
    weight, bias = weight * x.std(axis=0), bias + weight @ x.mean(axis=0)
    if classes == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    np.testing.assert_allclose(weight, reference.coef_ - (classes > 2) * reference.coef_.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(bias, reference.intercept_ - (classes > 2) * reference.intercept_.mean(), atol=1e-8)
    assert found.certificate.gradient_inf <= 1e-10
    assert found.certificate.iterations <= 10


def test_one_logit_for_two_classes_is_the_same_model() -> None:
    x, y = rows(2)
    two, one = fit(x, y, 2, l2=0.02), fit(x, y, 1, l2=0.01)
    logits = two.outputs(x)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], one.outputs(x)[:, 0], atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", [name for name in SOLVERS if name != "ridge"])
def test_every_solver_reaches_one_optimum(classes: int, method: str) -> None:
    x, y = rows(classes)
    best = fit(x, y, classes, method="newton", tolerance=1e-12).certificate.objective_after
    found = fit(x, y, classes, method=method).certificate
    assert abs(found.objective_after - best) <= 1e-9 * best
    assert found.history[-1] == pytest.approx(found.objective_after, rel=1e-12)
    assert found.solver == method


@pytest.mark.parametrize("method", list(SOLVERS))
def test_every_solver_reaches_the_closed_form(method: str) -> None:
    x, y = scores()
    best = fit(x, y, 1, loss="mse").certificate.objective_after
    assert fit(x, y, 1, loss="mse", method=method).certificate.objective_after <= best * (1 + 1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("method", [name for name in SOLVERS if name != "ridge"])
def test_a_head_with_hidden_units_comes_to_a_minimum(method: str, loss: str) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 2))
    bent = np.tanh(2 * x[:, 0]) * np.cos(x[:, 1])  # no linear head: each hidden unit has work to do
    y, outputs = (bent, 1) if loss == "mse" else (np.digitize(bent, [-0.3, 0.3]), 3)
    head = Head(2, outputs, 2, "tanh")
    before = np.random.default_rng(1).normal(size=head.size)
    found = fit(x, y, 1, head=head, before=before, method=method, l2=1e-3, loss=loss, tolerance=1e-6).certificate
    assert found.gradient_inf <= 1e-5
    assert found.eigenvalue_min is not None
    assert found.eigenvalue_min > 1e-5
    assert found.objective_after < found.objective_before


@pytest.mark.parametrize("method", ["newton", "newton-exact"])
def test_a_certificate_of_hidden_units_is_of_the_exact_hessian(method: str) -> None:
    x, y = rows(2)
    head, l2 = Head(FEATURES, 2, 2, "tanh"), 0.01
    before = np.random.default_rng(1).normal(size=head.size)
    found = fit(x, y, 2, head=head, before=before, method=method, l2=l2, max_iterations=2)
    problem = prepare(x, y, head, before, loss="cross_entropy", proximal=False)
    size = len(found.point)
    hessian = derivatives.hessian(problem.data, found.point)[1 + size :].reshape(size, size) / ROWS
    values = np.linalg.eigvalsh(hessian + l2 * np.diag(~problem.data.head.biases()))
    assert (found.certificate.eigenvalue_min, found.certificate.eigenvalue_max) == pytest.approx(
        (values[0], values[-1]), rel=1e-9
    )


def test_newton_damps_an_indefinite_hessian_and_no_more_than_it_needs() -> None:
    iterations, head = [], Head(2, 1, 2, "tanh")
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, before = rng.normal(size=(ROWS, 2)), rng.normal(size=head.size)
        y = np.tanh(2 * x[:, 0]) * x[:, 1]
        problem = prepare(x, y, head, before, loss="mse", proximal=False)
        start = replace(problem.objective(over(problem.data), 1e-2), exact=True).second(problem.space.enter(before))
        assert np.linalg.eigvalsh(start[2])[0] < 0
        found = fit(x, y, 1, head=head, before=before, method="newton-exact", loss="mse").certificate
        assert found.converged
        assert found.eigenvalue_min is not None
        assert found.eigenvalue_min > 0
        iterations.append(found.iterations)
    # with a damping that is always large it takes 77
    assert np.median(iterations) <= 25


def test_the_certificate_is_what_it_says() -> None:
    x, y = rows(2)
    found = fit(x, y, 2, l2=0.05).certificate
    z = np.hstack([standardised(x), np.ones((ROWS, 1))])
    weight, bias = fit(x, y, 2, l2=0.05).head.unpack(fit(x, y, 2, l2=0.05).parameters).values()
    difference = x @ (weight[1] - weight[0]) + bias[1] - bias[0]
    p = 1 / (1 + np.exp(-difference))
    # in the one output g of the fit the difference is sqrt(2) g
    loss_hessian = 2 * z.T @ (z * (p * (1 - p))[:, None]) / ROWS
    whole = loss_hessian + 0.05 * np.diag(np.append(np.ones(FEATURES), 0))
    values = np.linalg.eigvalsh(whole)
    assert (found.eigenvalue_min, found.eigenvalue_max) == pytest.approx((values[0], values[-1]), rel=1e-9)
    assert found.condition == pytest.approx(values[-1] / values[0], rel=1e-9)
    assert found.effective_dimension == pytest.approx(np.trace(np.linalg.solve(whole, loss_hessian)), rel=1e-9)
    assert found.objective_before == pytest.approx(np.log(2))
    assert 0 <= found.newton_decrement <= 1e-12
    assert Certificate.read(json.loads(json.dumps(found.as_dict(), allow_nan=False))) == found


def test_the_newton_decrement_is_what_is_still_to_gain() -> None:
    x, y = rows(2)
    early = fit(x, y, 2, method="lbfgs", max_iterations=6).certificate
    best = fit(x, y, 2).certificate.objective_after
    assert not early.converged
    assert early.newton_decrement == pytest.approx(early.objective_after - best, rel=0.1)


def test_a_strong_pull_towards_the_head_before_returns_it() -> None:
    x, y = rows(3)
    x[:, 2] = 4.0  # a dead feature keeps its weight too
    before = np.random.default_rng(2).normal(size=3 * (FEATURES + 1))
    found = fit(x, y, 3, proximal=True, l2=1e12, before=before)
    np.testing.assert_allclose(found.parameters, before, rtol=0, atol=1e-8)


def test_what_goes_in_stays_as_it_was() -> None:
    x, y = rows(3)
    before = np.random.default_rng(2).normal(size=3 * (FEATURES + 1))
    kept = x.copy(), y.copy(), before.copy()
    found = fit(x, y, 3, proximal=True, before=before)
    for array, copy in zip((x, y, before), kept, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not np.shares_memory(found.parameters, before)


def test_dead_features_change_nothing() -> None:
    x, y = rows(2)
    dead = np.random.default_rng(0).normal(size=(ROWS, 3)) * [9e-33, 1e-12, 2e-9] + 1
    with_dead, without = fit(np.hstack([x, dead]), y, 2), fit(x, y, 2)
    weight, bias = with_dead.head.unpack(with_dead.parameters).values()
    assert (weight[:, FEATURES:] == 0).all()
    np.testing.assert_allclose(weight[:, :FEATURES], without.head.unpack(without.parameters)["weight"], atol=1e-9)
    np.testing.assert_allclose(bias, without.head.unpack(without.parameters)["bias"], atol=1e-8)


def test_leave_one_out_chooses_a_classifier_about_as_refits_do() -> None:
    x, y = rows(2)
    grid = (1e-3, 1e-1, 1.0)
    curve = fit(x, y, 2, l2="auto", grid=grid).certificate.l2_curve
    z = standardised(x)
    for l2, score in curve:
        losses = []
        for row in range(ROWS):
            kept = np.arange(ROWS) != row
            model = LogisticRegression(C=2 / (ROWS * l2), solver="newton-cholesky").fit(z[kept], y[kept])
            losses.append(-model.predict_log_proba(z[row : row + 1])[0, y[row]])
        assert score == pytest.approx(np.mean(losses), rel=2e-3)


# ---- BFGS -----------------------------------------------------------------------------------------------------------


def test_bfgs_with_exact_search_solves_a_quadratic_in_n_steps_and_ends_with_its_inverse() -> None:
    """Nocedal and Wright 2006, theorem 6.4."""
    rng, size = np.random.default_rng(0), 12
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    a, b = basis * np.linspace(1, 30, size) @ basis.T, rng.normal(size=size)

    def value(w: np.ndarray) -> float:
        return float(w @ a @ w / 2 - b @ w)

    def exact(f: Any, w: np.ndarray, _value: float, direction: np.ndarray, slope: float) -> Step:
        length = -slope / (direction @ a @ direction)
        return Step(length, w + length * direction, f(w + length * direction), 1)

    solution, upper = descent.minimise(
        value, lambda w: (value(w), a @ w - b), np.zeros(size), Limits(1e-10, 100), exact
    )
    inverse = np.triu(upper) + np.triu(upper, 1).T
    assert len(solution.history) - 1 == size
    assert np.abs(a @ solution.point - b).max() <= 1e-10
    assert np.linalg.norm(inverse - np.linalg.inv(a)) <= 1e-8 * np.linalg.norm(np.linalg.inv(a))


def test_every_accepted_update_satisfies_the_secant_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    update, seen = descent.update_inverse, []

    def watched(inverse: np.ndarray, s: np.ndarray, y: np.ndarray) -> bool:
        before = inverse.copy()
        done = update(inverse, s, y)
        whole = np.triu(inverse) + np.triu(inverse, 1).T
        if done:
            assert s @ y > 0
            assert np.linalg.norm(whole @ y - s) <= 1e-10 * np.linalg.norm(s)
            np.linalg.cholesky(whole)
        else:
            np.testing.assert_array_equal(inverse, before)
        seen.append(done)
        return done

    monkeypatch.setattr(descent, "update_inverse", watched)
    descent.minimise(rosen, lambda w: (rosen(w), rosen_der(w)), np.full(10, -1.2), Limits(1e-8, 500))
    assert sum(seen) > 20


def test_without_curvature_there_is_no_update() -> None:
    inverse = np.eye(3, order="F")
    assert not descent.update_inverse(inverse, np.ones(3), -np.ones(3))
    assert not descent.update_inverse(inverse, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    np.testing.assert_array_equal(inverse, np.eye(3))


def test_bfgs_solves_rosenbrock_in_ten_dimensions() -> None:
    start = np.tile([-1.2, 1.0], 5)
    solution, _ = descent.minimise(rosen, lambda w: (rosen(w), rosen_der(w)), start, Limits(1e-8, 500))
    assert np.linalg.norm(rosen_der(solution.point), np.inf) <= 1e-8
    np.testing.assert_allclose(solution.point, np.ones(10), atol=1e-6)


# ---- line search ----------------------------------------------------------------------------------------------------


def test_the_accepted_step_is_the_first_that_decreases_enough() -> None:
    """On ``x'Ax/2`` a step is accepted exactly up to ``2 (1 - c) (-slope) / d'Ad``."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        root = rng.normal(size=(4, 4)) * 10 ** rng.uniform(-1, 2)
        a, w = root @ root.T + 0.1 * np.eye(4), rng.normal(size=4)
        direction = -(rng.uniform(0.1, 3, 4) * (a @ w))
        slope, value = float(w @ a @ direction), float(w @ a @ w / 2)
        step = armijo(lambda v, a=a: float(v @ a @ v / 2), w, value, direction, slope)
        limit = 2 * 0.9 * -slope / (direction @ a @ direction)
        assert step.size == 1 or limit / 2 * (1 - 1e-9) < step.size <= limit * (1 + 1e-9)
        assert step.size <= limit * (1 + 1e-9)
        assert step.size == 0.5 ** (step.trials - 1)


@pytest.mark.parametrize(("slope", "trials"), [(1.0, 0), (0.0, 0), (float("nan"), 0), (-1.0, MAX_TRIALS)])
def test_the_search_ends_on_a_direction_that_does_not_descend(slope: float, trials: int) -> None:
    w = np.array([1.0, 2.0])
    step = armijo(lambda v: float(v @ v), w, 5.0, w.copy(), slope)
    assert (step.size, step.value, step.trials) == (0.0, 5.0, trials)
    assert step.point is w


def test_a_trial_that_is_not_finite_is_refused() -> None:
    step = armijo(lambda v: -np.inf if v[0] > 0.3 else float(v[0] ** 2 - v[0]), np.zeros(1), 0.0, np.ones(1), -1.0)
    assert step.size == 0.25


# ---- choice of the solver and what is refused -----------------------------------------------------------------------


def test_a_matrix_that_does_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(2)
    monkeypatch.setattr(matrices, "available", lambda: 1000)
    monkeypatch.setattr("nlptrain.refine.solvers.available", lambda: 1000)
    monkeypatch.setattr("nlptrain.refine.certificate.available", lambda: 1000)
    with pytest.raises(ResourceError, match=r"newton needs 0.00205 MB for 4 matrices of 8 x 8 .* 0.001 MB are avail"):
        fit(x, y, 2, method="newton")
    with pytest.raises(ResourceError, match=r"l2: auto needs 0.00256 MB for 5 matrices of 8 x 8 .*; give l2 a number"):
        fit(x, y, 2, l2="auto")
    found = fit(x, y, 2).certificate
    assert (found.solver, found.converged) == ("lbfgs", True)
    assert found.why.startswith("newton would not fit: 8 parameters take 0.00205 MB")
    assert found.eigenvalue_min is None
    monkeypatch.undo()
    assert found.eigenvalue_max == pytest.approx(fit(x, y, 2).certificate.eigenvalue_max, rel=1e-6)


def test_auto_says_what_it_took_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(2)
    assert fit(x, y, 2).certificate.solver == "newton"
    assert "fewest passes" in fit(x, y, 2).certificate.why
    monkeypatch.setattr("nlptrain.refine.solvers.MAX_NEWTON", 7)
    assert "8 parameters are more than the 7" in fit(x, y, 2).certificate.why


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "newtn"}, "nearest valid name is 'newton'"),
        ({"method": "ridge"}, "ridge needs a linear head and mse"),
        ({"loss": "mze"}, "nearest valid name is 'mse'"),
        ({"l2": 0.0}, "l2: must be a finite number > 0"),
        ({"l2": "auto", "grid": ()}, "l2: must be"),
        ({"l2": "auto", "head": Head(FEATURES, 2, 2), "before": np.zeros(26)}, "auto needs a linear head"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"before": np.zeros(3)}, "16 parameters"),
        ({"before": np.full(16, np.nan)}, "the head before: not finite"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(*rows(2), 2, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :3], y), r"features: expected \(n, 7\)"),
        (lambda x, y: (x, y[:5]), "targets: expected"),
        (lambda x, y: (x, y + 1), "class ids must be 0 to 1, found 1 to 2"),
        (lambda x, y: (x, y * 1.0), "must be integers"),
        (lambda x, y: (np.where(x == x[4, 2], np.inf, x), y), r"features: not finite at \(4, 2\)"),
        (lambda x, y: (x[:0], y[:0]), "1 row or more"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(change: Any, message: str) -> None:
    x, y = rows(2)
    arrays = change(x, y)
    with pytest.raises(ValueError, match=message):
        refine(*arrays, Head(FEATURES, 2), np.zeros(16), loss="cross_entropy", proximal=False)
