"""Configuration of the second-order refinement of the head, checked without importing the libraries that do it."""

import math
from typing import Any, Literal

from pydantic import Field, field_validator

from nlptrain.config.heads import HeadConfig
from nlptrain.config.section import Section
from nlptrain.tasks import TaskSpec

FIT, TEMPERATURE, GUARD = "fit", "temperature", "guard"


class RefineConfig(Section):
    """The head fitted by a second-order method on features of the encoder, which are computed once."""

    when: list[Literal["before", "after"]] = ["after"]
    """before: the new head on the encoder as it was published, then fine-tuning; after: the fine-tuned head again; an
    empty list only holds rows out, for `nlptrain refine`."""
    method: Literal[
        "auto", "ridge", "newton", "newton-exact", "bfgs", "bfgs-armijo", "lbfgs", "newton-cg", "trust-exact"
    ] = "auto"
    """The solver; auto: the closed form of a regression, else Newton (in a trust region where the hidden units are
    smooth), or L-BFGS where its matrices are too large."""
    part: Literal["head", "embedding"] = "head"
    """embedding: also the layer that makes the embedding which the last layer reads, as BERT's pooler; of stock models,
    for the heads of ours are refined with their hidden layer."""
    l2: float | str = "auto"
    """Strength of the penalty on standardised features, above 0; auto: by leave-one-out, for a linear fit."""
    rows: Literal["held_out", "train"] = "held_out"
    """What after is fitted on: rows that fine-tuning never saw, or the training rows."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training rows kept from fine-tuning for after and calibrate: equal parts for the fit (rows:
    held_out), the temperature and the guard."""
    proximal: bool = True
    """Whether the penalty of after pulls towards the fine-tuned head, instead of 0."""
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """By how much the primary metric may be worse on the guard's rows for the refined head to be accepted."""
    calibrate: bool = False
    """Whether probabilities are served at a temperature that is fitted on held-out rows."""

    @field_validator("l2", mode="before")
    @classmethod
    def _strength(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (number and 0 < value < math.inf):
            raise ValueError("expected auto, or a finite number above 0")
        return float(value) if number else value

    @property
    def parts(self) -> tuple[str, ...]:
        """What the held-out rows are for, in equal parts."""
        if not (self.when or self.calibrate):
            return FIT, TEMPERATURE, GUARD
        after = "after" in self.when
        found = {FIT: after and self.rows == "held_out", TEMPERATURE: self.calibrate, GUARD: after}
        return tuple(name for name, needed in found.items() if needed)


def refine_problem(
    refine: RefineConfig, task: TaskSpec, output: str, head: HeadConfig | None, *, stock: bool, weighted: bool
) -> str | None:
    """Why a `refine` section does not fit the rest, or None; `weighted`: whether training weighs or repeats rows."""
    classes = task.kind == "classification"
    embedding = refine.part == "embedding"
    # of several layers the last is refined, which is linear
    hidden = embedding or (head is not None and len(head.hidden) == 1)
    if embedding and not stock:
        return (
            "refine.part: embedding is for architecture stock: before a head that is linear in the embedding, a linear "
            "map changes nothing that the head cannot do, and a hidden layer is refined already; leave it out"
        )
    if task.facts.by_token:
        return f"refine is for one target a row; task {task.name!r} is {task.kind}: leave it out"
    if output == "cosine" or (output == "sigmoid" and not classes):
        return f"refine: output {output} of a regression is no linear function of the head: use output linear"
    if refine.calibrate and not classes:
        return f"refine.calibrate is for probabilities; task {task.name!r} is {task.kind}: leave it out"
    if refine.method == "ridge" and (classes or hidden):
        return "refine.method: ridge needs a regression and a head without a hidden layer; use newton"
    if weighted and refine.when:
        return "refine counts every row once; leave out loss.class_weights and data.balance, or refine"
    if hidden and refine.when and refine.l2 == "auto":
        return "refine.l2: auto needs a linear fit, and this head has a hidden layer; give a number such as 0.01"
    return None
