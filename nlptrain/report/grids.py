"""Two things of every row against each other as inline SVG with its table; no script, no style but classes."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nlptrain.report.axes import WIDTH, Axis, across, diagonal, element, frame, picture, upward
from nlptrain.report.blocks import Cell, Chart, Table
from nlptrain.report.safe_text import short, width

Array = NDArray[np.float64]
MOST_DOTS = 1000
CELLS = 24
# pixels: of a name, and of a side of a cell
NAME = 66
LARGEST = 56.0


def cloud(title: str, labels: tuple[str, str], x_values: Array, y_values: Array, table: Table) -> Chart:
    """Pairs of values in one unit beside the diagonal: a dot each, or how many fall into each cell of a grid."""
    ends = (float(min(x_values.min(), y_values.min())), float(max(x_values.max(), y_values.max())))
    x, y = across(labels[0], ends), upward(labels[1], ends)
    draw = _dots if len(x_values) <= MOST_DOTS else _cells
    parts = [*frame(x, y), *draw(x_values, y_values, x, y), diagonal(x, y)]
    return Chart(title, picture(title, f"{len(x_values)} rows; on the dashed line both are equal.", parts), table)


def heat_map(title: str, labels: tuple[str, str], names: Sequence[str], counts: NDArray[np.int64]) -> Chart:
    """A square of counts, each row shown in percent of its sum.

    Args:
        title: what it shows.
        labels: what columns and rows are.
        names: of both.
        counts: (k, k), rows are what is right.
    """
    shown = [short(name, NAME) for name in names]
    corner = 40 + max(map(width, shown))
    side = min((WIDTH - corner) / len(names), LARGEST)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    turned = '<text transform="translate({x} {y}) rotate(-90)" text-anchor="{a}">{t}</text>'
    parts = []
    for row, name in enumerate(shown):
        at = corner + side * (row + 0.5) + 4
        parts.append(element('<text x="{x}" y="{y}" text-anchor="end">{t}</text>', x=corner - 6, y=at, t=name))
        parts.append(element(turned, x=at, y=corner - 6, a="start", t=name))
        parts += [_cell(row, column, corner, side, float(shares[row, column])) for column in range(len(names))]
    middle = corner + side * len(names) / 2
    parts.append(element('<text x="{x}" y="14" text-anchor="middle">{t}</text>', x=middle, t=labels[0]))
    parts.append(element(turned, x=12.0, y=middle, a="middle", t=labels[1]))
    right = float(np.trace(counts) / max(counts.sum(), 1))
    said = f"{counts.sum()} in all, {right:.1%} on the diagonal. Percent of each row."
    rows: list[list[Cell]] = [[name, *map(str, line)] for name, line in zip(names, counts.tolist(), strict=True)]
    return Chart(
        title,
        picture(title, said, parts, int(corner + side * len(names) + 10)),
        Table(title, [f"{labels[1]} / {labels[0]}", *names], rows),
    )


def _dots(x_values: Array, y_values: Array, x: Axis, y: Axis) -> list[Markup]:
    dot = '<circle class="dot s0" cx="{x}" cy="{y}" r="2"/>'
    return [element(dot, x=x(float(a)), y=y(float(b))) for a, b in zip(x_values, y_values, strict=True)]


def _cells(x_values: Array, y_values: Array, x: Axis, y: Axis) -> list[Markup]:
    counts, xs, ys = np.histogram2d(x_values, y_values, bins=CELLS, range=[x.ends, y.ends])
    most = counts.max()
    cell = '<rect class="fill s0" fill-opacity="{o}" x="{x}" y="{y}" width="{w}" height="{h}"/>'
    return [
        element(
            cell,
            # the eye tells apart the few from the none
            o=f"{0.15 + 0.85 * (counts[i, j] / most) ** 0.5:.2f}",
            x=x(xs[i]),
            y=y(ys[j + 1]),
            w=x(xs[i + 1]) - x(xs[i]),
            h=y(ys[j]) - y(ys[j + 1]),
        )
        for i, j in zip(*np.nonzero(counts), strict=True)
    ]


def _cell(row: int, column: int, corner: float, side: float, share: float) -> Markup:
    template = (
        '<rect class="heat" fill-opacity="{o}" x="{x}" y="{y}" width="{w}" height="{w}"/>'
        '<text x="{mx}" y="{my}" text-anchor="middle">{t}</text>'
    )
    x, y = corner + side * column, corner + side * row
    text = f"{100 * share:.0f}" if share else "·"
    # never so strong that the letters cannot be read on it
    strength = f"{0.5 * share:.3f}"
    return element(template, o=strength, x=x, y=y, w=side - 1, mx=x + side / 2, my=y + side / 2 + 4, t=text)
