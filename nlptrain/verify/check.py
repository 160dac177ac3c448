"""What a verification found: named numbers, each with what it may be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

from nlptrain.errors import ConfigError


@dataclass(frozen=True)
class Check:
    """One number that was measured.

    Attributes:
        name: what it is.
        value: as it was found.
        tolerance: which values are right, in words.
        passed: whether this one is.
    """

    name: str
    value: float
    tolerance: str
    passed: bool

    @classmethod
    def at_most(cls, name: str, value: float, limit: float = 0) -> "Check":
        """A number that must not be above `limit`; one that is not a number fails."""
        return cls(name, float(value), f"at most {limit:g}" if limit else "0", bool(value <= limit))

    @classmethod
    def more_than(cls, name: str, value: float, limit: float) -> "Check":
        """A number that must be above `limit`, as that of a negative control has to be."""
        return cls(name, float(value), f"more than {limit:g}", bool(value > limit))


def document(name: str, checks: Sequence[Check]) -> dict[str, Any]:
    """The checks of a verification, JSON-ready; without any, nothing was proved, and it has not passed."""
    passed = bool(checks) and all(check.passed for check in checks)
    return {"verification": name, "passed": passed, "checks": [asdict(check) for check in checks]}


def lines(found: Mapping[str, Any]) -> list[str]:
    """A `document` for a person: one line a check, and the verdict."""
    width = max((len(check["name"]) for check in found["checks"]), default=0)
    rows = [
        f"{'PASS' if check['passed'] else 'FAIL'}  {check['name']:<{width}}  {check['value']:<12g}  "
        f"({check['tolerance']})"
        for check in found["checks"]
    ]
    return [*rows, f"{found['verification']}: {'passed' if found['passed'] else 'FAILED'}"]


def known(name: str, names: Iterable[str]) -> str:
    """`name` itself where it is one of `names`; ConfigError with the nearest one otherwise."""
    names = list(names)
    if name in names:
        return name
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError("USAGE", f"verify: expected one of {', '.join(names)}, found {name!r}{hint}")
