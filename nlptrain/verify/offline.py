"""Training, evaluation and prediction from files open no connection."""

import logging
import subprocess
from pathlib import Path

from nlptrain.config.schema import Config
from nlptrain.verify.check import Check
from nlptrain.verify.children import run
from nlptrain.verify.small import small

logger = logging.getLogger(__name__)
# a network without any interface, of this process alone
_NO_NETWORK = ("unshare", "--map-root-user", "--net")


def checks(config: Config) -> list[Check]:
    """Run the three commands where every connection is counted and refused, without a network if the system can."""
    before = _NO_NETWORK if _works(_NO_NETWORK) else ()
    if not before:
        logger.info("unshare --net is not to be had here: only connections of Python itself are seen")
    with small(config) as case:
        path, made = case.variant("run")
        data, output = case.validation, case.folder / "predictions.jsonl"
        commands: dict[str, list[object]] = {
            "train": ["train", path],
            "evaluate": ["evaluate", made.path, "--data", data],
            "predict": ["predict", made.path, "--data", data, "--output", output],
        }
        return [check for name, words in commands.items() for check in _checks(name, words, case.folder, before)]


def _checks(name: str, words: list[object], folder: Path, before: tuple[str, ...]) -> list[Check]:
    seen = folder / f"{name}.connections"
    code, _ = run(["-m", "nlptrain.verify.no_network", seen, *words], before=before, expected=None)
    found = seen.read_text(encoding="utf-8").splitlines()
    for line in dict.fromkeys(found):
        logger.warning("%s: %s", name, line)
    return [Check.at_most(f"{name}: connections tried", len(found)), Check(f"{name}: exit code", code, "0", code == 0)]


def _works(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
