"""What a trained model of ours is, as its config.json says it; importing this module registers it with AutoConfig."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

Architecture = Literal["cross_encoder", "bi_encoder"]
Pooling = Literal["cls", "mean", "max"]
Output = Literal["linear", "cosine"]


@strict
class NlpTrainConfig(PreTrainedConfig):
    """Configuration of `NlpTrainForSequenceClassification`.

    Attributes:
        encoder: configuration of the text encoder; any model type that `AutoModel` knows.
        architecture: cross_encoder reads a text or a pair as one sequence; bi_encoder embeds each text of a pair.
        pooling: how the token states of a sequence become one embedding.
        output: linear is dropout and a linear layer; cosine is the scaled cosine of the two embeddings.
        head_dropout: dropout probability before a linear head, in [0, 1).
        token_dropout: probability that training hides a token behind the mask token, in [0, 1).
        target_mean: regression only, in the user's unit; a score is ``z * target_scale + target_mean``.
        target_scale: as `target_mean`, above 0; the loss is that of z.
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
    head_dropout: float = 0.1
    token_dropout: float = 0.0
    target_mean: float = 0.0
    target_scale: float = 1.0
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

    def validate_output(self) -> None:
        """Check that the fields which describe the output agree."""
        if self.problem_type == "regression" and self.num_labels != 1:
            raise ValueError(f"a regression has one output, found num_labels {self.num_labels}")
        if self.problem_type != "regression" and (self.target_mean, self.target_scale) != (0.0, 1.0):
            raise ValueError("target_mean and target_scale belong to a regression")
        if self.output == "cosine" and (self.architecture != "bi_encoder" or self.problem_type != "regression"):
            found = f"{self.architecture} and {self.problem_type}"
            raise ValueError(f"output cosine needs architecture bi_encoder and a regression, found {found}")

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
