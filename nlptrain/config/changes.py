"""What differs between two configurations, for messages that refuse to mix them."""

from typing import Any

# What may differ between a run and its continuation: none of it changes what a step learns.
HARMLESS = (
    *("resume_from_checkpoint", "logging_steps", "report_to", "save_total_limit", "output_dir"),
    # of `report`
    *("bootstrap", "baselines"),
)


def changes(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for every key that differs, with both values; `HARMLESS` keys are left out.

    Args:
        old: nested settings of what is there.
        new: nested settings of what is asked for.
        prefix: of the keys, with its dot.
    """
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, f"{prefix}{key}.")
        elif before != after and key not in HARMLESS:
            lines.append(f"{prefix}{key}: {before!r} in the run, {after!r} now")
    return lines
