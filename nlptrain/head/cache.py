"""Features on disk: safetensors files, one of each process, used again only where all they depend on is the same."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nlptrain.head.features import Features

logger = logging.getLogger(__name__)


def cached(path: Path, fingerprint: str, make: Callable[[], Features]) -> Features:
    """What is at `path`, if it was made from the same; else what `make` gives, which then is there.

    Args:
        path: of this process alone.
        fingerprint: see `nlptrain.head.features.fingerprint`.
        make: called by all processes at once where it works together with others; features do not.
    """
    found = _read(path, fingerprint)
    if found is None:
        found = make()
        _write(path, fingerprint, found)
    return found


def _read(path: Path, fingerprint: str) -> Features | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            facts = file.metadata() or {}
            if facts.get("fingerprint") != fingerprint:
                logger.info("%s: of another model or other rows; computed anew", path)
                return None
            values, places = file.get_tensor("features"), file.get_tensor("places")
    except (OSError, SafetensorError) as error:
        logger.warning("%s: cannot be read (%s); computed anew", path, error)
        return None
    return Features(values, places.astype(np.int64), int(facts["rows"]))


def _write(path: Path, fingerprint: str, found: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        tensors = {"features": found.values, "places": found.places}
        save_file(tensors, partial, {"fingerprint": fingerprint, "rows": str(found.rows)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
