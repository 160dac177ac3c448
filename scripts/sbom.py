"""Print the software bill of materials of the environment that runs this, as CycloneDX 1.6 in JSON.

    .venv/bin/python scripts/sbom.py > sbom.json

Components, licences and dependencies are those of the installed packages, as cyclonedx-py finds them; the SHA-256 of
the files that a package may have come from are those of requirements.lock.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from licences import licence
from own_environment import LOCK, ROOT, installed

CYCLONEDX = "cyclonedx-bom==7.5.0"
Component = dict[str, Any]


def bill(command: Path, *words: str | Path) -> dict[str, Any]:
    """What cyclonedx-py prints for one source of facts."""
    form = ("--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible")
    return dict(json.loads(subprocess.run([command, *words, *form], check=True, stdout=subprocess.PIPE).stdout))


def key(component: Component) -> tuple[str, str]:
    """Name, in the one spelling that the index takes all others for, and version."""
    return re.sub(r"[-_.]+", "-", component["name"]).lower(), component["version"]


def merged(environment: list[Component], lock: list[Component]) -> None:
    """Add to each component the lock's files and hashes, and a licence where cyclonedx-py made out none."""
    files = {key(component): component["externalReferences"] for component in lock}
    for component in environment:
        component.setdefault("externalReferences", []).extend(files.get(key(component), []))
        if not component.get("licenses"):
            component["licenses"] = [{"license": {"name": licence(distribution(component["name"]))}}]


def main() -> int:
    """Print the bill."""
    with installed(CYCLONEDX) as commands:
        command = commands / "cyclonedx-py"
        bom = bill(command, "environment", "--pyproject", ROOT / "pyproject.toml", sys.executable)
        merged(bom["components"], bill(command, "requirements", LOCK)["components"])
    json.dump(bom, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
