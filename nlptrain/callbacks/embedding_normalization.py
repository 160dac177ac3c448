"""Normalisation of embeddings: of the pooled ones by the training rows' statistics, and of the embedding table."""

import logging
from difflib import get_close_matches
from math import inf
from typing import Any, Literal, cast, get_args

from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from nlptrain.callbacks.embedding_fit import batches, fit
from nlptrain.callbacks.inserted_normalizer import InsertedNormalizer
from nlptrain.models.embedding_table import project_rows
from nlptrain.models.last_layer import find_place
from nlptrain.models.modes import evaluating
from nlptrain.models.normalizer import EmbeddingNormalizer, Kind

logger = logging.getLogger(__name__)
Table = Literal["unit", "max"]
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class EmbeddingNormalization(TrainerCallback, ExportableState):
    """Normalise the pooled embeddings, the rows of the embedding table, or both.

    Pooled embeddings: before the first step the statistics of the training rows are taken, each row once on whatever
    number of processes, in evaluation mode, and then frozen. A model with an `EmbeddingNormalizer` of its own gets that
    one fitted, unless it already is. In any other model the embedding is normalised before the last linear layer and
    the dropout in front of it; whatever is saved has the normalisation folded into that layer, and so has the model
    when training ends. That layer should be a new one: a trained layer would get other inputs than it knows.

    Embedding table: its rows are projected at the start and after every optimizer step; the padding row is left alone.

    The first entry of a training log gets what was fitted: ``normalized_rows``, and ``dead_features`` (standardize),
    ``kept_components`` (whiten) or ``removed_components``; and ``table_rows_projected_at_start``, a share in [0, 1].
    Every entry gets ``table_rows_projected``, the share since the entry before. For other callbacks to see them in
    ``on_log``, this one has to come first.

    A resumed run continues exactly, with what was fitted; not possible where the weights are sharded (FSDP, DeepSpeed).

    Args:
        kind: what is done to pooled embeddings, see `nlptrain.models.normalizer.EmbeddingNormalizer`; l2 only in a
            model that has its own; left out: nothing.
        components: that whiten keeps or all_but_the_top removes, in a model without its own.
        table: unit, every row has norm 1; max, no row has more than `max_norm`; left out: nothing.
        max_norm: above 0.

    Raises:
        ValueError: nothing to do, or an argument out of range; at the start of training: a model, data or a checkpoint
            with which it is not possible.
    """

    def __init__(
        self,
        kind: Kind | None = None,
        components: int | None = None,
        *,
        table: Table | None = None,
        max_norm: float = 1.0,
    ) -> None:
        if kind is None and table is None:
            raise ValueError("EmbeddingNormalization needs a kind, a table, or both")
        _check_choice("kind", kind, get_args(Kind))
        _check_choice("table", table, get_args(Table))
        if components is not None and (kind not in ("whiten", "all_but_the_top") or components < 1):
            raise ValueError(
                f"components is at least 1 and belongs to whiten and all_but_the_top, found {components} and {kind}: "
                "leave it out"
            )
        if not 0 < max_norm < inf:
            raise ValueError(f"max_norm must be a finite number above 0, found {max_norm}: the usual one is 1")
        self.kind, self.components, self.table, self.max_norm = kind, components, table, max_norm
        self.inserted_: InsertedNormalizer | None = None
        self.report_: dict[str, float] = {}
        self.projected_, self.candidates_ = 0, 0

    def state(self) -> dict[str, Any]:
        """Arguments, what the next log will say and, in a stock model, its layer before folding with its statistics."""
        names = ("kind", "components", "table", "max_norm")
        kept = {name: getattr(self, name) for name in ("report_", "projected_", "candidates_")}
        inserted = {"inserted": self.inserted_.dump() if self.inserted_ else None}
        return {"args": {name: getattr(self, name) for name in names}, "attributes": inserted | kept}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fit, or take up what the checkpoint has; and project the table."""
        model: nn.Module = kwargs["model"]
        if PartialState().distributed_type in SHARDED or any(hasattr(p, "to_local") for p in model.parameters()):
            raise ValueError("embeddings cannot be normalised where weights are sharded: leave FSDP or DeepSpeed out")
        if self.kind:
            loader, size = kwargs["train_dataloader"], args.eval_batch_size
            own = [module for module in model.modules() if isinstance(module, EmbeddingNormalizer)]
            normalizer = self._own(own) if own else self._insert(model, loader, size, state)
            if not normalizer.is_fitted:
                fit(normalizer, model, loader, size)
            self.report_ |= normalizer.report()
            logger.info("embeddings normalised (%s): %s", self.kind, self.report_)
        # a table that a checkpoint kept in bounds must not be rounded anew
        if self.table and not (state.global_step and "table_rows_projected_at_start" in self.report_):
            share = self._project(model) / self.candidates_
            self.report_["table_rows_projected_at_start"] = share
            self.projected_ = self.candidates_ = 0
        # a checkpoint made without this callback lacks its entry, and the library fails at the next save
        cast("dict[str, Any]", state.stateful_callbacks).setdefault(type(self).__name__, self.state())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Project the table."""
        if self.table:
            self._project(kwargs["model"])

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add to the entry of a training step, which the library has put into the history before asking."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        found = {"table_rows_projected": self.projected_ / self.candidates_} if self.candidates_ else {}
        if not any(self.report_.keys() <= entry.keys() for entry in state.log_history):
            found |= self.report_
        logs.update(found)
        state.log_history[-1].update(found)
        self.projected_ = self.candidates_ = 0

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave a stock model with the normalisation folded in."""
        if self.inserted_:
            self.inserted_.fold()
            self.inserted_ = None

    def _own(self, found: list[EmbeddingNormalizer]) -> EmbeddingNormalizer:
        kinds = [normalizer.kind for normalizer in found]
        if kinds != [self.kind]:
            raise ValueError(f"the model normalises its embeddings itself ({', '.join(kinds)}), found kind {self.kind}")
        return found[0]

    def _insert(self, model: nn.Module, loader: DataLoader[Any], size: int, state: TrainerState) -> EmbeddingNormalizer:
        with evaluating(model):
            place = find_place(model, next(batches(loader, size, range(1), next(model.parameters()).device)))
        self.inserted_ = InsertedNormalizer(model, place, cast(str, self.kind), self.components)
        if state.global_step:
            entry = cast("dict[str, Any]", state.stateful_callbacks).get(type(self).__name__)
            text = entry["attributes"]["inserted"] if isinstance(entry, dict) else None
            if text is None:
                raise ValueError(
                    "the checkpoint was made without this EmbeddingNormalization, or with several: train anew"
                )
            self.inserted_.restore(text)
        return self.inserted_.normalizer

    def _project(self, model: nn.Module) -> int:
        table = cast(Any, model).get_input_embeddings()
        norm = 1.0 if self.table == "unit" else self.max_norm
        changed = project_rows(table, norm, shrink_only=self.table == "max")
        self.projected_ += changed
        self.candidates_ += table.num_embeddings - (table.padding_idx is not None)
        return changed


def _check_choice(name: str, found: str | None, valid: tuple[str, ...]) -> None:
    if found is not None and found not in valid:
        near = get_close_matches(found, valid, n=1, cutoff=0)[0]
        raise ValueError(f"{name} must be one of {', '.join(valid)}, found {found!r}: the nearest is {near!r}")
