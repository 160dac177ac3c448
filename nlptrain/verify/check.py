"""One line of a verification."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A measured value and whether it keeps to its tolerance.

    Attributes:
        name: what was measured.
        value: of the measurement.
        tolerance: what it has to be, such as "<= 1e-08".
        passed: whether it is.
    """

    name: str
    value: float
    tolerance: str
    passed: bool


def at_most(name: str, value: float, limit: float) -> Check:
    """Passes where the value is not above the limit; NaN is."""
    return Check(name, float(value), f"<= {limit:g}", bool(value <= limit))


def more_than(name: str, value: float, limit: float) -> Check:
    """Passes where the value is above the limit, as that of a negative control has to be."""
    return Check(name, float(value), f"> {limit:g}", bool(value > limit))
