"""Ask an advisory service for known vulnerabilities of every locked package, with pip-audit.

    python scripts/audit.py [WORDS FOR pip-audit, such as --vulnerability-service osv]

Exits with 1 where a vulnerability is known, and with 2 where a package could not be looked up: silence is no all-clear.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from own_environment import LOCK, TORCH, installed

PIP_AUDIT = "pip-audit==2.10.1"


def judged(report: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code and the lines to print for pip-audit's JSON report."""
    packages = report["dependencies"]
    known = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions'] or 'no release'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines = [*known, f"{len(packages)} packages, {len(known)} known vulnerabilities"]
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        lines.append(f"not audited, since the service does not answer for them: {len(skipped)} packages ({names})")
    return 1 if known else 2 if skipped else 0, lines


def main() -> int:
    """Audit versions alone: the hashes are pip's to check, and torch has none."""
    pins = re.findall(r"^\w\S*==\S+", LOCK.read_text() + TORCH.read_text(), re.M)
    with installed(PIP_AUDIT) as commands:
        listed = commands / "pins.txt"
        listed.write_text("\n".join(pins))
        words: list[str | Path] = [
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "--format",
            "json",
            "-r",
            listed,
        ]
        done = subprocess.run([commands / "pip-audit", *words, *sys.argv[1:]], capture_output=True, text=True)
    try:
        code, lines = judged(json.loads(done.stdout))
    except json.JSONDecodeError:
        code, lines = 2, [*done.stderr.strip().splitlines()[-1:], "the advisory service could not be asked"]
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
