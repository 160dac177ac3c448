"""The user's own task, written inline in a configuration."""

from typing import Annotated

from pydantic import Field, model_validator

from nlptrain.config.section import Section
from nlptrain.metrics.registry import METRICS
from nlptrain.tasks import KINDS, OUTSIDE, Kind, TaskSpec, is_tag

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Column = Annotated[str, Field(min_length=1)]


class TaskConfig(Section):
    """The user's own task, written inline."""

    name: Name = "custom"
    """Shown in results; with NLPTRAIN_DATA set, also the folder that is read when `data` names no files."""
    kind: Kind
    """classification (two or more classes), regression (one real score per row) or token_classification (BIO tags)."""
    text: list[Column] = Field(default=["text"], min_length=1, max_length=2)
    """One text column, or two for pairs; of a token classification, the column of tokens."""
    label: Column = "label"
    """Column of labels (names or numbers), scores, or tags."""
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
        usual = KINDS[self.kind].metrics
        wrong = [m for m in [*(self.metrics or []), *filter(None, [self.primary])] if m not in METRICS]
        if wrong:
            raise ValueError(f"unknown metric {wrong[0]!r}; one of {', '.join(METRICS)}")
        if foreign := [m for m in self.metrics or [] if METRICS[m].kind != self.kind]:
            raise ValueError(f"metric {foreign[0]!r} is not for {self.kind}; one of {', '.join(usual)}")
        if self.primary and self.primary not in (self.metrics or usual):
            raise ValueError(f"primary metric {self.primary!r} is not among the metrics {self.metrics or list(usual)}")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"range must be [low, high] with low < high, found {self.range}")
        if self.range if KINDS[self.kind].names_classes else self.labels:
            raise ValueError("`labels` belongs to classification, `range` to regression")
        return self

    @model_validator(mode="after")
    def _tags(self) -> "TaskConfig":
        if not KINDS[self.kind].by_token:
            return self
        if len(self.text) == 2:
            raise ValueError(f"{self.kind} reads one column of tokens, found {self.text}: name one")
        if wrong := [name for name in self.labels or () if not is_tag(name)]:
            raise ValueError(f"labels must be O, or B- or I- and a type such as B-PER, found {wrong[0]!r}")
        if self.labels and OUTSIDE not in self.labels:
            raise ValueError(f"labels must contain {OUTSIDE!r}, the tag of a token in no entity; put it first")
        return self

    def spec(self) -> TaskSpec:
        """The task as a row of `nlptrain.tasks`."""
        metrics = tuple(self.metrics or KINDS[self.kind].metrics)
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
