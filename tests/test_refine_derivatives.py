"""Hessians of heads in closed form against automatic differentiation, and the map into the fitted space and back."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.func import grad, jacrev

from nlptrain.refine import Head, derivatives
from nlptrain.refine.derivatives import Data
from nlptrain.refine.losses import CrossEntropy, SquaredError
from nlptrain.refine.space import Space

ROWS, FEATURES, HIDDEN = 23, 4, 3
ACTIVATIONS = {
    "leaky_relu": torch.nn.functional.leaky_relu,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
HEADS = [
    Head(FEATURES, outputs, hidden, activation, skip)
    for outputs in (1, 3)
    for hidden, activation, skip in [
        (0, "tanh", True),
        *((HIDDEN, name, True) for name in ACTIVATIONS),
        (HIDDEN, "tanh", False),
    ]
]
CASES = [
    pytest.param(h, loss, id=f"{h.activation}-{h.hidden}-{h.outputs}-{h.skip}-{loss}")
    for h, loss in product(HEADS, ("cross_entropy", "mse"))
]


def case(head: Head, loss: str) -> tuple[Data, np.ndarray]:
    rng = np.random.default_rng(7)
    x = np.hstack([rng.normal(size=(ROWS, FEATURES)), np.ones((ROWS, 1))])
    # a fitted head of K outputs has K + 1 classes
    made = CrossEntropy.of(head.outputs + 1) if loss == "cross_entropy" else SquaredError.of(head.outputs)
    ids, scores = rng.integers(0, head.outputs + 1, ROWS), rng.normal(size=(ROWS, head.outputs))
    return Data(x, ids if loss == "cross_entropy" else scores, head, made), rng.normal(size=head.size)


def total(data: Data, w: torch.Tensor) -> torch.Tensor:
    """The summed loss, written in torch."""
    head, x = data.head, torch.from_numpy(data.x)
    border = head.hidden * (FEATURES + 1)
    inner, outer = w[:border].reshape(head.inner_shape), w[border:].reshape(head.outer_shape)
    z = torch.hstack([ACTIVATIONS[head.activation](x @ inner.T), x if head.skip else x[:, -1:]]) if head.hidden else x
    outputs, targets = z @ outer.T, torch.from_numpy(data.targets)
    if isinstance(data.loss, SquaredError):
        return ((outputs - targets) ** 2).sum()
    logits = outputs @ torch.from_numpy(data.loss.lift.copy()).T
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


def second(data: Data, w: np.ndarray, *, exact: bool) -> np.ndarray:
    sums = (derivatives.hessian if exact else derivatives.gauss_newton)(data, w)
    return sums[1 + len(w) :].reshape(len(w), len(w))


def automatic(data: Data, w: np.ndarray) -> np.ndarray:
    return jacrev(grad(lambda v: total(data, v)))(torch.from_numpy(w)).numpy()


@pytest.mark.parametrize(("head", "loss"), CASES)
def test_loss_gradient_and_hessian_are_those_of_automatic_differentiation(head: Head, loss: str) -> None:
    data, w = case(head, loss)
    # in units of the mean loss
    reference, found = automatic(data, w) / ROWS, second(data, w, exact=True) / ROWS
    assert np.abs(found - reference).max() <= 1e-12
    assert np.abs(found - found.T).max() <= 1e-15
    sums, at = derivatives.gradient(data, w), torch.from_numpy(w)
    assert sums[0] == pytest.approx(total(data, at).item(), abs=1e-12) == derivatives.loss(data, w)[0]
    assert np.abs(sums[1:] - grad(lambda v: total(data, v))(at).numpy()).max() <= 1e-12
    np.testing.assert_array_equal(derivatives.hessian(data, w)[: 1 + len(w)], sums)
    direction = np.random.default_rng(1).normal(size=len(w))
    np.testing.assert_allclose(
        derivatives.product(data, np.concatenate([w, direction])), reference @ direction * ROWS, atol=1e-11
    )


@pytest.mark.parametrize(("head", "loss"), CASES)
def test_gauss_newton_is_positive_semidefinite_and_exact_for_a_linear_head(head: Head, loss: str) -> None:
    data, w = case(head, loss)
    found = second(data, w, exact=False)
    assert np.linalg.eigvalsh(found)[0] >= -1e-12
    exact = np.abs(found - second(data, w, exact=True)).max() <= 1e-12
    assert exact == head.is_linear


def test_a_second_difference_of_the_gradient_is_not_the_hessian() -> None:
    """A formula that looks like one: what the comparison above has to tell from it."""
    data, w = case(Head(FEATURES, 1, HIDDEN, "sigmoid"), "mse")
    step, size = 1e-4, len(w)  # a smaller one leaves rounding only

    def gradient(*moved: int) -> np.ndarray:
        at = w.copy()
        for index in moved:
            at[index] += step
        return derivatives.gradient(data, at)[1:]

    wrong = np.array(
        [
            [(gradient(i, j)[i] - gradient(i)[i] - gradient(j)[i] + gradient()[i]) / step**2 for j in range(size)]
            for i in range(size)
        ]
    )
    assert np.abs(wrong / ROWS - automatic(data, w) / ROWS).max() > 1e-2


def test_rows_in_small_chunks_give_the_same_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    data, w = case(HEADS[1], "mse")
    whole = [operation(data, w) for operation in (derivatives.loss, derivatives.gradient, derivatives.hessian)]
    monkeypatch.setattr(derivatives, "CHUNK", 200)
    for sums, operation in zip(whole, (derivatives.loss, derivatives.gradient, derivatives.hessian), strict=True):
        np.testing.assert_allclose(operation(data, w), sums, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_packed_and_unpacked(head: Head) -> None:
    arrays = {name: np.random.default_rng(3).normal(size=shape) for name, shape in head.shapes().items()}
    vector, x = head.pack(arrays), np.random.default_rng(4).normal(size=(5, FEATURES))
    for name, array in head.unpack(vector).items():
        np.testing.assert_array_equal(array, arrays[name])
    expected = arrays["bias"] + (x @ arrays["weight"].T if head.is_linear else 0)
    if not head.is_linear:
        before = torch.from_numpy(x @ arrays["hidden_weight"].T + arrays["hidden_bias"])
        expected = expected + ACTIVATIONS[head.activation](before).numpy() @ arrays["weight"].T
        expected = expected + (x @ arrays["skip_weight"].T if head.skip else 0)
    np.testing.assert_allclose(head(vector, x), expected, atol=1e-13)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_way_into_the_fitted_space_and_back_keeps_the_outputs(head: Head, loss: str) -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(40, FEATURES)) * [1, 100, 1e-3, 1e-12] + [0, 5, 3, 2]
    basis = (CrossEntropy if loss == "cross_entropy" else SquaredError).of(head.outputs).basis
    space, vector = Space.fit(head, basis, features), rng.normal(size=head.size)
    x = space.design(features)
    assert (x[:, 3] == 0).all()
    np.testing.assert_allclose([x[:, :3].mean(axis=0), x[:, :3].std(axis=0)], [[0] * 3, [1] * 3], atol=1e-9)
    inside = space.enter(vector)
    np.testing.assert_allclose(space.leave(inside, vector), vector, atol=1e-10)
    # without the head before there is nothing on the dead feature, and nothing that all logits share
    outputs = head(space.leave(inside, np.zeros(head.size)), features)
    np.testing.assert_allclose(outputs, space.inside(inside, x[:, :-1]) @ basis.T, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0, "outputs": 1}, "1 or more features"),
        ({"features": 2, "outputs": 1, "hidden": 2, "activation": "sigmoi"}, "nearest valid name is 'sigmoid'"),
        ({"features": 2, "outputs": 1, "skip": False}, "needs skip=True"),
    ],
)
def test_an_impossible_head_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Head(**arguments)


def test_arrays_of_another_head_are_refused() -> None:
    head = Head(2, 3)
    with pytest.raises(ValueError, match=r"'weight': \(3, 2\)"):
        head.pack({"weight": np.zeros((2, 3)), "bias": np.zeros(3)})
    with pytest.raises(ValueError, match="9 parameters"):
        head.split(np.zeros(8))
