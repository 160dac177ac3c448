"""Curves over steps or other numbers as inline SVG with their table; no script, no style but classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nlptrain.report.axes import LEFT, WIDTH, Axis, across, diagonal, element, frame, number, picture, upward
from nlptrain.report.blocks import Chart, Table
from nlptrain.report.safe_text import short

Point = tuple[float, float]
# more points than this show nothing on a small screen, and make the table long
MOST_POINTS = 240
COLORS = 6


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        points: (x, y) in the order of x.
        dots: whether every point is marked.
        ends: of the interval about each point; none: not known.
    """

    name: str
    points: Sequence[Point]
    dots: bool = False
    ends: Sequence[tuple[float, float]] = ()


def lines(
    title: str,
    labels: tuple[str, str],
    series: Sequence[Series],
    *,
    logarithmic: tuple[bool, bool] = (False, False),
    marks: Sequence[tuple[str, float]] = (),
    square: tuple[float, float] | None = None,
) -> Chart:
    """Curves over one axis.

    Args:
        title: what they show.
        labels: of the axes, with units.
        series: one line each, at least one point in all; a long one is thinned, see `thinned`.
        logarithmic: which of the axes.
        marks: name and place on the upright axis of lines from side to side.
        square: ends of both axes, with the diagonal drawn; None: the axes follow the values.
    """
    drawn = [Series(s.name, thinned(s.points), s.dots, s.ends) for s in series if s.points]
    values = [value for one in drawn for _, value in one.points] + [value for _, value in marks]
    values += [end for one in drawn for ends in one.ends for end in ends]
    x = across(labels[0], square or [at for one in drawn for at, _ in one.points], logarithmic=logarithmic[0])
    y = upward(labels[1], square or values, logarithmic=logarithmic[1], rounded=square is None)
    parts = [*frame(x, y), *([diagonal(x, y)] if square else []), *(_mark(name, at, x, y) for name, at in marks)]
    for place, one in enumerate(drawn):
        parts += _series(place, one, x, y)
    if len(drawn) > 1:
        parts += _legend([one.name for one in drawn])
    return Chart(title, picture(title, _said(drawn, labels), parts), _curve_table(title, labels, series, drawn))


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """All points, or of each of equal parts the first, last, highest and lowest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    kept = set[int]()
    for part in np.array_split(np.arange(len(points)), most // 4):
        values = [points[at][1] for at in part]
        kept |= {int(part[at]) for at in (0, -1, int(np.argmax(values)), int(np.argmin(values)))}
    return [points[at] for at in sorted(kept)]


def _series(place: int, one: Series, x: Axis, y: Axis) -> list[Markup]:
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in one.points)
    parts = [element('<polyline class="line s{n}" points="{p}"/>', n=place % COLORS, p=path)]
    parts += [_whisker(x(at), y(low), y(high)) for (at, _), (low, high) in zip(one.points, one.ends, strict=False)]
    if one.dots or len(one.points) == 1:
        dot = '<circle class="fill s{n}" cx="{x}" cy="{y}" r="3"/>'
        parts += [element(dot, n=place % COLORS, x=x(at), y=y(value)) for at, value in one.points]
    return parts


def _legend(names: Sequence[str]) -> list[Markup]:
    room = (WIDTH - LEFT) / len(names)
    entry = '<line class="line s{n}" x1="{x}" x2="{end}" y1="10" y2="10"/><text x="{at}" y="14">{name}</text>'
    return [
        element(entry, n=n % COLORS, x=LEFT + room * n, end=LEFT + room * n + 18, at=LEFT + room * n + 22, name=shown)
        for n, name in enumerate(names)
        if (shown := short(name, room - 26))
    ]


def _whisker(x: float, low: float, high: float) -> Markup:
    return element('<line class="whisker" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>', x=x, low=low, high=high)


def _mark(name: str, value: float, x: Axis, y: Axis) -> Markup:
    template = (
        '<line class="mark" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/><text x="{b}" y="{up}" text-anchor="end">{t}</text>'
    )
    return element(template, a=float(x.start), b=float(x.end), y=y(value), up=y(value) - 4, t=name)


def _said(drawn: Sequence[Series], labels: tuple[str, str]) -> str:
    ends = (
        f"{one.name}: {number(one.points[0][1])} at the left, {number(one.points[-1][1])} at the right" for one in drawn
    )
    return f"{labels[1]} by {labels[0]}. {'; '.join(ends)}."


def _curve_table(title: str, labels: tuple[str, str], series: Sequence[Series], drawn: Sequence[Series]) -> Table:
    values = [dict(one.points) for one in drawn]
    places = sorted({at for one in values for at in one})
    rows = [[number(at), *(number(one[at]) if at in one else "" for one in values)] for at in places]
    total, kept = (sum(len(one.points) for one in group) for group in (series, drawn))
    caption = title if kept == total else f"{title}: {kept} of {total} points, highest and lowest kept"
    names = [one.name for one in drawn] if len(drawn) > 1 else [labels[1]]
    return Table(caption, [labels[0], *names], rows)
