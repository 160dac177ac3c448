"""Our models: any text encoder and a head. Importing this module registers them with the Auto classes."""

import inspect
import os
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from nlptrain.errors import ModelError
from nlptrain.models.configuration import NlpTrainConfig
from nlptrain.models.heads import CosineHead, LinearHead, MLPHead, bounded, two_logits
from nlptrain.models.loss import usual
from nlptrain.models.normalizer import EmbeddingNormalizer
from nlptrain.models.pairs import SpecialTokens, split_pairs
from nlptrain.models.pooling import POOLINGS
from nlptrain.models.tokens import drop_tokens


def encoder_arguments(config: PreTrainedConfig) -> dict[str, Any]:
    """Arguments that build the encoder of `config` without its pooling layer, which would never see a gradient."""
    model_class: Any = MODEL_MAPPING[type(config)]
    if isinstance(model_class, tuple):  # types with variants; AutoModel builds the first
        model_class = model_class[0]
    parameters = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


def refuse_incomplete(source: str | os.PathLike[str], info: dict[str, Any]) -> None:
    """Check what `from_pretrained(..., output_loading_info=True)` reports.

    Raises:
        ModelError: a weight is missing, unexpected or of another shape; the message names them.
    """
    kinds = ("missing", "unexpected", "mismatched")
    found = [f"{kind}: {', '.join(sorted(map(str, info[f'{kind}_keys'])))}" for kind in kinds if info[f"{kind}_keys"]]
    if found:
        raise ModelError(
            "MODEL_WEIGHTS",
            f"{source}: the weights must be exactly those of the model, found {'; '.join(found)}; "
            "the folder is damaged or from another version: restore it or train again",
        )


class NlpTrainModel(PreTrainedModel):
    """An encoder and a head; a subclass says what of the encoder's states the head gets."""

    config_class = NlpTrainConfig
    config: NlpTrainConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    # The encoder decides for itself; these only let a user ask for an implementation through our model.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    # Our loss is a plain mean. Without this, the Trainer neither divides it by the accumulation steps
    # nor leaves it alone between processes.
    accepts_loss_kwargs = False
    # Of weights that are loaded in half precision the head's stay, as it gets float32 states.
    _keep_in_fp32_modules_strict = ["head"]  # noqa: RUF012  # the library's own type, which it copies
    # How many states of a sequence the head gets: the head's weights alone would fit either class.
    pools: ClassVar[bool]

    def __init__(self, config: NlpTrainConfig) -> None:
        super().__init__(config)
        if (config.pooling != "none") != self.pools:
            found = f"{type(self).__name__} cannot be a model of pooling {config.pooling}"
            raise ModelError("MODEL_CLASS", f"{found}; load it with the Auto class of its kind of task")
        encoder_config = cast(PreTrainedConfig, config.encoder)  # a dict has become one in the configuration's init
        self.encoder = AutoModel.from_config(encoder_config, **encoder_arguments(encoder_config))
        size = self.encoder.config.hidden_size
        if config.normalize != "none":
            self.normalizer = EmbeddingNormalizer(config.normalize, size, config.normalize_components)
            size = self.normalizer.output_size
        self.head = CosineHead() if config.output == "cosine" else self._head(size)
        self.post_init()  # type: ignore[no-untyped-call]

    def _head(self, size: int) -> LinearHead | MLPHead:
        config = self.config
        texts = 2 if config.architecture == "bi_encoder" else 1
        outputs = 1 if config.output == "sigmoid" else cast(int, config.num_labels)
        if config.head_hidden is None:
            return LinearHead(size, texts, outputs, config.head_dropout)
        inner: dict[str, Any] = {"widths": config.head_hidden, "activation": config.head_activation}
        return MLPHead(size, texts, outputs, config.head_dropout, skip=config.head_skip, **inner)

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the encoder and the head initialise themselves, and an incomplete checkpoint is refused."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, but never with a weight that is not the checkpoint's.

        Raises:
            ModelError: a weight is missing, unexpected or of another shape.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        refuse_incomplete(pretrained_model_name_or_path, loaded[1])
        return loaded if wants_info else loaded[0]

    @property
    def reads_first_only(self) -> bool:
        """Whether of a sequence's states only the first token's is read."""
        return bool(self.config.pooling == "cls")

    def _states(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Token states (B, T, H) in float32."""
        takes_types = "token_type_ids" in inspect.signature(self.encoder.forward).parameters
        extra = {"token_type_ids": types} if takes_types and types is not None else {}
        states: Tensor = self.encoder(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
        return states.float()

    def _with_dropped_tokens(self, input_ids: Tensor) -> Tensor:
        frame = {self.config.cls_token_id, self.config.separator_token_id, self.config.pad_token_id} - {None}
        mask = self.config.mask_token_id or 0
        return drop_tokens(input_ids, self.config.token_dropout, mask=mask, keep=cast("set[int]", frame))


class NlpTrainForSequenceClassification(NlpTrainModel):
    """Encoder, pooling and head for one text or a pair of texts.

    Takes the joint encoding ``[CLS] a [SEP] b [SEP]`` of a pair whatever the architecture.
    """

    pools = True

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Score a batch.

        Args:
            input_ids: (B, T) tokens of a text, or of both texts of a pair.
            attention_mask: (B, T), 1 at real tokens.
            token_type_ids: (B, T), 1 at the second text, where the tokeniser has types.
            labels: (B,) class ids, or scores in the user's unit.

        Returns:
            logits (B, C), of a regression (B, 1) in the user's unit; with labels also the mean of the `usual` loss.

        Raises:
            DataError: a bi-encoder met a row with one text.
        """
        if self.training:
            input_ids = self._with_dropped_tokens(input_ids)
        embeddings = self.embed(input_ids, attention_mask, token_type_ids)
        with torch.autocast(input_ids.device.type, enabled=False):
            logits = self._output(self.head(*embeddings))
        loss = None
        if labels is not None:
            scale = self.config.target_scale if self.config.problem_type == "regression" else None
            loss = usual(scale).rows(logits, labels).mean()
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _output(self, found: Tensor) -> Tensor:
        config = self.config
        if config.temperature != 1:
            found = found / config.temperature
        if config.output != "sigmoid":
            return found * config.target_scale + config.target_mean
        if config.target_low is None or config.target_high is None:
            return two_logits(found)
        return bounded(found, config.target_low, config.target_high)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> tuple[Tensor, ...]:
        """Embeddings (B, H) in float32, normalised: one of the whole sequence, or of a bi-encoder one for each text."""
        if self.config.architecture == "cross_encoder":
            return (self._pooled(input_ids, attention_mask, token_type_ids),)
        types = token_type_ids if getattr(self.encoder.config, "type_vocab_size", 0) >= 2 else None
        ids, mask = split_pairs(input_ids, attention_mask, types, self._special_tokens())
        return self._pooled(ids, mask, None).chunk(2)

    def _pooled(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        pooled = POOLINGS[self.config.pooling](self._states(ids, mask, types), mask)
        return pooled if self.config.normalize == "none" else self.normalizer(pooled)

    def _special_tokens(self) -> SpecialTokens:
        ids = (self.config.cls_token_id, self.config.separator_token_id, self.config.pad_token_id)
        return SpecialTokens(*(token for token in ids if token is not None))


class NlpTrainForTokenClassification(NlpTrainModel):
    """Encoder and head; the head gets the states of real tokens one by one, as it gets embeddings of rows elsewhere."""

    pools = False

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """Score the tokens of a batch.

        Args:
            input_ids: (B, T) tokens of a text.
            attention_mask: (B, T), 1 at real tokens.
            token_type_ids: (B, T), where the tokeniser has types.
            labels: (B, T) class ids, -100 at tokens that do not count.

        Returns:
            logits (B, T, C), 0 at padding; with labels also the mean of the `usual` loss over the tokens that count.
        """
        if self.training:
            input_ids = self._with_dropped_tokens(input_ids)
        states, real = self._states(input_ids, attention_mask, token_type_ids), attention_mask.bool()
        with torch.autocast(input_ids.device.type, enabled=False):
            found = self.head(states[real])
        logits = found.new_zeros(*real.shape, found.shape[-1]).masked_scatter(real.unsqueeze(-1), found)
        loss = None
        if labels is not None:
            loss = usual(None)({"logits": logits}, labels)
        return TokenClassifierOutput(loss=loss, logits=logits)


AutoModelForSequenceClassification.register(NlpTrainConfig, NlpTrainForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(NlpTrainConfig, NlpTrainForTokenClassification, exist_ok=True)
