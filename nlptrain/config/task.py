"""The user's own task, written inline in a configuration."""

from typing import Annotated

from pydantic import Field, model_validator

from nlptrain.config.section import Section
from nlptrain.metrics.registry import METRICS
from nlptrain.tasks import CLASSIFICATION_METRICS, REGRESSION_METRICS, Kind, TaskSpec

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Column = Annotated[str, Field(min_length=1)]


class TaskConfig(Section):
    """The user's own task, written inline."""

    name: Name = "custom"
    """Shown in results; with NLPTRAIN_DATA set, also the folder that is read when `data` names no files."""
    kind: Kind
    """classification (two or more classes) or regression (one real score per row)."""
    text: list[Column] = Field(default=["text"], min_length=1, max_length=2)
    """One text column, or two for pairs."""
    label: Column = "label"
    """Column of labels (names or numbers) or scores."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Class names in the order of their ids; left out: those of the training rows, sorted."""
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Lowest and highest valid score of a regression; a score outside is an error."""
    metrics: list[str] | None = None
    """Reported metrics; left out: the usual ones of the kind."""
    primary: str | None = None
    """The metric that selects checkpoints; left out: the first of `metrics`."""

    @model_validator(mode="after")
    def _consistent(self) -> "TaskConfig":
        usual = CLASSIFICATION_METRICS if self.kind == "classification" else REGRESSION_METRICS
        wrong = [m for m in [*(self.metrics or []), *filter(None, [self.primary])] if m not in METRICS]
        if wrong:
            raise ValueError(f"unknown metric {wrong[0]!r}; one of {', '.join(METRICS)}")
        if foreign := [m for m in self.metrics or [] if METRICS[m].kind != self.kind]:
            raise ValueError(f"metric {foreign[0]!r} is not for {self.kind}; one of {', '.join(usual)}")
        if self.primary and self.primary not in (self.metrics or usual):
            raise ValueError(f"primary metric {self.primary!r} is not among the metrics {self.metrics or list(usual)}")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"range must be [low, high] with low < high, found {self.range}")
        if self.kind == "regression" and self.labels or self.kind == "classification" and self.range:
            raise ValueError("`labels` belongs to classification, `range` to regression")
        return self

    def spec(self) -> TaskSpec:
        """The task as a row of `nlptrain.tasks`."""
        usual = CLASSIFICATION_METRICS if self.kind == "classification" else REGRESSION_METRICS
        metrics = tuple(self.metrics or usual)
        return TaskSpec(
            name=self.name,
            kind=self.kind,
            text=tuple(self.text),
            label=self.label,
            labels=tuple(self.labels) if self.labels else None,
            label_range=(self.range[0], self.range[1]) if self.range else None,
            metrics=metrics,
            primary=self.primary or metrics[0],
        )
