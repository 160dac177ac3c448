"""From values to places in a picture: scales, ticks, and the frame that every chart of the report stands in.

The viewBox is as wide as the text column of a 360 pixel wide screen, so that letters keep about their size there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nlptrain.report.safe_text import visible

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 26, 42
INTERVALS = 4


def element(template: str, **values: str | float) -> Markup:
    """Markup of a constant template, its values escaped and numbers to a tenth of a pixel."""
    shown = {name: f"{v:.1f}" if isinstance(v, float) else v for name, v in values.items()}
    return Markup(template).format(
        **{name: v if isinstance(v, Markup) else visible(str(v)) for name, v in shown.items()}
    )


def number(value: float) -> str:
    """Four digits, without an exponent's leading zeros; a whole number in full."""
    if abs(value) < 1e7 and float(value).is_integer():
        return f"{value:.0f}"
    mantissa, mark, power = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(power)}" if mark else mantissa


@dataclass(frozen=True)
class Axis:
    """Values to pixels.

    Attributes:
        label: what is measured, with its unit.
        low: value at `start`; > 0 on a logarithmic axis.
        high: value at `end`, above `low`.
        start: pixel.
        end: pixel.
        logarithmic: whether equal ratios take equal room.
    """

    label: str
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; one beyond an end is drawn at the end."""
        at = min(max(value, self.low), self.high)
        low, high, at = (math.log(v) for v in (self.low, self.high, at)) if self.logarithmic else (*self.ends, at)
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value."""
        return self.low, self.high

    @property
    def ticks(self) -> list[float]:
        """Round values from end to end."""
        if not self.logarithmic:
            step = tick_step(self.low, self.high)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [float(f"{at * step:.12g}") for at in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
        inside = [mark for mark in marks if self.low <= mark <= self.high]
        return inside if len(inside) <= INTERVALS + 2 else inside[:: math.ceil(len(inside) / INTERVALS)]


def tick_step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most `INTERVALS` steps from low to high."""
    least = (high - low) / INTERVALS
    power = math.floor(math.log10(least))
    return next(step for digits in (1, 2, 5, 10) if (step := float(f"{digits}e{power}")) >= least * (1 - 1e-9))


def across(label: str, values: Sequence[float], *, logarithmic: bool = False) -> Axis:
    """An axis from left to right that ends where the values end."""
    return _axis(label, _ends(values, logarithmic=logarithmic), LEFT, WIDTH - RIGHT, logarithmic)


def upward(label: str, values: Sequence[float], *, logarithmic: bool = False, rounded: bool = True) -> Axis:
    """An axis from bottom to top that ends at round values, or where the values end."""
    low, high = _ends(values, logarithmic=logarithmic)
    if rounded and not logarithmic:
        step = tick_step(low, high)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return _axis(label, (low, high), HEIGHT - BOTTOM, TOP, logarithmic)


def _axis(label: str, ends: tuple[float, float], start: float, end: float, logarithmic: bool) -> Axis:
    return Axis(label, *ends, start, end, logarithmic)


def _ends(values: Sequence[float], *, logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        return (low, high) if low < high else (low / 2, high * 2)
    room = max(abs(low), 1e-9) / 2
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high)) else (low - room, high + room)


def picture(title: str, summary: str, parts: Sequence[Markup], height: int = HEIGHT) -> Markup:
    """An SVG with its name and description for who cannot see it."""
    return element(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}">'
        "<title>{title}</title><desc>{summary}</desc>{parts}</svg>",
        width=WIDTH,
        height=height,
        title=title,
        summary=summary,
        parts=Markup("").join(parts),
    )


def frame(x: Axis, y: Axis) -> list[Markup]:
    """Grid, ticks and labels of both axes."""
    base = max(y.start, y.end)
    parts = [
        element(
            '<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
            '<text x="{at}" y="{down}" text-anchor="end">{tick}</text>',
            left=float(x.start),
            right=float(x.end),
            y=y(tick),
            at=x.start - 5.0,
            down=y(tick) + 4,
            tick=number(tick),
        )
        for tick in y.ticks
    ]
    parts += [
        element(
            '<line class="axis" x1="{x}" x2="{x}" y1="{base}" y2="{end}"/>'
            '<text x="{x}" y="{down}" text-anchor="{anchor}">{tick}</text>',
            x=x(tick),
            base=float(base),
            end=base + 4.0,
            down=base + 16.0,
            anchor="end" if x(tick) > WIDTH - RIGHT - 8 else "middle",
            tick=number(tick),
        )
        for tick in x.ticks
    ]
    return [*parts, *axis_names(x, y, base)]


def axis_names(x: Axis, y: Axis, base: float) -> list[Markup]:
    """Both labels, and the line below."""
    return [
        element(
            '<line class="axis" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>',
            left=float(x.start),
            right=float(x.end),
            y=float(base),
        ),
        element(
            '<text x="{x}" y="{y}" text-anchor="middle">{label}</text>',
            x=(x.start + x.end) / 2,
            y=base + 34.0,
            label=x.label,
        ),
        element(
            '<text transform="translate(11 {y}) rotate(-90)" text-anchor="middle">{label}</text>',
            y=(y.start + y.end) / 2,
            label=y.label,
        ),
    ]


def diagonal(x: Axis, y: Axis) -> Markup:
    """The line on which both values are equal."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    line = '<line class="mark" x1="{a}" x2="{b}" y1="{c}" y2="{d}"/>'
    return element(line, a=x(low), b=x(high), c=y(low), d=y(high))
