"""The configuration: one frozen section per stage, each field with its meaning, default and range.

A section is what its stage receives; nothing else of the configuration travels.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nlptrain import schedules
from nlptrain.config.parts import ClippingConfig, OptimConfig, ScheduleConfig
from nlptrain.config.report import ReportConfig
from nlptrain.config.section import Section
from nlptrain.metrics.registry import METRICS
from nlptrain.tasks import CLASSIFICATION_METRICS, REGRESSION_METRICS, TASKS, Kind, TaskSpec

OPTIMIZER_FIELDS = ("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")
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


class DataConfig(Section):
    """Where the rows are and how strictly they are read."""

    train: str | None = None
    """A .csv, .tsv, .jsonl or .parquet file, package://import.name/path, or a Hub data set (nyu-mll/glue:sst2)."""
    validation: str | None = None
    """As `train`; left out: a stratified part of the training rows."""
    test: str | None = None
    """As `train`; left out: no test scores."""
    encoding: str = "utf-8"
    """Text encoding of CSV, TSV and JSONL files; never guessed."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Column separator; left out: a comma for .csv, a tab for .tsv."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training rows that becomes the validation split where none is given."""
    leakage: Literal["error", "allow", "drop"] = "error"
    """Training rows whose texts also stand in another split: stop, keep and count, or drop from training and count."""
    duplicates: Literal["error", "allow", "drop"] = "allow"
    """Identical rows within a split: stop, keep and count, or keep the first and count (training rows only)."""
    empty_text: Literal["error", "allow", "drop"] = "error"
    """Rows without any text: stop, keep and count, or drop and count (never dropped from predictions)."""
    max_length: int = Field(default=256, ge=8)
    """Tokens per row, special tokens included; longer rows are truncated and counted."""


class ModelConfig(Section):
    """The encoder and what is put on it."""

    name: str | None = None
    """A folder, a Hub id or package://import.name/path; left out: all-MiniLM-L6-v2, packaged or from the Hub."""
    architecture: Literal["stock", "cross_encoder", "bi_encoder"] = "cross_encoder"
    """stock: the library's own model; cross_encoder: one sequence, our head; bi_encoder: each text embedded."""
    pooling: Literal["cls", "mean", "max"] = "mean"
    """How token states become one embedding (not for stock)."""
    output: Literal["linear", "cosine"] = "linear"
    """linear: a linear head; cosine: the cosine of the two embeddings of a bi_encoder regression."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout inside the encoder and before the head."""
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that training hides a token behind the mask token (not for stock)."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.token_dropout and self.architecture == "stock":
            raise ValueError("token_dropout is not for architecture stock, which stays as it is: use cross_encoder")
        if self.output == "cosine" and self.architecture != "bi_encoder":
            raise ValueError("output cosine needs architecture bi_encoder")
        return self


class EarlyStopping(Section):
    """Stop when the primary metric no longer improves."""

    patience: int | None = Field(default=None, ge=1)
    """Evaluations without improvement before training stops; left out: never."""
    threshold: float = Field(default=0.0, ge=0)
    """What counts as an improvement, in units of the metric."""


class Config(Section):
    """One experiment."""

    task: str | TaskConfig
    """A name from `nlptrain tasks`, or a task written inline."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: dict[str, Any] = Field(default_factory=dict)
    """Any field of transformers.TrainingArguments by its own name; bf16 may also be auto."""
    optim: OptimConfig | None = None
    """The optimizer, in place of training.optim."""
    clipping: ClippingConfig | None = None
    """Gradient clipping, in place of training.max_grad_norm."""
    schedule: ScheduleConfig | None = None
    """The learning rate over time, in place of training.lr_scheduler_type."""
    early_stopping: EarlyStopping = EarlyStopping()
    report: ReportConfig = ReportConfig()
    """What is said about the result; none of it changes the model."""

    @model_validator(mode="after")
    def _fits_task(self) -> "Config":
        if isinstance(self.task, str) and self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; one of {', '.join(TASKS)}, or a task written inline")
        spec = self.spec
        if self.model.architecture == "bi_encoder" and not spec.is_pair:
            raise ValueError(
                f"architecture bi_encoder needs a pair of texts; task {spec.name!r} has one: use cross_encoder"
            )
        if self.model.output == "cosine" and spec.kind != "regression":
            raise ValueError(f"output cosine gives one score; task {spec.name!r} is {spec.kind}: use linear")
        return self

    @model_validator(mode="after")
    def _decided_once(self) -> "Config":
        twice = [key for key, value in self.replaced.items() if self.training.get(key, value) != value]
        twice += [key for key in OPTIMIZER_FIELDS if self.optim and key in self.training]
        if twice:
            raise ValueError(f"training.{twice[0]}: a section of this file takes its place; set one of them")
        if self.schedule and (wrong := schedules.problem(self.schedule.name, self.schedule_settings)):
            raise ValueError(f"schedule: {wrong}")
        return self

    @property
    def replaced(self) -> dict[str, Any]:
        """Fields of `training` whose place a section takes, with the values that switch the library's way off."""
        clipping = {"max_grad_norm": 0.0} if self.clipping else {}
        return clipping | ({"lr_scheduler_type": "constant", "warmup_steps": 0} if self.schedule else {})

    @property
    def schedule_settings(self) -> dict[str, Any]:
        """Settings of the schedule, with the direction of the primary metric."""
        metric = METRICS[self.spec.primary]
        if self.schedule is None:
            return {}
        return self.schedule.settings(metric.name, greater_is_better=metric.greater_is_better)

    @property
    def spec(self) -> TaskSpec:
        """The row of `nlptrain.tasks` this experiment is about."""
        return TASKS[self.task] if isinstance(self.task, str) else self.task.spec()
