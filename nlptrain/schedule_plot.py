"""The learning rate over the steps of a run as a picture: SVG for a page, plain text for a terminal.

Numbers in, text out; no plotting library, and the same numbers always give the same text.
"""

import math
from collections.abc import Sequence
from html import escape

# the viewBox in pixels, so that the letters have their own size on a 360 pixel wide screen
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 30, 46
# more points than pixels show nothing
COLUMNS = WIDTH - LEFT - RIGHT
LEAST_WIDTH, LEAST_HEIGHT = 30, 4
# below a class of its own, for inside a page a style holds for the whole page
STYLE = (
    ".rates text{font:12px system-ui,sans-serif;fill:#1f2328}.rates .ground{fill:#fff}.rates .grid{stroke:#d0d7de}"
    ".rates .line{fill:none;stroke:#0b57d0;stroke-width:2}@media(prefers-color-scheme:dark){.rates text{fill:#e6edf3}"
    ".rates .ground{fill:#0d1117}.rates .grid{stroke:#444c56}.rates .line{stroke:#8ab4f8}}"
)


def svg(rates: Sequence[float], title: str) -> str:
    """An SVG document of the rates.

    Args:
        rates: learning rate of each optimizer step, (steps,), finite and >= 0.
        title: shown above, and read out; any text.

    Raises:
        ValueError: no rates, or one that is not finite and >= 0.
    """
    _check(rates)
    top = _round_up(max(rates))
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    steps = max(len(rates) - 1, 1)
    points = [(LEFT + across * at / steps, TOP + down * (1 - rates[at] / top)) for at in _shown(rates, COLUMNS)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if len(points) == 1:
        line += f" {LEFT + across},{points[0][1]:.1f}"
    name = escape(title)
    summary = f"Learning rate of {len(rates)} optimizer steps, from {_short(rates[0])} to {_short(rates[-1])}"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" class="rates" width="100%" role="img" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}">',
            f"<title>{name}</title><desc>{summary}, at most {_short(max(rates))}.</desc>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text x="{LEFT}" y="18" font-weight="bold">{name}</text>',
            *(_height_mark(TOP + down * (1 - part), top * part) for part in (0.0, 0.5, 1.0)),
            *(_step_mark(LEFT + across * (at - 1) / steps, at) for at in _step_labels(len(rates))),
            f'<text x="{LEFT + across / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">optimizer step</text>',
            f'<text transform="translate(13 {TOP + down / 2:g}) rotate(-90)" text-anchor="middle">learning rate</text>',
            f'<polyline class="line" points="{line}"/>',
            "</svg>",
        ]
    )


def terminal(rates: Sequence[float], width: int = 72, height: int = 12) -> str:
    """A chart in ASCII, one column for one or several steps; no line is longer than `width`.

    Args:
        rates: learning rate of each optimizer step, (steps,), finite and >= 0.
        width: characters, at least 30.
        height: rows of the chart without its labels, at least 4.

    Raises:
        ValueError: no rates, one that is not finite and >= 0, or too little room.
    """
    _check(rates)
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        raise ValueError(f"a chart needs {LEAST_WIDTH} x {LEAST_HEIGHT} characters or more, found {width} x {height}")
    top = _round_up(max(rates))
    labels = {0: _short(top), height - 1: "0"}
    margin = max(len(text) for text in labels.values())
    columns = [_rows(part, top, height) for part in _buckets(rates, width - margin - 2)]
    rows = [
        f"{labels.get(row, ''):>{margin}} |" + "".join("*" if row in column else " " for column in columns).rstrip()
        for row in range(height)
    ]
    first, last = "1", str(len(rates))
    gap = max(len(columns) - len(first) - len(last), 1)
    steps = f"{'':{margin}}  {first}{'':{gap}}{last}" if len(rates) > 1 else f"{'':{margin}}  1"
    axis = f"{'':{margin}} +{'-' * len(columns)}"
    return "\n".join(["learning rate", *rows, axis, steps, f"{'':{margin}}  optimizer step"])


def _check(rates: Sequence[float]) -> None:
    if not rates:
        raise ValueError("a picture needs the rate of at least 1 step, found none")
    for at, rate in enumerate(rates):
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"a rate must be finite and >= 0, found {rate} in step {at + 1}")


def _buckets(rates: Sequence[float], count: int) -> list[Sequence[float]]:
    """The rates in order, in `count` or fewer parts of about equal length."""
    count = min(count, len(rates))
    edges = [round(part * len(rates) / count) for part in range(count + 1)]
    return [rates[low:high] for low, high in zip(edges, edges[1:], strict=False)]


def _shown(rates: Sequence[float], count: int) -> list[int]:
    """Indices that are drawn: all, or of each part its ends and extremes, so that no restart is lost."""
    found, start = set[int](), 0
    for part in _buckets(rates, count):
        inside = range(len(part))
        ends = (0, len(part) - 1, min(inside, key=part.__getitem__), max(inside, key=part.__getitem__))
        found |= {start + at for at in ends}
        start += len(part)
    return sorted(found)


def _rows(part: Sequence[float], top: float, height: int) -> range:
    """Rows, from the top, between the highest and the lowest rate of a column."""
    high, low = (round((height - 1) * (1 - rate / top)) for rate in (max(part), min(part)))
    return range(high, low + 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten, or 1 for 0; never below `value`."""
    if value == 0:
        return 1.0
    power = math.floor(math.log10(value))
    # from the decimal text, for 5 * 10.0**-5 is not 5e-5
    return next(top for digits in ("1", "2", "5", "10") if (top := float(f"{digits}e{power}")) >= value)


def _step_labels(steps: int) -> list[int]:
    return sorted({1, (steps + 1) // 2, steps})


def _short(value: float) -> str:
    mantissa, mark, power = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(power)}" if mark else mantissa


def _height_mark(y: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:g}" y2="{y:g}"/>'
        f'<text x="{LEFT - 4}" y="{y + 4:g}" text-anchor="end">{_short(value)}</text>'
    )


def _step_mark(x: float, step: int) -> str:
    anchor = "start" if x == LEFT else "end" if x > WIDTH - RIGHT - 1 else "middle"
    return f'<text x="{x:g}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{step}</text>'
