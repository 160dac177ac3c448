"""AdamW with an Armijo line search: closed forms on quadratics, torch's AdamW, and what it refuses."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nlptrain.errors import DivergedError
from nlptrain.optim import ArmijoAdamW

CASES, CUT, C = 2000, 0.5, 0.1


class Quadratic:
    """x^T H x / 2 at a random point, with an optimizer whose moments are random, so that its direction is."""

    def __init__(self, seed: int, **settings: Any) -> None:
        rng = np.random.default_rng(seed)
        root = torch.from_numpy(rng.normal(size=(5, 5)))
        self.hessian = root @ root.T + 0.1 * torch.eye(5, dtype=torch.float64)
        self.x = nn.Parameter(torch.from_numpy(rng.normal(size=5)))
        self.x.grad = self.hessian @ self.x.detach()
        self.used = ArmijoAdamW([self.x], c=C, cut=CUT, max_trials=100, max_step=1e9, **settings)
        moments = {
            "exp_avg": torch.from_numpy(rng.normal(size=5)),
            "exp_avg_sq": torch.from_numpy(rng.gamma(1, size=5)),
        }
        self.used.state[self.x] = {"step": 7, **moments}

    def loss(self) -> float:
        x = self.x.detach()
        return float(x @ self.hessian @ x / 2)

    def step(self) -> tuple[float, Tensor]:
        """The size taken and the direction."""
        before = self.x.detach().clone()
        self.used.step(self.loss)
        size = self.used.search["step_size"]
        return size, (self.x.detach() - before) / size

    def largest(self, direction: Tensor) -> float:
        """The largest size that satisfies the condition, in closed form."""
        assert self.x.grad is not None
        slope = -self.x.grad @ direction
        assert slope > 0
        return float(2 * (1 - C) * slope / (direction @ self.hessian @ direction))


def test_on_quadratics_the_accepted_size_is_the_largest_acceptable_up_to_one_cut() -> None:
    at_once = 0
    for seed in range(CASES):
        start = 10 ** np.random.default_rng(seed).uniform(-3, 2)
        case = Quadratic(seed, initial_step=start, growth=1.0, weight_decay=0.1 * (seed % 2))
        size, direction = case.step()
        largest = case.largest(direction)
        assert size <= largest * (1 + 1e-9)
        assert size == start or size > CUT * largest * (1 - 1e-9)
        assert case.used.search["failures"] == case.used.search["unsearched"] == 0
        at_once += size == start
    # both kinds of case occur
    assert 0.2 * CASES < at_once < 0.8 * CASES


def test_the_search_starts_a_little_above_the_step_before() -> None:
    case = Quadratic(0, initial_step=1e-6, growth=1.5)
    assert [case.step()[0] for _ in range(4)] == pytest.approx([1e-6 * 1.5**k for k in (1, 2, 3, 4)])


def test_uphill_the_search_ends_without_a_step_and_the_weights_are_the_same_bits() -> None:
    weights = nn.Parameter(torch.randn(1000))
    before = weights.detach().clone()
    weights.grad = -before
    used = ArmijoAdamW([weights], initial_step=0.1, growth=1.0, max_trials=6, weight_decay=0.1)
    used.step(lambda: float((weights.detach().double() ** 2).sum() / 2))
    assert torch.equal(weights, before)
    assert (used.search["failures"], used.search["trials"]) == (1, 6)
    assert used.search["step_size"] == pytest.approx(0.1 * 0.5**6)


def test_with_every_first_trial_accepted_it_is_the_adamw_of_torch() -> None:
    """On a linear loss each descent satisfies the condition; the share of the size is what a rate would be."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([nn.Parameter(torch.full((4, 3), v, dtype=torch.float64)) for v in (1, -2)] for _ in range(2))
    used = ArmijoAdamW(
        [{"params": [ours[0]], "weight_decay": 0.1}, {"params": [ours[1]]}], initial_step=0.05, growth=1.0
    )
    reference = torch.optim.AdamW(
        [{"params": [theirs[0]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}]
    )
    for step in range(12):
        gradients = [torch.randn(4, 3, generator=generator, dtype=torch.float64) + 2 for _ in range(2)]
        for share, (group, other) in zip(
            (1.0, 1 / (step + 1)), zip(used.param_groups, reference.param_groups, strict=True), strict=True
        ):
            group["lr"], other["lr"] = share, share * 0.05
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        used.step(lambda: float(sum((g * p.detach()).sum() for g, p in zip(gradients, ours, strict=True))))  # noqa: B023
        reference.step()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert used.search["trials"] == used.search["steps"] == 12


def test_where_momentum_points_uphill_the_gradient_leads() -> None:
    case = Quadratic(3, initial_step=1e-4)
    assert case.x.grad is not None
    case.used.state[case.x]["exp_avg"] = -100 * case.x.grad
    second = case.used.state[case.x]["exp_avg_sq"].clone()
    _, direction = case.step()
    scale = ((0.999 * second + 0.001 * case.x.grad**2) / (1 - 0.999**8)).sqrt() + 1e-8
    torch.testing.assert_close(direction, -case.x.grad / scale, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("noise", "unsearched"), [(0.0, 0), (1e-3, 0), (0.3, 1)])
def test_a_demand_below_the_noise_of_the_loss_is_not_searched_for(noise: float, unsearched: int) -> None:
    """One step demands a decrease of 0.1 * 0.1 * 16: tens of times the noise, or less than ten times."""
    rng, weights = np.random.default_rng(0), nn.Parameter(torch.full((16,), 1.0, dtype=torch.float64))
    weights.grad = torch.ones(16, dtype=torch.float64)
    used = ArmijoAdamW([weights], initial_step=0.1, growth=1.0)
    used.loss, used.closure = 16.0, lambda: float(weights.detach().sum()) + noise * rng.choice([-1, 1])
    used.step()
    assert used.search["unsearched"] == unsearched
    # the step is taken all the same
    torch.testing.assert_close(weights.detach(), torch.full((16,), 0.9, dtype=torch.float64))
    assert used.search["step_size"] == 0.1


def test_a_trial_that_is_not_finite_is_refused() -> None:
    weights = nn.Parameter(torch.ones(4))
    weights.grad = torch.ones(4)
    used = ArmijoAdamW([weights], initial_step=0.8, growth=1.0)
    used.step(lambda: float(weights.detach().sum()) if weights.detach().min() > 0.5 else -math.inf)
    assert used.search["step_size"] == pytest.approx(0.4)


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.inf)])
def test_what_is_not_finite_ends_in_an_error_and_moves_nothing(loss: float, gradient: float) -> None:
    weights = nn.Parameter(torch.ones(4))
    weights.grad = torch.full((4,), gradient)
    with pytest.raises(DivergedError, match="not finite|slope"):
        ArmijoAdamW([weights]).step(lambda: loss)
    assert torch.equal(weights.detach(), torch.ones(4))


def test_at_a_gradient_of_zero_the_step_is_the_decay_alone() -> None:
    decayed, spared, untouched = (nn.Parameter(torch.ones(3)) for _ in range(3))
    decayed.grad = spared.grad = torch.zeros(3)
    used = ArmijoAdamW(
        [{"params": [decayed, untouched], "weight_decay": 0.1}, {"params": [spared]}], initial_step=0.5, lr=0.5
    )
    used.step(lambda: 1.0)
    assert decayed.detach().tolist() == pytest.approx([1 - 0.5 * 0.5 * 0.1] * 3)
    assert torch.equal(spared, untouched)
    assert used.search["trials"] == 0


def test_a_saved_optimizer_continues_bitwise() -> None:
    one, other = Quadratic(1, initial_step=0.1), Quadratic(1, initial_step=77.0)
    for _ in range(12):
        one.step()
    file = io.BytesIO()
    torch.save(one.used.state_dict(), file)
    file.seek(0)
    other.used.load_state_dict(torch.load(file, weights_only=True))
    other.x.data.copy_(one.x.data)
    for _ in range(12):
        assert one.step()[0] == other.step()[0]
    assert torch.equal(one.x, other.x)
    assert one.used.search == other.used.search


def test_the_loss_and_the_closure_serve_one_step() -> None:
    case = Quadratic(0)
    case.used.closure, case.used.loss = case.loss, (before := case.loss())
    assert case.used.step() == before > case.loss()
    with pytest.raises(ValueError, match="needs a closure.*ArmijoLineSearch"):
        case.used.step()


def half(**settings: Any) -> ArmijoAdamW:
    return ArmijoAdamW([nn.Parameter(torch.ones(1, dtype=torch.bfloat16))], **settings)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (Quadratic, {"lr": 2.0}, r"lr must be in \[0, 1\], found 2.0; usual is 1"),
        (Quadratic, {"initial_step": math.nan}, "initial_step must be in .*found nan; usual is 0.001"),
        (Quadratic, {"growth": 0.9}, r"growth must be in \[1, inf\], found 0.9"),
        (Quadratic, {"betas": (0.9, 1.0)}, "betas must be in"),
        (half, {}, "float32 or float64, found torch.bfloat16"),
        (half, {"c": 1.0}, r"c must be in \(0, 1\), found 1.0"),
        (half, {"max_trials": 0}, "max_trials must be in .*found 0; usual is 10"),
    ],
)
def test_settings_out_of_range_are_refused(build: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**{"seed": 0, **settings} if build is Quadratic else settings)
