"""The picture of `sunspot.py` as SVG: numbers in, text out, and the same numbers always give the same text."""

from collections.abc import Mapping, Sequence
from html import escape

from nlptrain.report.axes import Axis

WIDTH, HEIGHT = 760, 640
LEFT, RIGHT = 64, 16
COLORS = ("#b3261e", "#0b57d0", "#137333")
DASHES = ("6 3", "", "2 2")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.ground{fill:#fff}.grid{stroke:#d0d7de}"
    ".line{fill:none;stroke-width:1.8}.truth{fill:#57606a}.head{font-weight:bold}"
)


def picture(
    curves: Mapping[str, Sequence[float]],
    years: Sequence[int],
    numbers: Sequence[float],
    predictions: Mapping[str, Sequence[float]],
) -> str:
    """Above the objective over the iterations, below the held-out years.

    Args:
        curves: name and objective at the start and after each iteration, > 0; at most three.
        years: (m,).
        numbers: (m,) observed.
        predictions: name and (m,) predictions, the names of `curves`.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" role="img" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<title>Three ways to train one small network on the yearly sunspot numbers</title>",
        f"<desc>{escape(_summary(curves))}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
        *_legend(list(curves)),
        *_objective(curves),
        *_years(years, numbers, predictions),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _objective(curves: Mapping[str, Sequence[float]]) -> list[str]:
    values = [value for curve in curves.values() for value in curve]
    across = Axis("iterations", 1, max(len(curve) for curve in curves.values()), LEFT, WIDTH - RIGHT, logarithmic=True)
    down = Axis("objective", min(values) / 1.1, max(values) * 1.1, 280, 66, logarithmic=True)
    marks = [digit * 10.0**power for power in range(-9, 9) for digit in (1, 2, 5)]
    parts = [f'<text class="head" x="{LEFT}" y="54">Objective on the fitted years, median over the starts</text>']
    parts += [_across(down(mark), f"{mark:g}") for mark in marks if down.low <= mark <= down.high]
    ticks = sorted({1, *(mark + 1 for mark in (1, 3, 10, 30, 100, 300, 1000, 3000) if mark + 1 <= across.high)})
    parts += [_label(across(tick), 296, str(tick - 1)) for tick in ticks]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, 314, "iterations"))
    for number, curve in enumerate(curves.values()):
        parts.append(_line(number, [(across(at + 1), down(value)) for at, value in enumerate(curve)]))
    return parts


def _years(years: Sequence[int], numbers: Sequence[float], predictions: Mapping[str, Sequence[float]]) -> list[str]:
    values = [*numbers, *(value for line in predictions.values() for value in line)]
    across = Axis("year", years[0], years[-1], LEFT, WIDTH - RIGHT)
    down = Axis("sunspot number", min(0.0, *values), max(values), 590, 376)
    parts = [
        f'<text class="head" x="{LEFT}" y="364">Sunspot number of the held-out years, predicted a year ahead</text>'
    ]
    parts += [_across(down(mark), str(mark)) for mark in range(0, int(down.high) + 1, 50)]
    parts += [_label(across(year), 608, str(year)) for year in years if year % 10 == 0]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, 628, "year"))
    for number, line in enumerate(predictions.values()):
        parts.append(_line(number, [(across(year), down(value)) for year, value in zip(years, line, strict=True)]))
    points = zip(years, numbers, strict=True)
    return parts + [
        f'<circle class="truth" cx="{across(year):.1f}" cy="{down(number):.1f}" r="2.6"/>' for year, number in points
    ]


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        x = LEFT + 180 * number
        parts += [_line(number, [(x, 20), (x + 28, 20)]), f'<text x="{x + 36}" y="24">{escape(name)}</text>']
    x = LEFT + 180 * len(names)
    return [*parts, f'<circle class="truth" cx="{x + 14}" cy="20" r="2.6"/><text x="{x + 26}" y="24">observed</text>']


def _summary(curves: Mapping[str, Sequence[float]]) -> str:
    ends = (f"{name} from {curve[0]:.3g} to {curve[-1]:.3g} in {len(curve) - 1}" for name, curve in curves.items())
    return f"Objective and iterations: {'; '.join(ends)}."


def _line(number: int, points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""
    return f'<polyline class="line" stroke="{COLORS[number]}"{dashes} points="{path}"/>'


def _across(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _label(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'
