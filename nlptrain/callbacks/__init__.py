"""The parts that plug into a Trainer: one file each, usable on their own as ``Trainer(..., callbacks=[...])``.

`build` is the list of a run, its order, and why that order.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback, TrainerCallback

from nlptrain.callbacks.embedding_normalization import EmbeddingNormalization
from nlptrain.callbacks.gradient_clipping import GradientClipping
from nlptrain.callbacks.history import History
from nlptrain.callbacks.line_search import ArmijoLineSearch
from nlptrain.callbacks.lr_schedule import LRSchedule
from nlptrain.callbacks.nmse import NMSE, compute_nmse
from nlptrain.callbacks.non_finite_guard import NonFiniteGuard
from nlptrain.callbacks.progress import ProgressDisplay
from nlptrain.callbacks.stop_signals import StopSignals
from nlptrain.callbacks.weight_decay import WeightDecay
from nlptrain.config.schema import Config
from nlptrain.errors import ConfigError
from nlptrain.run_folder import RunFolder

if TYPE_CHECKING:
    from nlptrain.callbacks.head_refinement import HeadRefinement
else:

    def __getattr__(name: str) -> Any:
        """`HeadRefinement` once it is asked for: scikit-learn and scipy.stats, which it imports, take half a second."""
        if name != "HeadRefinement":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from nlptrain.callbacks.head_refinement import HeadRefinement

        return HeadRefinement


__all__ = [
    "NMSE",
    "ArmijoLineSearch",
    "EmbeddingNormalization",
    "GradientClipping",
    "HeadRefinement",
    "History",
    "LRSchedule",
    "NonFiniteGuard",
    "ProgressDisplay",
    "StopSignals",
    "WeightDecay",
    "build",
    "compute_nmse",
]


def build(config: Config, run: RunFolder) -> list[TrainerCallback]:
    """The callbacks of a run in the order in which they are called.

    What changes gradients comes first, then what changes weights, then what decides to stop; what only writes comes
    last, so that it sees what the others added to a log entry.

    Raises:
        ConfigError: an argument of a part is out of its range.
    """
    try:
        return [*_parts(config, run), History(run.history), ProgressDisplay(config.spec.metrics), StopSignals()]
    except ValueError as error:
        raise ConfigError("PART", str(error)) from error


def _parts(config: Config, run: RunFolder) -> Iterator[TrainerCallback]:
    if config.clipping:
        yield GradientClipping(**config.clipping.model_dump())
    if config.optim and config.optim.decay_schedule != "constant":
        yield WeightDecay(
            config.training["weight_decay"],
            config.optim.decay_schedule,
            embeddings=config.optim.decay_embeddings,
            decoupled=config.optim.decoupled,
        )
    # l2 has nothing to fit
    kind: Any = None if config.model.normalize in ("none", "l2") else config.model.normalize
    if kind or config.embeddings:
        bound = config.embeddings.model_dump() if config.embeddings else {}
        yield EmbeddingNormalization(kind, config.model.normalize_components, **bound)
    if config.refine and "before" in config.refine.when:
        from nlptrain.callbacks.head_refinement import HeadRefinement

        chosen = config.refine
        l2: Any = chosen.l2
        yield HeadRefinement(before=True, part=chosen.part, method=chosen.method, l2=l2, record=run.first_head)
    if config.schedule:
        yield LRSchedule(config.schedule.name, **config.schedule_settings)
    if "nmse" in config.spec.metrics:
        yield NMSE()
    if config.early_stopping.patience is not None:
        yield EarlyStoppingCallback(config.early_stopping.patience, config.early_stopping.threshold)
