"""The logits of all rows of a data set, each process its own batches.

Rows of similar length stand together, in batches under a budget of tokens; the batches are those of one process,
divided among all, because the last bits of a logit depend on its batch.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from nlptrain.data.batches import token_batches
from nlptrain.data.encode import TOKEN_COLUMNS
from nlptrain.fast import weights_at_rest
from nlptrain.models.modes import encoding_in_bfloat16, evaluating
from nlptrain.refine.reduction import add, ranks

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Tensor]]
# tokens of a batch, padded to its longest row: on a CPU more leave its caches; other devices idle with so few
BUDGET, ELSEWHERE = 2048, 16384


@torch.no_grad()
def logits(model: Any, rows: Dataset, collate: Collate, *, by_token: bool = False, bf16: bool = False) -> NDArray[Any]:
    """What a model says of rows, on every process; called by all at once, in evaluation mode, draws no random number.

    Args:
        model: a `PreTrainedModel`.
        rows: as `nlptrain.data.encode.encode` gives them.
        collate: makes a batch of rows.
        by_token: whether the model answers for every token.
        bf16: run the encoder in bfloat16 autocast; what stands on it computes in the precision of its weights.

    Returns:
        (n, classes), of a regression (n, 1), by token (n, longest, classes), float64, in the order of the rows; what
        lies beyond a row's own tokens means nothing.
    """
    lengths = np.asarray(rows["length"][:])
    longest = int(lengths.max())
    rows = rows.select_columns([name for name in TOKEN_COLUMNS if name in rows.column_names])
    found = np.zeros((len(rows), *([longest] if by_token else []), model.config.num_labels))
    rank, world = ranks()
    batches = token_batches(lengths, BUDGET if model.device.type == "cpu" else ELSEWHERE)[rank::world]
    with evaluating(model), weights_at_rest(), encoding_in_bfloat16(model) if bf16 else nullcontext():
        for places in batches:
            batch = collate(rows.__getitems__(places.tolist()))
            outputs = model(**{name: values.to(model.device) for name, values in batch.items()}).logits
            values = outputs.float().cpu().numpy()
            if by_token:
                found[places, : values.shape[1]] = values[:, :longest]
            else:
                found[places] = values
    return add(found)
