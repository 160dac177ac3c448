"""`speed_up`: the forward pass of a `BertModel` with the parts of this package, on the module's own parameters.

What differs from the library's pass, and why the result does not:

* under autocast every activation is in the reduced precision, weights are cast once, sums are kept in float32;
* query, key and value are one product;
* where only the first token's state is used, the last layer computes keys and values of all tokens and the rest of that
  one: nothing else of it is ever read;
* dropout, attention and the feed-forward part as in their modules.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import BertForSequenceClassification, BertModel, PreTrainedModel
from transformers.activations import GELUActivation
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from nlptrain.fast.attention import attention
from nlptrain.fast.dropout import dropout, dropout_add
from nlptrain.fast.feed_forward import feed_forward
from nlptrain.fast.linear import linear
from nlptrain.fast.words import WordLookup

_PADDING = torch.finfo(torch.float32).min / 2


def speed_up(model: PreTrainedModel, *, own_gradient: bool = False) -> bool:
    """Give `model`'s encoder the faster pass; False, and nothing happens, where there is none for it.

    That is: any encoder but `BertModel`, and one on another device than the CPU. A call with arguments that the faster
    pass does not know, or while a part of the encoder has hooks or an adapter, goes to the library's.

    Args:
        model: a model with a BERT encoder, or one itself. Only the first token's state is computed to the end where the
            model reads no other: `BertForSequenceClassification`, and what says so by ``reads_first_only``.
        own_gradient: whether the word embeddings' gradient may be `WordLookup`'s, which is faster; not with an
            optimizer or a callback that adds to gradients in place, nor with any distribution but data parallelism.
            `kept_words` gives it.
    """
    encoder = model.base_model
    if type(encoder) is not BertModel or encoder.config.is_decoder or encoder.device.type != "cpu":
        return False
    if "forward" in vars(encoder):
        return True  # it has been done
    first_only = getattr(model, "reads_first_only", type(model) is BertForSequenceClassification)
    words = encoder.embeddings.word_embeddings
    kept = WordLookup(words) if own_gradient and words.weight.requires_grad else None
    if kept:
        names = [name for name, parameter in model.named_parameters() if parameter is words.weight]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)  # type: ignore[no-untyped-call]
    vars(encoder).update(
        kept_words=kept, forward=partial(_forward, encoder, encoder.forward, kept or words, first_only)
    )
    return True


def kept_words(model: PreTrainedModel) -> WordLookup | None:
    """The lookup of word embeddings whose gradient is a kept table, where `speed_up` has put one in."""
    return getattr(model.base_model, "kept_words", None)


def _hooked(encoder: BertModel) -> bool:
    inner = (part for child in (encoder.embeddings, encoder.encoder) for part in child.modules())
    return any(part._forward_hooks or part._forward_pre_hooks for part in inner)


def _plain(layer: Any) -> bool:
    """Whether every linear part is one, and nothing, as an adapter is, has taken its place."""
    heads, inner = layer.attention.self, (layer.attention.output, layer.intermediate, layer.output)
    parts = (heads.query, heads.key, heads.value, *(part.dense for part in inner))
    return all(type(part) is nn.Linear for part in parts)


def _checkpointed(encoder: BertModel) -> bool:
    return any(getattr(layer, "gradient_checkpointing", False) for layer in encoder.encoder.layer)


def _forward(
    encoder: BertModel,
    stock: Any,
    lookup: Any,
    first_only: bool,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    **others: Any,
) -> Any:
    known = all(value is None or name == "return_dict" for name, value in others.items())
    known = known and (attention_mask is None or attention_mask.dim() == 2)
    plain = all(map(_plain, encoder.encoder.layer))
    if input_ids is None or not known or not plain or _checkpointed(encoder) or _hooked(encoder):
        return stock(input_ids, attention_mask, token_type_ids, **others)
    reduced = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if reduced else encoder.dtype
    with torch.autocast("cpu", enabled=False):
        states = _embed(encoder, lookup, input_ids, token_type_ids).to(dtype)
        states = _layers(encoder, states, _bias(attention_mask), first_only=first_only).to(encoder.dtype)
    pooled = encoder.pooler(states) if encoder.pooler is not None else None
    return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states, pooler_output=pooled)


def _bias(mask: Tensor | None) -> Tensor | None:
    """(B, T) float32 to add to attention scores; None where no token is padding."""
    if mask is None or bool(mask.all()):
        return None
    return (1.0 - mask.float()).mul_(_PADDING)


def _embed(encoder: BertModel, lookup: Any, ids: Tensor, types: Tensor | None) -> Tensor:
    tables, (_, length) = encoder.embeddings, ids.shape
    kinds = tables.token_type_embeddings
    of_type = kinds.weight[0] if types is None else kinds(types)
    states = lookup(ids) + (tables.position_embeddings.weight[:length] + of_type)
    found: Tensor = tables.LayerNorm(states)
    return found


def _layers(encoder: BertModel, states: Tensor, bias: Tensor | None, *, first_only: bool) -> Tensor:
    """(B, T, H) states after the last layer, or (B, 1, H) of the first tokens."""
    config = encoder.config
    drop = config.hidden_dropout_prob if encoder.training else 0.0
    drop_shares = config.attention_probs_dropout_prob if encoder.training else 0.0
    states = dropout(states, drop)
    layers: list[Any] = list(encoder.encoder.layer)
    for number, layer in enumerate(layers, 1):
        only = first_only and number == len(layers)
        mixed = _attend(layer.attention.self, states, bias, drop_shares, first_only=only)
        states = states[:, :1] if only else states
        mixed = linear(mixed, layer.attention.output.dense)
        states = _add_norm(layer.attention.output.LayerNorm, mixed, states, drop)
        states = _add_norm(layer.output.LayerNorm, _transform(layer, states), states, drop)
    return states


def _attend(heads: Any, states: Tensor, bias: Tensor | None, drop: float, *, first_only: bool) -> Tensor:
    count, size = heads.num_attention_heads, heads.attention_head_size
    if first_only:
        query = _split(linear(states[:, :1], heads.query), 1, count, size)[0]
        key, value = _split(linear(states, heads.key, heads.value), 2, count, size)
    else:
        query, key, value = _split(linear(states, heads.query, heads.key, heads.value), 3, count, size)
    found = attention(query, key, value, bias, drop)
    rows, _, width = states.shape
    return found.view(rows, count, -1, size).transpose(1, 2).reshape(rows, -1, width)


def _split(states: Tensor, parts: int, heads: int, size: int) -> Tensor:
    """(parts, B * heads, T, size) of (B, T, parts * heads * size)."""
    rows, length, _ = states.shape
    parted = states.view(rows, length, parts, heads, size).permute(2, 0, 3, 1, 4)
    return parted.reshape(parts, rows * heads, length, size)


def _transform(layer: Any, states: Tensor) -> Tensor:
    first, activation, second = layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense
    if type(activation) is GELUActivation and activation.act is functional.gelu:
        return feed_forward(states, first, second)
    return linear(activation(linear(states, first)), second)


def _add_norm(norm: nn.LayerNorm, states: Tensor, residual: Tensor, drop: float) -> Tensor:
    joined = dropout_add(states, residual, drop)
    return functional.layer_norm(joined, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
