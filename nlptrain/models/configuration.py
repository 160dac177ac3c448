"""What a trained model of ours is, as its config.json says it; importing this module registers it with AutoConfig."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

Architecture = Literal["cross_encoder", "bi_encoder"]
Pooling = Literal["cls", "mean", "max", "none"]
Output = Literal["linear", "softmax", "sigmoid", "cosine"]
Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
Normalization = Literal["none", "l2", "standardize", "whiten", "all_but_the_top"]


@strict
class NlpTrainConfig(PreTrainedConfig):
    """Configuration of `NlpTrainForSequenceClassification` and `NlpTrainForTokenClassification`.

    Attributes:
        encoder: configuration of the text encoder; any model type that `AutoModel` knows.
        architecture: cross_encoder reads a text or a pair as one sequence; bi_encoder embeds each text of a pair.
        pooling: how the token states of a sequence become one embedding; none: they do not, each gets its own logits.
        output: linear hands out what the head gives; softmax is the same for a classification and says so; sigmoid is
            one logit z, handed out as [0, z] by a classification of two classes and as ``target_low + (target_high -
            target_low) * sigmoid(z)`` by a regression; cosine is the scaled cosine of the two embeddings.
        head_hidden: widths of the hidden layers of the head; None: a linear head.
        head_activation: between hidden layers.
        head_skip: whether a head with hidden layers also has a linear way past them.
        head_dropout: dropout probability in the head, in [0, 1).
        normalize: what `EmbeddingNormalizer` does to each embedding before the head.
        normalize_components: components that whiten keeps or all_but_the_top removes; None: its default.
        token_dropout: probability that training hides a token behind the mask token, in [0, 1).
        target_mean: regression only, in the user's unit; a score is ``z * target_scale + target_mean``.
        target_scale: as `target_mean`, above 0; the loss is that of z. Of a sigmoid only the unit of the loss.
        target_low: lowest score of a sigmoid regression.
        target_high: highest score of a sigmoid regression.
        temperature: of a classification of rows, above 0: the logits handed out are divided by it.
        cls_token_id: first token of a sequence; the bi-encoder builds the two single sequences with it.
        separator_token_id: last token of a sequence and, in a pair, between the texts.
        pad_token_id: fills up short sequences.
        mask_token_id: stands for a token that token_dropout hides.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value has the wrong type, is out of range
            or does not fit another.
    """

    model_type = "nlptrain"
    sub_configs_defaults = {"encoder": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder: PreTrainedConfig | dict[str, Any] | None = None
    architecture: Architecture = "cross_encoder"
    pooling: Pooling = "mean"
    output: Output = "linear"
    head_hidden: list[int] | None = None
    head_activation: Activation = "leaky_relu"
    head_skip: bool = False
    head_dropout: float = 0.1
    normalize: Normalization = "none"
    normalize_components: int | None = None
    token_dropout: float = 0.0
    target_mean: float = 0.0
    target_scale: float = 1.0
    target_low: float | None = None
    target_high: float | None = None
    temperature: float = 1.0
    cls_token_id: int | None = None
    separator_token_id: int | None = None
    pad_token_id: int | None = None
    mask_token_id: int | None = None
    problem_type: Literal["regression", "single_label_classification"] = "single_label_classification"

    def validate_ranges(self) -> None:
        """Check the numbers."""
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout must be in [0, 1), found {self.head_dropout}")
        if not 0 <= self.token_dropout < 1:
            raise ValueError(f"token_dropout must be in [0, 1), found {self.token_dropout}")
        if not math.isfinite(self.target_mean):
            raise ValueError(f"target_mean must be finite, found {self.target_mean}")
        if not (math.isfinite(self.target_scale) and self.target_scale > 0):
            raise ValueError(f"target_scale must be finite and above 0, found {self.target_scale}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be finite and above 0, found {self.temperature}")

    def validate_head(self) -> None:
        """Check the hidden layers."""
        if self.head_hidden is None and self.head_skip:
            raise ValueError("head_skip belongs to a head with hidden layers")
        if self.head_hidden is not None and (not self.head_hidden or min(self.head_hidden) < 1):
            raise ValueError(f"head_hidden must be widths of at least 1, found {self.head_hidden}")
        if self.head_hidden is not None and self.output == "cosine":
            raise ValueError("output cosine has no hidden layers, found head_hidden")

    def validate_sigmoid(self) -> None:
        """Check that a sigmoid has what it needs."""
        bounds = (self.target_low, self.target_high)
        if (self.output == "sigmoid" and self.problem_type == "regression") != (None not in bounds):
            raise ValueError(f"target_low and target_high belong to a regression by sigmoid, found {bounds}")
        if self.target_low is not None and self.target_high is not None:
            if not (-math.inf < self.target_low < self.target_high < math.inf):
                raise ValueError(f"target_low must be below target_high, both finite, found {bounds}")
        elif self.output == "sigmoid" and self.num_labels != 2:
            raise ValueError(f"output sigmoid tells two classes apart, found {self.num_labels}")
        if self.output == "softmax" and self.problem_type == "regression":
            raise ValueError("output softmax needs a classification, found a regression")

    def validate_output(self) -> None:
        """Check that the fields which describe the output agree."""
        if self.problem_type == "regression" and self.num_labels != 1:
            raise ValueError(f"a regression has one output, found num_labels {self.num_labels}")
        if self.problem_type != "regression" and (self.target_mean, self.target_scale) != (0.0, 1.0):
            raise ValueError("target_mean and target_scale belong to a regression")
        if self.temperature != 1 and (self.problem_type == "regression" or self.pooling == "none"):
            raise ValueError(f"temperature belongs to a classification of rows, found {self.temperature}")
        if self.output == "cosine" and (self.architecture != "bi_encoder" or self.problem_type != "regression"):
            found = f"{self.architecture} and {self.problem_type}"
            raise ValueError(f"output cosine needs architecture bi_encoder and a regression, found {found}")

    def validate_tokens(self) -> None:
        """Check that a model of tokens has nothing which belongs to embeddings of rows."""
        found = (self.architecture, self.problem_type, self.normalize)
        fits = found == ("cross_encoder", "single_label_classification", "none")
        if self.pooling == "none" and not (fits and self.output in ("linear", "softmax")):
            raise ValueError(
                "pooling none needs architecture cross_encoder, classes, output linear or softmax and normalize none, "
                f"found {', '.join([*found, self.output])}"
            )

    def validate_special_tokens(self) -> None:
        """Check that a bi-encoder can take pairs apart."""
        ids = [self.cls_token_id, self.separator_token_id, self.pad_token_id]
        if self.token_dropout and None in [*ids, self.mask_token_id]:
            raise ValueError("token_dropout needs a tokenizer with a mask token; set it to 0")
        if self.architecture == "bi_encoder" and None in ids:
            raise ValueError(
                "a bi_encoder needs cls_token_id, separator_token_id and pad_token_id to take a pair apart, "
                f"found {ids}; use a tokenizer that has these tokens, or architecture cross_encoder"
            )


AutoConfig.register(NlpTrainConfig.model_type, NlpTrainConfig, exist_ok=True)
