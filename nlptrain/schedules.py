"""Learning-rate schedules as pure functions of the optimizer step, and what is wrong with their settings.

One law for all. Steps s count from 0 and are optimizer steps of the global batch, so that neither gradient accumulation
nor the number of processes changes a schedule. N is their total and W the warm-up steps, at least 1:

* s < W: (s + 1) / W. No step has rate 0, and a warm-up of 0 or of 1 step is none: step 0 has the full rate.
* W - 1 <= s < N: the decay, 1 at the step s = W - 1; it would be complete at s = N, which no longer trains.
* s >= N: the value of the last step, N - 1. Nothing rises again after the end.

For the schedules that `transformers.get_scheduler` also knows this is its multiplier at step s + 1 of N + 1 with W
warm-up steps: the same curve without the lost first step of rate 0. Every multiplier is in (0, 1].
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

Warmup = int | float
STEPS = ("warmup", "hold", "T_0", "step_size", "timescale")
# below this share of its peak a rate moves no float32 weight
LEAST_SHARE = 1e-12


def constant(since: int, span: int, **plateau: Any) -> float:
    """1; also of `plateau`, whose cuts are made by `observe` during the run."""
    return 1.0


def polynomial(since: int, span: int, *, power: float, eta_min: float) -> float:
    """eta_min + (1 - eta_min) (1 - since / span)^power."""
    return eta_min + (1 - eta_min) * math.pow(1 - since / span, power)


def linear(since: int, span: int, *, hold: int, eta_min: float) -> float:
    """The polynomial of power 1, begun after `hold` steps at the full rate, the peak among them."""
    held = min(since, hold - 1)
    return polynomial(since - held, span - held, power=1.0, eta_min=eta_min)


def inverse_sqrt(since: int, span: int, *, timescale: int) -> float:
    """sqrt(timescale / (timescale + since)): 0.71 after one timescale, 0.5 after three (Zhai et al., 2106.04560)."""
    return math.sqrt(timescale / (timescale + since))


def cosine(since: int, span: int, *, eta_min: float) -> float:
    """eta_min + (1 - eta_min) (1 + cos(pi since / span)) / 2."""
    # as the square of the half angle's cosine, which does not cancel to 0 near the end
    return eta_min + (1 - eta_min) * math.cos(math.pi * since / (2 * span)) ** 2


def cosine_restarts(since: int, span: int, *, T_0: int, T_mult: int, eta_min: float) -> float:  # noqa: N803
    """SGDR (Loshchilov & Hutter 2017, 1608.03983, eq. 5): cosines of T_0, T_0 T_mult, T_0 T_mult^2, ... steps."""
    at, length = (since % T_0 if T_mult == 1 else since), T_0
    while at >= length:
        at, length = at - length, length * T_mult
    return cosine(at, length, eta_min=eta_min)


def step(since: int, span: int, *, step_size: int, factor: float, eta_min: float) -> float:
    """factor^floor(since / step_size), but not below eta_min."""
    return max(eta_min, math.pow(factor, since // step_size))


@dataclass(frozen=True)
class Schedule:
    """One row of `SCHEDULES`.

    Args:
        decay: multiplier after the peak, from the steps since it and the steps until the decay is complete.
        defaults: the settings it takes besides ``warmup``, with their defaults; None is decided by `resolve`.
    """

    decay: Callable[..., float]
    defaults: Mapping[str, Any] = field(default_factory=dict)


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(constant),
    "linear": Schedule(linear, {"hold": 1, "eta_min": 0.0}),
    "polynomial": Schedule(polynomial, {"power": 2.0, "eta_min": 0.0}),
    "inverse_sqrt": Schedule(inverse_sqrt, {"timescale": None}),
    "cosine": Schedule(cosine, {"eta_min": 0.0}),
    "cosine_restarts": Schedule(cosine_restarts, {"T_0": 0.25, "T_mult": 1, "eta_min": 0.0}),
    "step": Schedule(step, {"step_size": 0.3, "factor": 0.1, "eta_min": 0.0}),
    "plateau": Schedule(
        constant,
        {"metric": "eval_loss", "greater_is_better": None}
        | {"factor": 0.5, "patience": 1, "threshold": 0.0, "min_factor": 0.001},
    ),
}


def as_steps(value: Warmup, total: int) -> int:
    """Whole steps, at least 1: an int is the steps themselves, a float in [0, 1) that share of `total`, rounded up."""
    # rounded first, for 0.07 of 100 is 7 steps, though not in binary fractions
    return max(1, value if isinstance(value, int) else math.ceil(round(value * total, 6)))


def resolve(name: str, settings: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Every setting of the schedule, defaults filled in and shares of the total turned into steps.

    The timescale of inverse_sqrt is by default the warm-up steps, or a tenth of the total where there is no warm-up.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    found = {"warmup": 0, **SCHEDULES[name].defaults, **given}
    if found.get("timescale", 0) is None:
        found["timescale"] = found["warmup"] if as_steps(found["warmup"], total) > 1 else 0.1
    return {key: as_steps(value, total) if key in STEPS else value for key, value in found.items()}


def relative(settings: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """The settings with eta_min as a share of `learning_rate`, which is what a multiplier needs."""
    floor = settings.get("eta_min")
    return {**settings, "eta_min": floor / learning_rate} if floor else dict(settings)


def multiplier(step: int, total: int, warmup: Warmup = 0, *, name: str, **settings: Any) -> float:
    """What the base rate is multiplied by in optimizer step `step`.

    Args:
        step: from 0; `total` and later give the value of the last step.
        total: optimizer steps of the run, at least 1.
        warmup: steps (int) or share of the total (float in [0, 1)).
        name: a row of `SCHEDULES`.
        settings: of that row, such that `problem` is None; eta_min as a share of the base rate.

    Returns:
        A number in (0, 1].
    """
    found = resolve(name, {"warmup": warmup, **settings}, total)
    peak: int = found.pop("warmup") - 1
    at = min(step, total - 1)
    if at < peak:
        return (at + 1) / (peak + 1)
    share: float = SCHEDULES[name].decay(at - peak, total - peak, **found)
    return share


def simulate(name: str, settings: Mapping[str, Any], total: int, learning_rate: float = 1.0) -> list[float]:
    """The rate of every step, (total,), in the unit of `learning_rate`; of plateau as if each evaluation were better.

    Raises:
        ValueError: with the text of `problem`.
    """
    if found := problem(name, settings, total, learning_rate):
        raise ValueError(found)
    shares = relative(settings, learning_rate)
    return [learning_rate * multiplier(at, total, name=name, **shares) for at in range(total)]


@dataclass(frozen=True)
class Plateau:
    """What the loss-driven schedule remembers.

    Args:
        best: best finite value so far; None before the first.
        bad: evaluations in a row that were not better than it.
        level: product of the cuts so far, in [min_factor, 1].
    """

    best: float | None = None
    bad: int = 0
    level: float = 1.0


def observe(
    before: Plateau,
    value: float,
    *,
    greater_is_better: bool,
    factor: float,
    patience: int,
    threshold: float,
    min_factor: float,
) -> Plateau:
    """One evaluation of the loss-driven schedule.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau` with threshold_mode="abs", which unlike "rel" also holds for a
    metric below 0; but a value that is not finite is never better, and the floor is a share of the base rate.
    """
    sign = 1 if greater_is_better else -1
    if math.isfinite(value) and (before.best is None or sign * value > sign * before.best + threshold):
        return Plateau(value, 0, before.level)
    if before.bad < patience:
        return replace(before, bad=before.bad + 1)
    return Plateau(before.best, 0, max(before.level * factor, min_factor))


@dataclass(frozen=True)
class Limit:
    """The valid numbers of a setting, both ends included."""

    meaning: str
    low: float
    high: float = math.inf
    whole: bool = False


LIMITS: dict[str, Limit] = {
    "power": Limit("an exponent", 0.1, 10.0),
    "T_mult": Limit("the factor by which each cycle is longer than the one before", 1, whole=True),
    "factor": Limit("below 1, or the rate would never fall", 0.001, 0.999),
    "patience": Limit("the worse evaluations in a row that are borne", 0, whole=True),
    "threshold": Limit("the least improvement that counts, in the unit of the metric", 0.0),
    "min_factor": Limit("the lowest rate as a share of the base rate", 1e-6, 1.0),
}


def problem(
    name: str, settings: Mapping[str, Any], total: int | None = None, learning_rate: float = math.inf
) -> str | None:
    """The first thing wrong with a schedule, with what was found and the nearest valid value; None: nothing.

    Args:
        name: a row of `SCHEDULES`.
        settings: ``warmup`` and those of the row; None is a setting left out.
        total: optimizer steps of the run; left out where they are not known yet, and with them what depends on them.
        learning_rate: the peak; eta_min is a rate in its unit.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    return next(_problems(name, given, total, learning_rate), None)


def _problems(name: str, settings: dict[str, Any], total: int | None, learning_rate: float) -> Iterator[str]:
    if name not in SCHEDULES:
        yield f"schedule {name!r} is not known; {_one_of(name, SCHEDULES)}"
    if total is not None and total < 1:
        yield f"a schedule needs at least 1 optimizer step, found {total}; nearest valid value: 1"
    limits = LIMITS | {"eta_min": Limit("the lowest rate, not above the learning rate", 0.0, learning_rate)}
    for key, value in settings.items():
        if key != "warmup" and key not in SCHEDULES[name].defaults:
            yield f"{key} is no setting of {name}; {_one_of(key, ['warmup', *SCHEDULES[name].defaults])}"
        elif key in STEPS:
            yield from _wrong_steps(key, value, total)
        elif key in limits:
            yield from _wrong_number(key, value, limits[key])
    if name == "plateau":
        yield from _wrong_direction(settings)
    if name == "step" and total is not None:
        yield from _vanishing(resolve(name, settings, total), total)


def _one_of(found: str, names: Any) -> str:
    nearest = get_close_matches(str(found), list(names), n=1, cutoff=0.0)
    return f"one of {', '.join(names)}; nearest: {nearest[0]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong_steps(key: str, value: Any, total: int | None) -> Iterator[str]:
    least = 0 if key == "warmup" else 1
    wanted = f"{key} must be steps (a whole number from {least}) or a share of all steps (below 1)"
    if not _is_number(value):
        yield f"{wanted}, found {value!r}; a valid value: 0.1"
        return
    is_share = isinstance(value, float) and 0 <= value < 1 and (value > 0 or not least)
    most = math.inf if total is None or key == "timescale" else total
    if not is_share and (isinstance(value, float) or not least <= value <= most):
        limit = "" if most == math.inf else f"; the run has {total} steps"
        yield f"{wanted}, found {value!r}{limit}; nearest valid value: {min(max(round(value), least), most)}"


def _wrong_number(key: str, value: Any, limit: Limit) -> Iterator[str]:
    kind = "a whole number" if limit.whole else "a number"
    wanted = f"{key} must be {kind} in [{limit.low:g}, {limit.high:g}] ({limit.meaning}), found {value!r}"
    if not _is_number(value):
        yield f"{wanted}; a valid value: {limit.low:g}"
    elif not limit.low <= value <= limit.high or (limit.whole and not isinstance(value, int)):
        nearest = min(max(value, limit.low), limit.high)
        yield f"{wanted}; nearest valid value: {round(nearest) if limit.whole else nearest:g}"


def _wrong_direction(settings: dict[str, Any]) -> Iterator[str]:
    metric, greater = settings.get("metric", "eval_loss"), settings.get("greater_is_better")
    if not isinstance(metric, str) or not metric:
        yield f"metric must be the name of an evaluation metric, found {metric!r}; a valid value: eval_loss"
    elif greater is None and not metric.endswith("loss"):
        yield f"greater_is_better of {metric} must be given, found nothing; true for a score, false for an error"
    elif greater is not None and not isinstance(greater, bool):
        yield f"greater_is_better must be true or false, found {greater!r}; nearest valid value: {bool(greater)}"


def _vanishing(found: dict[str, Any], total: int) -> Iterator[str]:
    falling = total - found["warmup"]
    drops = falling // found["step_size"]
    allowed = math.floor(math.log(LEAST_SHARE) / math.log(found["factor"]))
    if not found["eta_min"] and drops > allowed:
        yield (
            f"step_size {found['step_size']} lowers the rate {drops} times by {found['factor']:g}, to nothing long "
            f"before step {total}; nearest valid value: {falling // (allowed + 1) + 1}, or an eta_min above 0"
        )
