"""The certificate of a head's second-order refinement, whatever it holds."""

from collections.abc import Iterator, Mapping
from typing import Any

from nlptrain.report.axes import number
from nlptrain.report.blocks import Block, Cell, Section, Table
from nlptrain.report.curves import Series, lines


def section(record: Mapping[str, Any] | None) -> Section | None:
    """Every scalar of the record as a table, the estimated loss by L2 and the objective by iteration; None without one.

    Args:
        record: as a run's results hold it under ``refinement``.
    """
    if not record:
        return None
    found = dict(_leaves(record, ""))
    rows: list[list[Cell]] = [[name, _shown(value)] for name, value in found.items() if not isinstance(value, list)]
    blocks: list[Block] = [Table("Certificate", ["fact", "value"], rows)] if rows else []
    for name, value in found.items():
        if name.endswith("l2_curve") and _is_curve(value):
            points = [(float(l2), float(loss)) for l2, loss in value]
            labels = ("L2 penalty", "estimated loss on a new row")
            logarithmic = (all(l2 > 0 for l2, _ in points), False)
            blocks.append(
                lines("Loss by penalty", labels, [Series("loss", points, dots=True)], logarithmic=logarithmic)
            )
        elif name.endswith("history") and value and all(isinstance(one, int | float) for one in value):
            points = [(float(at), float(one)) for at, one in enumerate(value)]
            blocks.append(lines("Objective by iteration", ("iteration", "objective"), [Series("objective", points)]))
    return Section("Refinement of the head", blocks)


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _is_curve(value: Any) -> bool:
    return bool(value) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    return number(value) if isinstance(value, int | float) else str(value)
