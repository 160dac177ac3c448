"""What differs between two configurations, for messages that refuse to mix them."""

import logging
from collections.abc import Iterator
from typing import Any

from nlptrain.errors import ModelError

logger = logging.getLogger(__name__)
# What may differ between a run and its continuation: none of it changes what a step learns, or which step is chosen.
HARMLESS = {
    *(f"training.{name}" for name in ("output_dir", "run_name", "resume_from_checkpoint", "save_total_limit")),
    *(f"training.{name}" for name in ("logging_steps", "logging_strategy", "logging_first_step", "report_to")),
    *(f"training.{name}" for name in ("log_level", "log_level_replica", "log_on_each_node", "disable_tqdm")),
    *(f"training.dataloader_{name}" for name in ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")),
    *("report.bootstrap", "report.baselines"),
    # the rows themselves are compared by their fingerprints; those of test are only scored
    *("data.train", "data.validation", "data.test"),
}


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for every key that differs, with both values; `HARMLESS` keys are left out.

    Args:
        old: nested settings of what is there.
        new: nested settings of what is asked for.
    """
    return [line for key, line in _differences(old, new) if key not in HARMLESS]


def refuse_changes(old: dict[str, Any], new: dict[str, Any], what: object) -> None:
    """Refuse to continue `what` with settings that would change what it learns, and log the harmless changes.

    Raises:
        ModelError: lists key, old and new.
    """
    if changed := changes(old, new):
        raise ModelError("RESUME", [f"{what}: cannot continue with another {line}" for line in changed])
    for key, line in _differences(old, new):
        if key != "training.resume_from_checkpoint":
            logger.info("%s: continued with another %s; it changes nothing that is learned", what, line)


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in sorted(old.keys() | new.keys()):
        key, before, after = f"{prefix}{name}", old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{key}.")
        elif before != after:
            yield key, f"{key}: {before!r} in the run, {after!r} now"
