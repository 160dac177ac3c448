"""Starting, checking and ending the processes of a run.

Launchers can quietly start fewer processes than they were asked for (``accelerate launch --cpu --num_processes 2``
starts one; ``--multi_gpu`` without a GPU starts two that know nothing of each other), so what was asked for is compared
with what is there before anything is written.
"""

import gc
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from torch import distributed

from nlptrain.errors import ProcessError

TIMEOUT = timedelta(minutes=10)
_COUNT_OPTIONS = ("--num_processes", "--num-processes")
_FILE_OPTIONS = ("--config_file", "--config-file")


def start() -> int:
    """Join the process group the launcher describes; return the number of processes.

    Raises:
        ProcessError: there are fewer processes than the launcher was asked for.
    """
    asked = max(int(os.environ.get("WORLD_SIZE", "1")), _asked_of_launcher())
    if launched() and not distributed.is_initialized():
        # Trainer passes its time limit on for GPUs only; without one a lost process would be waited for 30 minutes.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
    found = distributed.get_world_size() if distributed.is_initialized() else 1
    if found != asked:
        raise ProcessError("PROCESSES", _advice(asked, found))
    return found


def finish() -> None:
    """Leave the process group, when there is one."""
    if distributed.is_initialized():
        # a distributed wrapper that outlives its group can abort the interpreter at exit
        gc.collect()
        distributed.destroy_process_group()


def is_main() -> bool:
    """Whether this process writes files and speaks to the user."""
    return os.environ.get("RANK", "0") == "0"


def launched() -> bool:
    """Whether a launcher started this process as one of several, or as the only one."""
    return "RANK" in os.environ


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def _asked_of_launcher() -> int:
    """``--num_processes`` of the ``accelerate launch`` that started this process; 1 where there is none."""
    with suppress(psutil.Error):
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent else []
        folder = Path(parent.cwd()) if parent else Path()
        names = {Path(word).name for word in words}
        if {"accelerate", "launch"} <= names or names & {"accelerate-launch", "accelerate.commands.launch"}:
            return _count(words, folder)
    return 1


def _count(words: list[str], folder: Path) -> int:
    values = dict(zip(words, words[1:], strict=False)) | dict(w.split("=", 1) for w in words if "=" in w)
    for option in _COUNT_OPTIONS:
        if values.get(option, "").isdigit():
            return int(values[option])
    for option in _FILE_OPTIONS:
        if option in values:
            return _count_in_file(folder / values[option])
    return 1


def _count_in_file(path: Path) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "num_processes":
                return int(value.partition("#")[0])
    return 1


def _advice(asked: int, found: int) -> str:
    return (
        f"expected {asked} processes, found {found}. On CPUs start them with `torchrun --nproc_per_node {asked}` or "
        f"`accelerate launch --multi_gpu --num_processes {asked}`; `accelerate launch --cpu` starts only one."
    )
