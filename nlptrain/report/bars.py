"""Bars by name, and counts between edges, as inline SVG with their table; no script, no style but classes."""

from collections.abc import Sequence

from markupsafe import Markup

from nlptrain.report.axes import WIDTH, Axis, across, element, frame, number, picture, upward
from nlptrain.report.blocks import Chart, Table
from nlptrain.report.safe_text import short

ROW = 24
LEFT, RIGHT = 100, 56
NAME = LEFT - 12


def bars(
    title: str,
    label: str,
    names: Sequence[str],
    values: Sequence[float],
    ends: Sequence[tuple[float, float]],
    table: Table,
    top: float | None = None,
) -> Chart:
    """A bar from 0 for each name, from top to bottom.

    Args:
        title: what they show.
        label: of the values, with the unit.
        names: one for each bar.
        values: at least 0.
        ends: of the interval about each value, or none at all.
        table: the numbers.
        top: where the axis ends; None: at the highest value.
    """
    base = 8 + ROW * len(names)
    high = max([top or 0.0, *values, *(end for pair in ends for end in pair)]) or 1.0
    x = Axis(label, 0.0, high, LEFT, WIDTH - RIGHT)
    parts = [_upright(x, tick, base) for tick in x.ticks]
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        parts += _bar(8.0 + ROW * row, name, value, x, ends[row] if ends else None)
    parts.append(
        element('<text x="{x}" y="{y}" text-anchor="middle">{t}</text>', x=x(high / 2), y=base + 34.0, t=label)
    )
    said = ", ".join(f"{name} {number(value)}" for name, value in zip(names, values, strict=True))
    return Chart(title, picture(title, f"{label}: {said}.", parts, base + 42), table)


def histogram(title: str, labels: tuple[str, str], edges: Sequence[float], counts: Sequence[int]) -> Chart:
    """How many values lie between two edges; `edges` has one entry more than `counts`."""
    x, y = across(labels[0], edges), upward(labels[1], [0, *counts])
    columns = [
        element(
            '<rect class="fill s0" x="{x}" y="{y}" width="{w}" height="{h}"/>',
            x=x(low),
            y=y(count),
            w=max(x(high) - x(low) - 1, 1.0),
            h=y(0) - y(count),
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    rows = [[number(a), number(b), str(n)] for a, b, n in zip(edges, edges[1:], counts, strict=False)]
    said = f"{sum(counts)} values from {number(edges[0])} to {number(edges[-1])}"
    return Chart(
        title, picture(title, f"{said}.", [*frame(x, y), *columns]), Table(title, ["from", "to", labels[1]], rows)
    )


def _upright(x: Axis, tick: float, base: int) -> Markup:
    line = '<line class="grid" x1="{x}" x2="{x}" y1="4" y2="{y}"/><text x="{x}" y="{d}" text-anchor="middle">{t}</text>'
    return element(line, x=x(tick), y=float(base), d=base + 16.0, t=number(tick))


def _bar(y: float, name: str, value: float, x: Axis, ends: tuple[float, float] | None) -> list[Markup]:
    template = (
        '<text x="{left}" y="{down}" text-anchor="end">{name}</text>'
        '<rect class="bar fill s0" x="{start}" y="{top}" width="{width}" height="14"/>'
        '<text x="{right}" y="{down}" text-anchor="end">{value}</text>'
    )
    bar = element(
        template,
        left=LEFT - 6.0,
        down=y + 14,
        name=short(name, NAME),
        start=float(x.start),
        top=y + 3,
        width=max(x(value) - x.start, 0.0),
        right=WIDTH - 4.0,
        value=f"{value:.3f}" if x.high <= 1 else number(value),
    )
    if ends is None:
        return [bar]
    line = '<line class="whisker" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
    return [bar, element(line, a=x(ends[0]), b=x(ends[1]), y=y + 10)]
