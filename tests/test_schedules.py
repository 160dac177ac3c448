"""The schedules against closed forms, torch and transformers; their refusals; their pictures."""

import json
import math
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau, StepLR
from transformers.optimization import get_scheduler

from nlptrain.errors import ConfigError
from nlptrain.schedule_command import show
from nlptrain.schedule_plot import svg, terminal
from nlptrain.schedules import SCHEDULES, Plateau, as_steps, multiplier, observe, problem, simulate


def optimizer(rate: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


# 11 steps of which 4 warm up: step 3 has the peak, step 7 is half way to the end at 11, step 10 is the last
@pytest.mark.parametrize(
    ("name", "options", "middle", "end"),
    [
        ("constant", {}, 1, 1),
        ("linear", {}, 1 / 2, 1 / 8),
        ("linear", {"eta_min": 0.2}, 0.6, 0.3),
        ("linear", {"hold": 3}, 2 / 3, 1 / 6),
        ("linear", {"hold": 9}, 1, 1),
        ("polynomial", {"power": 2.0}, 1 / 4, 1 / 64),
        ("inverse_sqrt", {}, math.sqrt(4 / 8), math.sqrt(4 / 11)),
        ("inverse_sqrt", {"timescale": 1}, math.sqrt(1 / 5), math.sqrt(1 / 8)),
        ("cosine", {}, 1 / 2, (1 + math.cos(math.pi * 7 / 8)) / 2),
        ("cosine_restarts", {"T_0": 4}, 1, (1 + math.cos(math.pi * 3 / 4)) / 2),
        ("step", {"step_size": 2, "factor": 0.5}, 1 / 4, 1 / 8),
        ("step", {"step_size": 2, "factor": 0.5, "eta_min": 0.2}, 1 / 4, 0.2),
        ("plateau", {}, 1, 1),
    ],
)
def test_start_warmup_peak_middle_and_end(name: str, options: dict[str, Any], middle: float, end: float) -> None:
    found = [multiplier(step, 11, 4, name=name, **options) for step in (0, 1, 3, 7, 10, 11, 99)]
    assert found == pytest.approx([1 / 4, 2 / 4, 1, middle, end, end, end])


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize(
    ("name", "options", "theirs", "their_options"),
    [
        ("constant", {}, "constant_with_warmup", {}),
        ("linear", {}, "linear", {}),
        ("polynomial", {"power": 3.0, "eta_min": 0.1}, "polynomial", {"power": 3.0, "lr_end": 0.1}),
        ("inverse_sqrt", {"timescale": 7}, "inverse_sqrt", {"timescale": 7}),
        ("cosine", {"eta_min": 0.1}, "cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ],
)
def test_is_the_curve_of_transformers_one_step_on(
    name: str, options: dict[str, Any], theirs: str, their_options: dict[str, Any], warmup: int
) -> None:
    """Theirs at step + 1 of total + 1: its step 0, of rate 0, falls away; without warm-up ours is one step of it."""
    reference = get_scheduler(theirs, optimizer(), max(warmup, 1), 21, their_options).lr_lambdas[0]
    assert simulate(name, {"warmup": warmup, **options}, 20) == pytest.approx([reference(s + 1) for s in range(20)])


@pytest.mark.parametrize(("first", "longer"), [(1, 1), (3, 1), (2, 2), (1, 3)])
def test_restarts_are_those_of_torch(first: int, longer: int) -> None:
    options = {"T_0": first, "T_mult": longer, "eta_min": 0.1}
    reference = CosineAnnealingWarmRestarts(optimizer(2.0), first, longer, eta_min=0.1)
    expected = []
    for _ in range(30):
        expected.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()
    assert simulate("cosine_restarts", options, 30, 2.0) == pytest.approx(expected)
    assert simulate("cosine_restarts", {"warmup": 5, **options}, 34, 2.0)[4:] == pytest.approx(expected)


def test_step_decay_is_that_of_torch() -> None:
    reference = StepLR(optimizer(), step_size=4, gamma=0.3)
    expected = []
    for _ in range(15):
        expected.append(reference.get_last_lr()[0])
        reference.optimizer.step()
        reference.step()
    assert simulate("step", {"step_size": 4, "factor": 0.3}, 15) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=25),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.25]),
)
def test_plateau_is_that_of_torch(values: list[float], greater: bool, patience: int, threshold: float) -> None:
    mode = "max" if greater else "min"
    reference = ReduceLROnPlateau(
        optimizer(), mode, 0.5, patience, threshold, threshold_mode="abs", min_lr=0.1, eps=0.0
    )
    seen = Plateau()
    for value in values:
        reference.step(value)
        options = {"factor": 0.5, "patience": patience, "threshold": threshold, "min_factor": 0.1}
        seen = observe(seen, value, greater_is_better=greater, **options)
        assert seen.level == pytest.approx(reference.get_last_lr()[0])
        assert (seen.best, seen.bad) == (
            reference.best if math.isfinite(reference.best) else None,
            reference.num_bad_epochs,
        )


@pytest.mark.parametrize("greater", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_better(value: float, greater: bool) -> None:
    options = {"factor": 0.5, "patience": 1, "threshold": 0.0, "min_factor": 0.1}
    assert observe(Plateau(0.5), value, greater_is_better=greater, **options) == Plateau(0.5, bad=1)
    assert observe(Plateau(), value, greater_is_better=greater, **options) == Plateau(None, bad=1)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(SCHEDULES)),
    st.one_of(st.integers(0, 40), st.floats(0, 0.999)),
    st.integers(40, 200_000),
    st.floats(0, 1),
)
def test_every_step_has_a_rate_and_none_is_above_the_peak(name: str, warmup: float, total: int, share: float) -> None:
    assert problem(name, {"warmup": warmup}, total) is None
    steps = [0, 1, as_steps(warmup, total) - 1, int(share * (total - 1)), total - 2, total - 1]
    found = [multiplier(step, total, warmup, name=name) for step in steps]
    assert all(0 < value <= 1 for value in found)
    assert found[2] == 1
    assert [multiplier(total + more, total, warmup, name=name) for more in (0, 1, total)] == [found[-1]] * 3


def test_a_share_is_rounded_up_in_decimal_numbers() -> None:
    assert [as_steps(0.07, 100), as_steps(0.071, 100), as_steps(0.0, 100), as_steps(7, 100)] == [7, 8, 1, 7]


@pytest.mark.parametrize(
    ("name", "key", "value", "nearest"),
    [
        ("linear", "warmup", -5, 0),
        ("linear", "warmup", -0.1, 0),
        ("linear", "warmup", 51, 50),
        ("linear", "warmup", 2.0, 2),
        ("cosine_restarts", "T_0", 0, 1),
        ("cosine_restarts", "T_0", 0.0, 1),
        ("cosine_restarts", "T_0", 90, 50),
        ("cosine_restarts", "T_mult", 0, 1),
        ("cosine_restarts", "T_mult", 1.6, 2),
        ("cosine_restarts", "eta_min", 0.2, 0.1),
        ("cosine", "eta_min", -1.0, 0.0),
        ("polynomial", "power", 0.0, 0.1),
        ("inverse_sqrt", "timescale", 0, 1),
        ("step", "factor", 1.0, 0.999),
        ("step", "step_size", 1, 4),
        ("plateau", "factor", 2, 0.999),
        ("plateau", "patience", -1, 0),
        ("plateau", "threshold", -0.5, 0.0),
        ("plateau", "min_factor", 3.0, 1.0),
        ("plateau", "greater_is_better", 1, True),
    ],
)
def test_a_wrong_value_is_refused_with_the_nearest_valid_one(name: str, key: str, value: Any, nearest: Any) -> None:
    shown = f"{nearest:g}" if isinstance(nearest, float) else str(nearest)
    found = problem(name, {key: value}, 50, 0.1)
    assert found is not None
    assert key in found
    assert str(value) in found
    assert f"nearest valid value: {shown}" in found
    assert problem(name, {key: nearest}, 50, 0.1) is None


@pytest.mark.parametrize("value", ["5", True, math.nan, math.inf, [1]])
@pytest.mark.parametrize(("name", "key"), [("linear", "warmup"), ("step", "factor"), ("plateau", "patience")])
def test_what_is_no_number_is_refused(name: str, key: str, value: Any) -> None:
    assert str(value) in str(problem(name, {key: value}))


def test_unknown_names_and_a_metric_without_a_direction_are_refused() -> None:
    assert "nearest: cosine" in str(problem("cosin", {}))
    assert "nearest: power" in str(problem("polynomial", {"powr": 1.0}))
    assert "T_0 is no setting of linear" in str(problem("linear", {"T_0": 3}))
    assert "greater_is_better" in str(problem("plateau", {"metric": "eval_accuracy"}))
    assert problem("plateau", {"metric": "eval_accuracy", "greater_is_better": True}) is None
    assert "at least 1 optimizer step, found 0" in str(problem("linear", {}, 0))


def peaks(picture: str) -> list[float]:
    line = ElementTree.fromstring(picture).find("{*}polyline")
    assert line is not None
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    levels = [height for height, _ in groupby(heights)]
    return [b for a, b, c in zip(levels, levels[1:], levels[2:], strict=False) if b < min(a, c)]


def test_the_picture_is_safe_scales_and_loses_no_restart() -> None:
    rates = simulate("cosine_restarts", {"warmup": 500, "T_0": 1000}, 10_000, 5e-5)
    title = '<script>x</script> & "y"'
    picture = svg(rates, title)
    tree = ElementTree.fromstring(picture)
    texts = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {title, "learning rate", "optimizer step", "5e-5", "2.5e-5", "0", "1", "10000"} <= set(texts)
    assert tree.attrib["viewBox"] == "0 0 360 240"
    assert "<script" not in picture
    assert "prefers-color-scheme:dark" in picture
    assert len(peaks(picture)) == 10
    assert max(peaks(picture)) == pytest.approx(30, abs=0.11)


def test_the_chart_of_a_terminal() -> None:
    expected = """learning rate
1 |   *
  |  * *
  | *   *
  |*     *
0 |       *
  +--------
   1      8
   optimizer step"""
    assert terminal([0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0], 40, 5) == expected
    long = terminal(simulate("cosine", {"warmup": 0.1}, 12_345, 3e-4), 60, 9).splitlines()
    assert max(map(len, long)) == 60
    assert len(long) == 9 + 4
    assert "".join(long).isascii()


@pytest.mark.parametrize("rates", [[], [math.nan], [0.1, -1.0]])
def test_no_picture_without_valid_rates(rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"step|rate"):
        svg(rates, "")
    with pytest.raises(ValueError, match=r"step|rate"):
        terminal(rates)


def test_the_command_tells_every_rate_and_refuses_as_the_configuration() -> None:
    found = json.loads(json.dumps(show("linear", {"warmup": 0.2}, 10, 1e-3), allow_nan=False))
    assert found["settings"] == {"warmup": 2, "hold": 1, "eta_min": 0.0}
    assert found["rates"] == simulate("linear", {"warmup": 2}, 10, 1e-3)
    assert found["landmarks"]["peak"] == {"step": 2, "rate": 1e-3}
    assert found["landmarks"]["last"] == {"step": 10, "rate": pytest.approx(1e-3 / 9)}
    with pytest.raises(ConfigError, match="nearest valid value: 10"):
        show("linear", {"warmup": 11}, 10, 1e-3)
