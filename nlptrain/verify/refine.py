"""The second-order solvers against scikit-learn, torch and closed forms, with formulas that are wrong as controls."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from torch import distributed, multiprocessing
from torch.func import grad, jacrev

from nlptrain.metrics.functions import compute
from nlptrain.refine import Head, accept, derivatives, ece, fit_temperature, nll, posterior, reliability
from nlptrain.refine import refine as fit_head
from nlptrain.refine.derivatives import Data
from nlptrain.refine.descent import armijo
from nlptrain.refine.losses import SquaredError
from nlptrain.verify.check import Check

Array = NDArray[np.float64]
ROWS, FEATURES, L2 = 203, 8, 0.01


def checks(_: object = None) -> list[Check]:
    """Every check, in a few seconds; needs no configuration."""
    parts = (_nmse, _ridge, _newton, _solvers, _armijo, _hessian, _processes, _guard, _temperature)
    return [one for part in parts for one in part()]


def _rows(classes: int = 2) -> tuple[Array, Any, Array]:
    """Features in different units, class ids that depend on them, and scores."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)) * np.logspace(-1, 1, FEATURES) + 1
    z = StandardScaler().fit_transform(x)
    ids = (z @ rng.normal(size=(FEATURES, classes)) + 2 * rng.normal(size=(ROWS, classes))).argmax(axis=1)
    return x, ids, z @ rng.normal(size=FEATURES) + rng.normal(size=ROWS)


def _fit(x: Array, y: Any, outputs: int, **words: Any) -> Any:
    head = Head(x.shape[1], outputs)
    loss: Any = "mse" if outputs == 1 else "cross_entropy"
    return fit_head(x, y, head, np.zeros(head.size), loss=loss, **{"proximal": False, "l2": L2, **words})


def _nmse() -> Iterator[Check]:
    _, _, y = _rows()
    guess = y + np.random.default_rng(1).normal(size=ROWS)
    nmse = compute("nmse", guess, y)
    yield Check.at_most("nmse: distance to 1 - r2 of scikit-learn", abs(nmse - 1 + r2_score(y, guess)), 1e-12)
    mean = compute("nmse", np.full(ROWS, y.mean()), y)
    yield Check.at_most("nmse: distance to 1 of the mean", abs(mean - 1), 1e-12)


def _ridge() -> Iterator[Check]:
    x, _, y = _rows()
    found = _fit(x, y, 1, method="ridge")
    z, alpha = StandardScaler().fit_transform(x), ROWS * L2 / 2
    theirs = Ridge(alpha=alpha).fit(z, y).predict(z)
    yield Check.at_most("ridge: distance to scikit-learn", np.abs(found.outputs(x)[:, 0] - theirs).max(), 1e-8)
    loss = posterior(found, x, y).left_out(x, y).loss
    space = found.space.design(x)[:, :-1]
    refits = []
    for row in range(ROWS):
        others = np.arange(ROWS) != row
        one = Ridge(alpha=alpha, solver="cholesky").fit(space[others], y[others])
        refits.append((one.predict(space[row][None])[0] - y[row]) ** 2)
    yield Check.at_most("ridge: leave-one-out, distance to n refits", np.abs(loss - refits).max(), 1e-10)
    fitted = np.square(found.outputs(x)[:, 0] - y)
    yield Check.more_than("control: errors of the fit itself for leave-one-out", np.abs(fitted - refits).max(), 1e-10)


def _newton() -> Iterator[Check]:
    for classes in (2, 5):
        x, y, _ = _rows(classes)
        found = _fit(x, y, classes, method="newton", tolerance=1e-11)
        scale = 2 if classes == 2 else 1  # two logits, w and -w, are shorter than their difference
        model = LogisticRegression(C=scale / (ROWS * L2), solver="newton-cholesky", tol=1e-12, max_iter=500)
        z = StandardScaler().fit_transform(x)
        theirs = model.fit(z, y).predict_log_proba(z)
        logits = found.outputs(x)
        ours = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        yield Check.at_most(f"newton: {classes} classes, distance to scikit-learn", np.abs(ours - theirs).max(), 1e-8)
        yield Check.at_most(f"newton: {classes} classes, iterations", found.certificate.iterations, 10)
        yield Check.at_most(f"newton: {classes} classes, gradient", found.certificate.gradient_inf, 1e-10)


def _solvers() -> Iterator[Check]:
    x, y, _ = _rows()
    best = _fit(x, y, 2, method="newton", tolerance=1e-11)
    for method in ("bfgs", "bfgs-armijo", "lbfgs", "newton-cg", "trust-exact"):
        found = _fit(x, y, 2, method=method, tolerance=1e-7)
        apart = found.certificate.objective_after - best.certificate.objective_after
        yield Check.at_most(f"{method}: distance to the optimum", abs(apart), 1e-9 * best.certificate.objective_after)
        yield Check.at_most(f"{method}: distance of the weights", np.abs(found.point - best.point).max(), 1e-5)
    early = _fit(x, y, 2, method="bfgs-armijo", max_iterations=3)
    yield Check.more_than("control: three iterations of bfgs", np.abs(early.point - best.point).max(), 1e-5)


def _armijo() -> Iterator[Check]:
    """On a quadratic the largest step that decreases enough is known."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(2000):
        a = rng.normal(size=(5, 5))
        h, w = a @ a.T + 0.1 * np.eye(5), rng.normal(size=5)
        g = h @ w
        d = -rng.uniform(0.1, 3, 5) * g
        largest = float(2 * (1 - 0.1) * -(g @ d) / (d @ h @ d))
        value = _quadratic(h, w)
        size = armijo(partial(_quadratic, h), w, value, d, float(g @ d), decrease=0.1, shrink=0.5).size
        # within rounding of the border either answer is right
        wrong += not (min(1.0, largest / 2) * (1 - 1e-9) <= size <= min(1.0, largest) * (1 + 1e-9))
    yield Check.at_most("armijo: violations in 2,000 quadratics", wrong, 0)
    w = np.ones(3)
    up = armijo(lambda v: float(v @ v), w, 3.0, w, 6.0)
    yield Check.at_most("armijo: step along a direction of ascent", up.size, 0)
    yield Check.at_most("armijo: weights moved by a failed search", np.abs(up.point - w).max(), 0)


def _quadratic(h: Array, w: Array) -> float:
    return float(w @ h @ w / 2)


def _hessian() -> Iterator[Check]:
    rng = np.random.default_rng(7)
    head = Head(4, 1, 3, "sigmoid")
    x = np.hstack([rng.normal(size=(23, 4)), np.ones((23, 1))])
    data, w = Data(x, rng.normal(size=(23, 1)), head, SquaredError.of(1)), rng.normal(size=head.size)
    size = len(w)
    found = derivatives.hessian(data, w)[1 + size :].reshape(size, size)

    def total(v: torch.Tensor) -> torch.Tensor:
        rows, border = torch.from_numpy(x), int(np.prod(head.inner_shape))
        inner, outer = v[:border].reshape(head.inner_shape), v[border:].reshape(head.outer_shape)
        outputs = torch.hstack([torch.sigmoid(rows @ inner.T), rows]) @ outer.T
        return ((outputs - torch.from_numpy(data.targets)) ** 2).sum()

    reference = jacrev(grad(total))(torch.from_numpy(w)).numpy()
    yield Check.at_most("hessian: distance to torch", np.abs(found - reference).max() / 23, 1e-12)
    yield Check.at_most("hessian: asymmetry", np.abs(found - found.T).max() / 23, 1e-15)
    newton = derivatives.gauss_newton(data, w)[1 + size :].reshape(size, size)
    yield Check.at_most("gauss-newton: smallest eigenvalue below 0", -np.linalg.eigvalsh(newton)[0], 1e-12)
    wrong = _second_difference(data, w)
    yield Check.more_than("control: second difference of the gradient", np.abs(wrong - reference).max() / 23, 1e-12)


def _second_difference(data: Data, w: Array, step: float = 1e-6) -> Array:
    """``(g_i(w + e_i + e_j) - g_i(w + e_i) - g_i(w + e_j) + g_i(w)) / step^2``, which is no second derivative."""
    size = len(w)

    def gradient(*moved: int) -> Array:
        return derivatives.gradient(data, w + step * np.bincount(moved, minlength=size))[1:]

    start, once = derivatives.gradient(data, w)[1:], [gradient(i) for i in range(size)]
    rows = [[gradient(i, j)[i] - once[i][i] - once[j][i] + start[i] for j in range(size)] for i in range(size)]
    return np.array(rows) / step**2


def _processes() -> Iterator[Check]:
    x, y, _ = _rows(3)
    alone = _fit(x, y, 3, method="newton").parameters
    for world in (2, 4):
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(_share, (world, folder), nprocs=world)  # type: ignore[attr-defined, no-untyped-call]
            found = [np.load(Path(folder, f"{rank}.npy"), allow_pickle=False) for rank in range(world)]
        yield Check.at_most(f"{world} processes: distance to one", np.abs(found[0] - alone).max(), 1e-10)
        apart = max(np.abs(other - found[0]).max() for other in found)
        yield Check.at_most(f"{world} processes: distance between them", apart, 0)
    part = _fit(x[::2], y[::2], 3, method="newton").parameters
    yield Check.more_than("control: the rows of one of two processes", np.abs(part - alone).max(), 1e-10)


def _share(rank: int, world: int, folder: str) -> None:
    """One process: its share of the rows, whose number does not divide."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    x, y, _ = _rows(3)
    np.save(Path(folder, f"{rank}.npy"), _fit(x[rank::world], y[rank::world], 3, method="newton").parameters)
    distributed.destroy_process_group()


def _guard() -> Iterator[Check]:
    rng, worse = np.random.default_rng(0), 0
    x, y, _ = _rows()
    before = _fit(x, y, 2, method="newton")
    for _ in range(20):
        fit, guard = np.split(rng.permutation(ROWS), [30])
        found = fit_head(
            x[fit], y[fit], before.head, before.parameters, loss="cross_entropy", proximal=True, method="newton", l2=0.1
        )
        old, new = before.outputs(x[guard]), found.outputs(x[guard])
        decision = accept(old, new, y[guard], "accuracy", guard_ids=guard.tolist(), used_ids=fit.tolist())
        kept = new if decision.accepted else old
        worse += (kept.argmax(axis=1) == y[guard]).sum() < (old.argmax(axis=1) == y[guard]).sum()
    yield Check.at_most("guard: of 20 seeds, accuracy worse after it", worse, 0)
    fit, guard = np.split(np.arange(ROWS), [20])
    bad = fit_head(x[fit], rng.integers(0, 2, 20), before.head, before.parameters, loss="cross_entropy", proximal=False,
                 method="newton", l2=1e-6)  # fmt: skip
    old, new = before.outputs(x[guard]), bad.outputs(x[guard])
    decision = accept(old, new, y[guard], "accuracy", guard_ids=range(20, ROWS), used_ids=range(20))
    yield Check.at_most("guard: planted bad refits accepted", decision.accepted, 0)
    pulled = fit_head(x, 1 - y, before.head, before.parameters, loss="cross_entropy", proximal=True, method="newton",
                    l2=1e12)  # fmt: skip
    moved = np.abs(pulled.parameters - before.parameters).max()
    yield Check.at_most("guard: proximal with l2 1e12, weights moved", moved, 1e-8)


def _temperature() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100_000, 2)) * 2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random(len(z)) < p[:, 1]).astype(np.int64)
    found = fit_temperature(3 * z, y)
    yield Check.at_most("temperature: slope at the optimum", abs(found.slope), 1e-6)
    yield Check.at_most("temperature: nll above that at 1", nll(3 * z / found.value, y) - nll(3 * z, y), 0)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(3 * np.diff(z), y).coef_[0, 0]
    yield Check.at_most("temperature: 1/T, distance to scikit-learn", abs(1 / found.value - theirs), 1e-5)
    changed = ((3 * z / found.value).argmax(axis=1) != z.argmax(axis=1)).sum()
    yield Check.at_most("temperature: classes changed", changed, 0)
    yield Check.at_most("ece of calibrated rows", ece(reliability(p, y)), 0.01)
    sure = np.exp(3 * z) / np.exp(3 * z).sum(axis=1, keepdims=True)
    yield Check.more_than("control: ece of rows too sure of themselves", ece(reliability(sure, y)), 0.01)
