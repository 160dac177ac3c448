"""The configuration: one frozen section per stage, each field with its meaning, default and range.

A section is what its stage receives; nothing else of the configuration travels.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from nlptrain import schedules
from nlptrain.config.heads import EmbeddingsConfig, HeadConfig, activation_problem, output_problem
from nlptrain.config.parts import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    ClippingConfig,
    LossConfig,
    OptimConfig,
    ScheduleConfig,
)
from nlptrain.config.refine import RefineConfig, refine_problem
from nlptrain.config.report import Baseline, ReportConfig
from nlptrain.config.section import Section
from nlptrain.config.task import TaskConfig
from nlptrain.metrics.registry import METRICS
from nlptrain.tasks import TASKS, TaskSpec

OPTIMIZER_FIELDS = ("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")
# what a line search cannot be exact with; the callback says why
UNSEARCHABLE_FIELDS = ("fp16", "fsdp", "deepspeed", "torch_compile")
# the share of the found step that is taken: without a fall at the end the score stays below that of a tuned rate
SEARCH_SCHEDULE = {"name": "linear", "warmup": 0, "hold": 0.3}


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
    balance: Literal["none", "oversample"] = "none"
    """oversample: an epoch repeats rows of the rarer classes until each class comes as often as the largest."""
    clean: list[Literal["nfc", "control", "html_entities", "html_tags", "whitespace", "lowercase"]] = []
    """Steps that clean every text before it is tokenised or compared, in this order; HTML: tags before entities."""
    max_length: int = Field(default=256, ge=8)
    """Tokens per row, special tokens included; longer rows are truncated and counted."""

    @model_validator(mode="after")
    def _each_step_once(self) -> "DataConfig":
        if twice := [step for step in self.clean if self.clean.count(step) > 1]:
            raise ValueError(f"clean: {twice[0]} stands twice; no step changes what it has cleaned, so give it once")
        return self


class ModelConfig(Section):
    """The encoder and what is put on it."""

    name: str | None = None
    """A folder, a Hub id or package://import.name/path; left out: all-MiniLM-L6-v2, packaged or from the Hub."""
    architecture: Literal["stock", "cross_encoder", "bi_encoder"] = "cross_encoder"
    """stock: the library's own model; cross_encoder: one sequence, our head; bi_encoder: each text embedded."""
    pooling: Literal["cls", "mean", "max"] = "mean"
    """How token states become one embedding (not for stock, nor for token_classification)."""
    output: Literal["linear", "softmax", "sigmoid", "cosine"] = "linear"
    """linear: what the head gives; softmax: the same, for a classification; sigmoid: two classes by one logit, or a
    score within the task's range; cosine: the cosine of the two embeddings of a bi_encoder regression."""
    head: HeadConfig | None = None
    """A head with hidden layers (not for stock); left out: a linear one."""
    normalize: Literal["none", "l2", "standardize", "whiten", "all_but_the_top"] = "none"
    """What is done to embeddings before the head, by statistics of the training rows; l2 not for stock."""
    normalize_components: int | None = Field(default=None, ge=1)
    """Components that whiten keeps (left out: all) or all_but_the_top removes (left out: one in 100)."""
    pretrained: bool = True
    """false: random weights in place of the pretrained ones, for training from scratch."""
    hidden_act: str | None = None
    """Another activation inside the encoder, by its name in transformers; needs pretrained: false."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout inside the encoder and in the head."""
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that training hides a token behind the mask token (not for stock)."""
    target: Literal["standardize", "min_max", "none"] = "standardize"
    """Unit in which a regression learns: z-scores of the training rows, [0, 1] over the task's range, or yours."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.token_dropout and self.architecture == "stock":
            raise ValueError("token_dropout is not for architecture stock, which stays as it is: use cross_encoder")
        if self.output == "cosine" and self.architecture != "bi_encoder":
            raise ValueError("output cosine needs architecture bi_encoder")
        return self

    @model_validator(mode="after")
    def _fits_architecture(self) -> "ModelConfig":
        if self.output == "cosine" and self.head:
            raise ValueError("output cosine takes no head; leave head out, or use output linear")
        if self.output == "sigmoid" and self.target != "standardize":
            raise ValueError("output sigmoid has a unit of its own, the task's range: leave target out")
        if self.architecture == "stock" and (self.head or self.output == "sigmoid"):
            raise ValueError("architecture stock has its own head and output: use cross_encoder")
        if self.architecture == "stock" and self.normalize == "l2":
            raise ValueError("l2 cannot be folded into the linear layer of a stock model: use cross_encoder")
        if self.normalize_components and self.normalize not in ("whiten", "all_but_the_top"):
            raise ValueError("normalize_components belongs to normalize: whiten or all_but_the_top")
        if problem := activation_problem(self.hidden_act, pretrained=self.pretrained):
            raise ValueError(problem)
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
    loss: LossConfig = LossConfig()
    """What training lowers."""
    optim: OptimConfig | None = None
    """The optimizer, in place of training.optim."""
    clipping: ClippingConfig | None = None
    """Gradient clipping, in place of training.max_grad_norm."""
    schedule: ScheduleConfig | None = None
    """The learning rate over time, in place of training.lr_scheduler_type."""
    embeddings: EmbeddingsConfig | None = None
    """A bound on the table of token embeddings; left out: none."""
    early_stopping: EarlyStopping = EarlyStopping()
    refine: RefineConfig | None = None
    """Second-order refinement of the head, and calibration; left out: neither."""
    report: ReportConfig = ReportConfig()
    """What is said about the result; none of it changes the model."""

    @model_validator(mode="before")
    @classmethod
    def _schedule_of_search(cls, given: Any) -> Any:
        optim = given.get("optim") if isinstance(given, dict) else None
        searches = isinstance(optim, dict) and optim.get("name") == "armijo"
        return given | {"schedule": SEARCH_SCHEDULE} if searches and given.get("schedule") is None else given

    @model_validator(mode="after")
    def _fits_task(self) -> "Config":
        if isinstance(self.task, str) and self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; one of {', '.join(TASKS)}, or a task written inline")
        spec = self.spec
        if self.model.architecture == "bi_encoder" and not spec.is_pair:
            raise ValueError(
                f"architecture bi_encoder needs a pair of texts; task {spec.name!r} has one: use cross_encoder"
            )
        if self.model.target != "standardize" and spec.kind != "regression":
            raise ValueError(
                f"model.target is the unit of a regression; task {spec.name!r} is {spec.kind}: leave it out"
            )
        if self.model.output == "cosine" and spec.kind != "regression":
            raise ValueError(f"output cosine gives one score; task {spec.name!r} is {spec.kind}: use linear")
        if problem := output_problem(self.model.output, spec):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _fits_tokens(self) -> "Config":
        model, data, spec = self.model, self.data, self.spec
        unfit = {
            "model.pooling makes one embedding of a row": model.pooling != ModelConfig().pooling,
            "model.normalize is for the one embedding of a row": model.normalize != "none",
            "data.clean could part tokens from their tags": bool(data.clean),
            "data.balance counts rows by their class, and these have many": data.balance != "none",
            "report.baselines: tfidf and frozen are of whole texts": bool({"tfidf", "frozen"} & set(self.baselines)),
            "data.empty_text: allow would keep rows without any token": data.empty_text == "allow",
        }
        if spec.facts.by_token and (wrong := [reason for reason, is_so in unfit.items() if is_so]):
            raise ValueError(f"{wrong[0]}; task {spec.name!r} is {spec.kind}: leave it out")
        return self

    @model_validator(mode="after")
    def _refine_fits(self) -> "Config":
        weighted = bool(self.loss.class_weights) or self.data.balance != "none"
        chosen = self.refine
        if chosen and (
            wrong := refine_problem(chosen, self.spec, self.model.output, self.model.head, weighted=weighted)
        ):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _loss_fits(self) -> "Config":
        if wrong := self._loss_problem():
            raise ValueError(wrong)
        return self

    def _loss_problem(self) -> str | None:
        spec, loss, name = self.spec, self.loss, self.loss_name
        usual = REGRESSION_LOSSES if spec.kind == "regression" else CLASSIFICATION_LOSSES
        if name not in usual:
            return f"loss {name} is not for {spec.kind}; one of {', '.join(usual)}"
        if spec.kind == "regression" and (loss.class_weights or self.data.balance != "none"):
            return f"loss.class_weights and data.balance are for classification; task {spec.name!r} is {spec.kind}"
        if loss.class_weights == "balanced" and self.data.balance == "oversample":
            return "loss.class_weights: balanced and data.balance: oversample both make up for rare classes; set one"
        if name != "cross_entropy" and self.training.get("label_smoothing_factor"):
            return f"training.label_smoothing_factor is for loss cross_entropy, not for {name}; leave it out"
        if loss.needs_cosine and self.model.output != "cosine":
            return f"loss {name} is one of a cosine: it needs model.architecture bi_encoder and model.output cosine"
        if name == "cosent" and (self.training.get("gradient_accumulation_steps") or 1) != 1:
            return (
                "loss cosent compares the rows of a micro-batch: with training.gradient_accumulation_steps they would "
                "be other pairs than those of one batch; set it to 1"
            )
        if name == "cosent" and spec.primary not in ("pearson", "spearman"):
            return f"loss cosent learns no unit, so {spec.primary} cannot select; set task.primary: pearson or spearman"
        return None

    @model_validator(mode="after")
    def _decided_once(self) -> "Config":
        twice = [key for key, value in self.replaced.items() if self.training.get(key, value) != value]
        twice += [key for key in OPTIMIZER_FIELDS if self.optim and key in self.training]
        if self.optim and self.optim.averages and self.schedule and self.schedule.name != "constant":
            rule = f"optim {self.optim.name} averages weights instead of lowering the rate"
            raise ValueError(f"schedule: {rule}; found {self.schedule.name}, use constant, which may warm up")
        if twice:
            value = f" and makes it {self.replaced[twice[0]]}" if twice[0] in self.replaced else ""
            raise ValueError(f"training.{twice[0]}: a section of this file takes its place{value}; set one of them")
        if self.optim and self.optim.searches:
            beside = [f"training.{key}" for key in UNSEARCHABLE_FIELDS if self.training.get(key)]
            if beside := beside + ["clipping"] * (self.clipping is not None):
                raise ValueError(f"optim armijo must see the loss and its own gradients whole: leave out {beside[0]}")
        if self.schedule and (wrong := schedules.problem(self.schedule.name, self.schedule_settings)):
            raise ValueError(f"schedule: {wrong}")
        return self

    @property
    def baselines(self) -> list[Baseline]:
        """What is scored beside the model."""
        if self.report.baselines is not None:
            return self.report.baselines
        if self.spec.facts.by_token:
            return ["constant"]
        return ["constant", "tfidf", "frozen"] if self.model.pretrained else ["constant", "tfidf"]

    @property
    def loss_name(self) -> str:
        """The loss, where none is named the usual one of the kind."""
        return self.loss.name or ("mse" if self.spec.kind == "regression" else "cross_entropy")

    @property
    def replaced(self) -> dict[str, Any]:
        """Fields of `training` whose place a section takes, with the values that switch the library's way off."""
        decided = self.optim.decided if self.optim else {}
        clipping = {"max_grad_norm": 0.0} if self.clipping else {}
        return decided | clipping | ({"lr_scheduler_type": "constant", "warmup_steps": 0} if self.schedule else {})

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
