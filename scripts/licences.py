"""Check the licence of every installed package against a list; exits with 1 and the names where one is not on it."""

import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any

ALLOWED = re.compile(
    r"Apache|MIT|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla|Unlicense|Zlib|0BSD|CC0|HPND", re.IGNORECASE
)
FORBIDDEN = re.compile(r"(?<!L)GPL|AGPL|Affero|SSPL|Proprietary|Commercial", re.IGNORECASE)


def licence(package: Distribution) -> str:
    """What the metadata says: the expression, else the classifiers, else the first line of the text."""
    meta: Any = package.metadata
    classifiers = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (meta.get("License") or "").strip().splitlines()
    return str(meta.get("License-Expression") or "; ".join(classifiers) or (text[0] if text else "unknown"))


def main() -> int:
    """List what is not allowed."""
    found = {package.metadata["Name"]: licence(package) for package in distributions()}
    wrong = {name: what for name, what in found.items() if not ALLOWED.search(what) or FORBIDDEN.search(what)}
    for name, what in sorted(wrong.items()):
        print(f"{name}: {what}")
    print(f"{len(found)} packages, {len(wrong)} with a licence that is not on the list")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
