"""Configuration of the head and of the encoder's activation, checked without importing the libraries that have them."""

from difflib import get_close_matches
from typing import Literal

from pydantic import Field, field_validator

from nlptrain.config.section import Section
from nlptrain.tasks import TaskSpec

# the activations of transformers by name; those with weights of their own are left out
ENCODER_ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2"),
    *("relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh"),
)


class HeadConfig(Section):
    """A head with hidden layers."""

    hidden: list[int]
    """Widths of the hidden layers, from the embedding to the output."""
    activation: Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"] = "leaky_relu"
    """Between the layers; leaky_relu has slope 0.01 below 0."""
    skip: bool = False
    """Whether the embedding also leads to the output directly, by a linear layer."""

    @field_validator("hidden")
    @classmethod
    def _has_layers(cls, hidden: list[int]) -> list[int]:
        if not hidden:
            raise ValueError("needs at least one width; for a linear head leave model.head out")
        if min(hidden) < 1:
            nearest = [max(width, 1) for width in hidden]
            raise ValueError(f"widths must be at least 1; the nearest valid value is {nearest}")
        return hidden


class EmbeddingsConfig(Section):
    """A bound on the rows of the table of token embeddings, held after every optimizer step."""

    table: Literal["unit", "max"]
    """unit: every row has norm 1; max: none has more than `max_norm`. The padding row is left alone."""
    max_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The bound of max."""


def activation_problem(name: str | None, *, pretrained: bool) -> str | None:
    """What is wrong with ``model.hidden_act``, or None."""
    if name is None:
        return None
    if name not in ENCODER_ACTIVATIONS:
        near = get_close_matches(name, ENCODER_ACTIVATIONS, n=1, cutoff=0)[0]
        return f"hidden_act: unknown activation {name!r}; the nearest valid name is {near!r}"
    if pretrained:
        return (
            "hidden_act changes what pretrained weights compute; leave it out, or train from scratch with "
            "pretrained: false"
        )
    return None


def output_problem(output: str, task: TaskSpec) -> str | None:
    """Why ``model.output`` does not fit the task, or None; labels yet to be learnt may turn out more than two."""
    if output == "softmax" and not task.facts.names_classes:
        return f"output softmax is for classes; task {task.name!r} is {task.kind}: use linear or sigmoid"
    if output == "sigmoid" and task.kind == "regression" and not task.label_range:
        return "output sigmoid keeps scores within the task's range: give task.range: [low, high], or use linear"
    if output == "sigmoid" and task.facts.by_token:
        return f"output sigmoid tells two classes of rows apart; task {task.name!r} is {task.kind}: use softmax"
    if output == "sigmoid" and task.labels and len(task.labels) != 2:
        return f"output sigmoid tells two classes apart; task {task.name!r} has {len(task.labels)}: use softmax"
    return None
