"""Sums over the rows of all processes, and one process that decides for all.

Rows never leave their process. Process 0 runs the solver; the others wait for a question (a named sum at a point),
answer with the sum over their own rows, and end with the bytes process 0 ends with. So every solver works on several
processes, no branch of one can be taken differently elsewhere, and only process 0 factorises a matrix.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from nlptrain.errors import ProcessError

Array = NDArray[np.float64]
# the name of a sum and the point it is taken at
Ask = Callable[[str, Array], Array]

_DONE, _FAILED = -1, -2


def ranks() -> tuple[int, int]:
    """Which process this is, from 0, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def add(values: Array) -> Array:
    """The sum of a float64 array over all processes, on all of them; called by all at once."""
    if not distributed.is_initialized():
        return values
    total = torch.from_numpy(np.array(values, dtype=np.float64))
    distributed.all_reduce(total)
    return np.asarray(total.numpy(), dtype=np.float64)


def refuse_together(problem: Exception | None) -> None:
    """Raise on every process when at least one has a problem; called by all at once.

    Raises:
        Exception: `problem`, on the process that has one.
        ProcessError: on the others.
    """
    found = int(add(np.array([float(problem is not None)]))[0])
    if found:
        raise problem or ProcessError("REFINE", f"{found} of the other processes refused; see their messages")


def lead(names: Sequence[str], local: Ask, solve: Callable[[Ask], dict[str, Any]]) -> dict[str, Any]:
    """Run `solve` on process 0 with the sums of all processes, and return its result on all of them.

    Args:
        names: every name that `solve` may ask for, in the same order on all processes.
        local: the sum over the rows of this process.
        solve: from the sums of all processes to a JSON-able result.

    Raises:
        ProcessError: on the other processes, where `solve` raised on process 0.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return solve(local)
    if distributed.get_rank() != 0:
        return _answer(names, local)

    def ask(name: str, at: Array) -> Array:
        # sent first, so that all processes work at the same time
        _send(names.index(name), at)
        return add(local(name, at))

    try:
        result = solve(ask)
        text = json.dumps(result, allow_nan=False)
    except Exception as error:
        _send(_FAILED, np.frombuffer(f"{type(error).__name__}: {error}".encode(), dtype=np.uint8))
        raise
    _send(_DONE, np.frombuffer(text.encode(), dtype=np.uint8))
    return result


def _answer(names: Sequence[str], local: Ask) -> dict[str, Any]:
    while True:
        code, content = _receive()
        if code == _FAILED:
            raise ProcessError("REFINE", f"process 0 could not refine the head: {content.tobytes().decode()}")
        if code == _DONE:
            return _read(content.tobytes().decode())
        add(local(names[code], content))


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def _send(code: int, content: NDArray[Any]) -> None:
    distributed.broadcast(torch.tensor([code, len(content)]), 0)
    distributed.broadcast(torch.from_numpy(content.copy()), 0)


def _receive() -> tuple[int, NDArray[Any]]:
    header = torch.zeros(2, dtype=torch.int64)
    distributed.broadcast(header, 0)
    code, size = header.tolist()
    content = torch.zeros(size, dtype=torch.float64 if code >= 0 else torch.uint8)
    distributed.broadcast(content, 0)
    return code, content.numpy()
