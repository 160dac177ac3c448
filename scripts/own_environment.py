"""A tool for the upkeep of the project, installed into an environment of its own that is thrown away."""

import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, TORCH = ROOT / "requirements.lock", ROOT / "requirements-torch.txt"


@contextmanager
def installed(requirement: str) -> Iterator[Path]:
    """The folder with the commands of a package, for the length of the block; ends with 2 where pip cannot have it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        commands = Path(folder) / "bin"
        pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", requirement]
        if subprocess.run([commands / "python", *pip]).returncode:
            print(f"pip could not install {requirement}; its reason stands above", file=sys.stderr)
            raise SystemExit(2)
        yield commands
