"""How many values two finished runs differ in, part by part, at zero tolerance."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.trainer_pt_utils import safe_globals

from nlptrain import checkpoints
from nlptrain.errors import ModelError
from nlptrain.run_folder import RunFolder
from nlptrain.verify.check import Check

# what a clock or a folder decides
_MEASURED = ("_runtime", "_per_second", "seconds", "best_model_checkpoint")
LEARNED = ("weights", "optimizer", "scheduler", "random numbers")


def differences(one: RunFolder, other: RunFolder) -> dict[str, int]:
    """Values that differ between the last checkpoints and the histories of two runs.

    Returns:
        By part: weights, optimizer, scheduler, random numbers, callbacks, history, progress (the rest of the state).

    Raises:
        ModelError: a run has no checkpoint.
    """
    parts, others = state(one), state(other)
    return {part: count(parts[part], others[part]) for part in parts}


def checks(one: RunFolder, other: RunFolder, note: str = "", parts: tuple[str, ...] = ()) -> list[Check]:
    """One check for every part of `differences`, or for some; none may differ."""
    found = differences(one, other)
    return [Check.at_most(f"{part}: values that differ{note}", found[part]) for part in parts or found]


def state(run: RunFolder) -> dict[str, Any]:
    """Everything that a run ends with, by part."""
    last = checkpoints.newest(run.checkpoints)
    if last is None:
        raise ModelError("CHECKPOINT", f"{run.checkpoints}: there is no checkpoint to compare")
    trainer = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    history = [json.loads(line) for line in run.history.read_text(encoding="utf-8").splitlines()]
    return {
        "weights": load_file(last / "model.safetensors"),
        "optimizer": _states(last, "optimizer*.pt"),
        "scheduler": _states(last, "scheduler*.pt"),
        "random numbers": _states(last, "rng_state*.pth"),
        "callbacks": trainer.pop("stateful_callbacks"),
        "history": [trainer.pop("log_history"), history],
        "progress": [trainer, {p.name: json.loads(p.read_text("utf-8")) for p in last.glob("counters_*.json")}],
    }


def _states(checkpoint: Path, pattern: str) -> dict[str, Any]:
    with safe_globals():
        return {path.name: torch.load(path, "cpu", weights_only=True) for path in checkpoint.glob(pattern)}


def count(one: Any, other: Any) -> int:
    """Values that differ, bit for bit, in two nested structures; one that is missing or of another type counts once."""
    return sum(_differing(one, other))


def _differing(one: Any, other: Any) -> Iterator[int]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() | other.keys():
            if not str(key).endswith(_MEASURED):
                yield from _differing(one[key], other[key]) if key in one and key in other else (1,)
    elif isinstance(one, list | tuple) and type(one) is type(other):
        yield abs(len(one) - len(other))
        for a, b in zip(one, other, strict=False):
            yield from _differing(a, b)
    elif isinstance(one, torch.Tensor | np.ndarray) and type(one) is type(other):
        yield _arrays(torch.as_tensor(one), torch.as_tensor(other))
    else:
        yield int(not _same(one, other))


def _arrays(one: torch.Tensor, other: torch.Tensor) -> int:
    if one.dtype != other.dtype or one.shape != other.shape:
        return max(one.numel(), other.numel(), 1)
    if one.numel() == 0:
        return 0
    # bytes: a NaN is equal to itself, and -0.0 is not 0.0
    bytes_ = [array.contiguous().reshape(-1, 1).view(torch.uint8) for array in (one, other)]
    return int((bytes_[0] != bytes_[1]).any(dim=1).sum())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other) or one != one and other != other
    return type(one) is type(other) and bool(one == other)
