"""Configuration of the training techniques: one section each, left out where the library's own way is wanted."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from nlptrain.config.section import Section

CLASSIFICATION_LOSSES = ("cross_entropy", "bce")
REGRESSION_LOSSES = ("mse", "huber", "cosine_mse", "cosent")


class LossConfig(Section):
    """What training lowers. Evaluation reports the same loss without class weights and label smoothing."""

    name: Literal["cross_entropy", "bce", "mse", "huber", "cosine_mse", "cosent"] | None = None
    """cross_entropy, bce (two classes); mse, huber, cosine_mse, cosent (scores); left out: cross_entropy or mse."""
    class_weights: str | dict[str, float] | None = None
    """balanced, or a weight for each label: how many times its rows, or tokens, count, scaled to a mean of 1."""
    delta: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """huber: error from which on the loss is linear, in standard deviations of the scores; left out: 1."""
    lowest_cosine: Literal[-1, 0] = 0
    """cosine_mse: the cosine of the lowest score; that of the highest is 1."""

    @property
    def needs_cosine(self) -> bool:
        """Whether the loss is one of the cosine of two embeddings."""
        return self.name in ("cosine_mse", "cosent")

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for label, weight in value.items():
                if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                    raise ValueError(f"the weight of {label!r} must be a finite number above 0, found {weight!r}")
        elif value not in (None, "balanced"):
            raise ValueError("expected balanced, or a weight for each label")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "LossConfig":
        if self.delta is not None and self.name != "huber":
            raise ValueError("delta belongs to name: huber")
        if self.lowest_cosine and self.name != "cosine_mse":
            raise ValueError("lowest_cosine belongs to name: cosine_mse")
        return self


class OptimConfig(Section):
    """The optimizer, in place of training.optim; base rate and decay stay training.learning_rate and weight_decay."""

    name: Literal[
        "adam",
        "adamw",
        "rmsprop",
        "adagrad",
        "sgd",
        "armijo",
        "schedule_free_adamw",
        "schedule_free_radam",
        "prodigy",
    ] = "adamw"
    """Which; armijo and prodigy find the rate themselves, schedule_free_* average the weights at a constant one."""
    decoupled: bool = True
    """Decay shrinks the weights themselves; false adds it to the gradient (classic L2; not for adamw)."""
    head_learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Rate of everything that is not encoder; left out: training.learning_rate."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the rate from each encoder layer to the one below; the embeddings are lowest."""
    decay_embeddings: bool = True
    """Whether embedding tables decay."""
    decay_schedule: Literal["constant", "linear", "cosine", "with_learning_rate"] = "constant"
    """How the decay changes over training."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Other settings of the optimizer: betas, eps, momentum, alpha, l2, d_coef; of armijo c, growth, ..."""

    @model_validator(mode="after")
    def _consistent(self) -> "OptimConfig":
        one_rate = self.name in ("armijo", "prodigy")
        if one_rate and (self.head_learning_rate is not None or self.layer_decay < 1):
            raise ValueError(
                f"{self.name} finds one rate for all weights: leave out head_learning_rate and layer_decay"
            )
        if (one_rate or self.averages) and self.decay_schedule != "constant":
            raise ValueError(f"{self.name} decays by itself, at its own rate: leave out decay_schedule")
        return self

    @property
    def searches(self) -> bool:
        """Whether the step size is found by a line search, so that there is no learning rate."""
        return self.name == "armijo"

    @property
    def averages(self) -> bool:
        """Whether an average of the weights takes the place of a falling rate."""
        return self.name.startswith("schedule_free")

    @property
    def decided(self) -> dict[str, Any]:
        """Fields of `training` that the choice of optimizer decides."""
        rates = {"schedule_free_adamw": "constant_with_warmup", "schedule_free_radam": "constant"}
        if self.averages:
            return {"lr_scheduler_type": rates[self.name], "fp16": False}
        if self.searches:
            return {"learning_rate": 1.0, "max_grad_norm": 0.0}
        return {"learning_rate": 1.0} if self.name == "prodigy" else {}


class ClippingConfig(Section):
    """How gradients are limited, in place of training.max_grad_norm."""

    by: Literal["norm", "value", "percentile", "adaptive"]
    """norm: of all gradients; value: each element; percentile: of the norms so far; adaptive: each row's."""
    threshold: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Norm, absolute value, percentile up to 100, or ratio; left out: 1, 1, 10, 0.01."""
    window: int = Field(default=1000, ge=1)
    """Newest norms that a percentile is taken of."""
    floor: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    """Weight norm that a row of smaller weights counts as (adaptive)."""
    exclude: list[str] = Field(default_factory=list)
    """Modules that adaptive leaves alone, by name."""

    @model_validator(mode="after")
    def _consistent(self) -> "ClippingConfig":
        if self.by == "percentile" and (self.threshold or 0) > 100:
            raise ValueError(f"a percentile is at most 100, found {self.threshold}: the nearest valid value is 100")
        if self.exclude and self.by != "adaptive":
            raise ValueError("exclude belongs to by: adaptive")
        return self


class ScheduleConfig(Section):
    """How the learning rate goes over the optimizer steps, in place of training.lr_scheduler_type and warmup_steps."""

    name: Literal["constant", "linear", "polynomial", "inverse_sqrt", "cosine", "cosine_restarts", "step", "plateau"]
    """Each warms up first, and none has a step of rate 0."""
    warmup: int | float = 0.06
    """Steps (a whole number) or share of all steps (below 1) until the full rate."""
    hold: int | float | None = None
    """linear: steps or share at the full rate after the warmup, before the decay."""
    eta_min: float | None = None
    """Lowest rate, in the unit of the learning rate (linear, polynomial, cosine, cosine_restarts, step)."""
    power: float | None = None
    """Exponent of polynomial, 0.1 to 10."""
    timescale: int | float | None = None
    """inverse_sqrt: steps or share after which the rate is 0.71 of its peak; left out: the warmup."""
    T_0: int | float | None = None
    """cosine_restarts: steps or share of the first cycle."""
    T_mult: int | None = None
    """cosine_restarts: each cycle is so many times as long as the one before."""
    step_size: int | float | None = None
    """step: steps or share between two cuts."""
    factor: float | None = None
    """step, plateau: what a cut multiplies the rate by, 0.001 to 0.999."""
    patience: int | None = None
    """plateau: worse evaluations in a row that are borne."""
    threshold: float | None = None
    """plateau: least improvement, in units of the task's primary metric."""
    min_factor: float | None = None
    """plateau: lowest rate as a share of the base rate."""

    def settings(self, metric: str, *, greater_is_better: bool) -> dict[str, Any]:
        """What was given; a plateau is one of `metric` in its own direction."""
        given = self.model_dump(exclude={"name"}, exclude_none=True)
        if self.name == "plateau":
            given |= {"metric": f"eval_{metric}", "greater_is_better": greater_is_better}
        return given
