"""Second-order refinement of the head in any Trainer: before fine-tuning, after it, or both."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import PartialState
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.callbacks.embedding_normalization import SHARDED
from nlptrain.head.features import compute, inputs, labelled
from nlptrain.head.place import HeadPlace, Part, find
from nlptrain.head.refit import Method, Rows, Serving, decide, refit
from nlptrain.metrics.registry import METRICS
from nlptrain.models.modes import evaluating
from nlptrain.results import write_json

logger = logging.getLogger(__name__)


class HeadRefinement(TrainerCallback):
    """Fit the head by a second-order method on features of the encoder, each computed once in evaluation mode.

    Before: the new head is fitted on the training rows of the encoder as it is, then all is fine-tuned (Kumar et al.
    2022, arXiv:2202.10054). After: the fine-tuned head is fitted again; it is replaced where the metric and the
    loss on the rows of the guard are not worse, and stays bit by bit what it was otherwise.

    The head is that of our models, with up to one hidden layer; of deeper ones, and of a stock model, the last linear
    layer, or with it the one that makes its embedding, as BERT's pooler. Of several processes each keeps its rows, and
    all end with the same bits. A resumed run goes on with the weights of its checkpoint and fits nothing before it. Not
    possible where weights are sharded (FSDP, DeepSpeed).

    Args:
        before: whether to fit before fine-tuning, with a penalty that pulls towards 0.
        after: whether to fit after it.
        rows: encoded, labelled rows for `after`, best such as training never saw; None: the training rows.
        guard: encoded, labelled rows that are used for nothing else; `after` needs them.
        part: head, or embedding for the last two layers of a stock model; the latter needs a number for `l2`.
        metric: key of `nlptrain.metrics.registry.METRICS` that may not get worse; None: accuracy, or nmse.
        method: see `nlptrain.refine.SOLVERS`; auto: closed form, Newton or L-BFGS.
        l2: strength of the penalty on standardised features, above 0; auto: by leave-one-out, of linear heads only.
        proximal: whether the penalty of `after` pulls towards the fine-tuned head, instead of 0.
        tolerance: by how much the metric may be worse, at least 0.
        record: a file for what is known of the fit before, as JSON.

    Attributes:
        record_: ``before`` and ``after``, each with ``head`` and ``certificate``, `after` also with ``decision``.

    Raises:
        ValueError: neither before nor after, after without a guard, or an unknown metric; at the start of training:
            rows of the guard are used elsewhere, or a model or data with which it is not possible.
    """

    def __init__(
        self,
        *,
        before: bool = False,
        after: bool = False,
        rows: Any = None,
        guard: Any = None,
        part: Part = "head",
        metric: str | None = None,
        method: str = "auto",
        l2: float | Literal["auto"] = "auto",
        proximal: bool = True,
        tolerance: float = 0.0,
        record: Path | None = None,
    ) -> None:
        if not (before or after):
            raise ValueError("HeadRefinement needs before=True, after=True, or both")
        if after and guard is None:
            raise ValueError("after=True needs guard: labelled rows that are used for nothing else")
        if metric is not None and metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, found {metric!r}")
        self.before, self.after, self.rows, self.guard = before, after, rows, guard
        self.metric, self.method, self.l2, self.proximal = metric, method, l2, proximal
        self.tolerance, self.record, self.part = tolerance, record, part
        self.record_: dict[str, Any] = {"before": None, "after": None}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fit the new head, and refuse rows of the guard that are used elsewhere, before hours are spent."""
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        if PartialState().distributed_type in SHARDED or any(hasattr(p, "to_local") for p in model.parameters()):
            raise ValueError("a head cannot be refined where weights are sharded: leave FSDP or DeepSpeed out")
        if self.after:
            used = (
                {*_digests(self.rows), *_digests(loader.dataset)}
                if self.rows is not None
                else set(_digests(loader.dataset))
            )
            if shared := used & set(_digests(self.guard)):
                raise ValueError(
                    f"the guard's rows must be used for nothing else, found {len(shared)} of their texts in the "
                    "training rows or in rows; hold out others"
                )
        if not self.before or state.global_step:
            return
        place, rows = self._place(model, loader), self._rows(model, loader, loader.dataset, args)
        found = refit(place, rows, Serving.of(model), place.read(), Method(self.method, self.l2))
        place.write(found.parameters)
        self.record_["before"] = {"head": place.description, "certificate": found.certificate.as_dict()}
        logger.info("%s fitted before training: %s", place.description, _summary(self.record_["before"]))
        if self.record and state.is_world_process_zero:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.record, self.record_["before"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fit the fine-tuned head again, and keep the better one."""
        if not self.after:
            return
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        place, serving = self._place(model, loader), Serving.of(model)
        rows = self._rows(model, loader, loader.dataset if self.rows is None else self.rows, args)
        guard = self._rows(model, loader, self.guard, args)
        found = refit(place, rows, serving, place.read(), Method(self.method, self.l2, self.proximal))
        metric = self.metric or ("nmse" if serving.regression else "accuracy")
        decision = decide(place, guard, serving, found.parameters, metric, used=set(rows.ids), tolerance=self.tolerance)
        if decision.accepted:
            place.write(found.parameters)
        record = {"head": place.description, "certificate": found.certificate.as_dict()}
        self.record_["after"] = record | {"decision": decision.as_dict()}
        word = "accepted" if decision.accepted else "rejected"
        logger.info("refined head %s: %s; %s", word, decision.why, _summary(record))

    def _place(self, model: nn.Module, loader: Any) -> HeadPlace:
        rows, _ = labelled(loader.dataset)
        device = next(model.parameters()).device
        batch = loader.collate_fn([inputs(model, rows[0])])
        with evaluating(model):
            return find(model, {name: values.to(device) for name, values in batch.items()}, self.part)

    def _rows(self, model: nn.Module, loader: Any, rows: Any, args: TrainingArguments) -> Rows:
        counted, labels = labelled(rows)
        place = self._place(model, loader)
        features = compute(model, place, counted, loader.collate_fn, args.eval_batch_size)
        return Rows(features, labels, _numbered(counted))


def _digests(rows: Any) -> list[str]:
    """The sha256 of the tokens of every row."""
    counted, _ = labelled(rows)
    columns = getattr(counted, "column_names", None)
    tokens = counted["input_ids"][:] if columns else [counted[number]["input_ids"] for number in range(len(counted))]
    return [hashlib.sha256(np.asarray(row, dtype=np.int64).tobytes()).hexdigest() for row in tokens]


def _numbered(rows: Any) -> list[str]:
    """A name for every row; those of one text tell themselves apart by how often it came."""
    seen: dict[str, int] = {}
    found = []
    for digest in _digests(rows):
        seen[digest] = seen.get(digest, 0) + 1
        found.append(f"{digest}:{seen[digest]}")
    return found


def _summary(record: dict[str, Any]) -> str:
    facts = record["certificate"]
    return json.dumps({name: facts[name] for name in ("solver", "l2", "objective_before", "objective_after")})
