"""Scores as lines for a person."""

from collections.abc import Iterator, Mapping
from typing import Any


def shown(value: float | None, digits: int = 4) -> str:
    """A number, "undefined" where there is none."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def score_lines(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, Mapping[str, float | None]],
) -> Iterator[str]:
    """One line for each metric of a split: value, 95 % interval, and what each baseline reaches.

    Args:
        metrics: name to value.
        intervals: name to ``low`` and ``high``; may lack metrics.
        baselines: name to its metrics.
    """
    for name, value in metrics.items():
        ends = intervals.get(name, {})
        between = f"[{ends['low']:.4f}, {ends['high']:.4f}]" if ends.get("low") is not None else ""
        others = "  ".join(f"{base} {shown(row[name])}" for base, row in baselines.items() if name in row)
        yield f"  {name:<21} {shown(value):<10} {between:<18} {others}".rstrip()
