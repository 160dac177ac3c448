"""Cells in worker processes: many one after another in each, so that the libraries are imported once.

A worker that dies costs the cell it was at, and a new one takes its place; workers end when this process does, however
it ends, so that a grid that is started again finds nobody at its cells.
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from nlptrain.config.grid import Cell
from nlptrain.errors import ResourceError
from nlptrain.grid import cells as grid_cells

THREADS = "OMP_NUM_THREADS"
_SPAWN = multiprocessing.get_context("spawn")


def run(cells: Sequence[Cell], log: Path, *, jobs: int, keep_models: bool) -> Iterator[Cell]:
    """Run `cells` in `jobs` processes and yield each as it ends, done or failed; its folder says which.

    The cores are divided among the processes unless OMP_NUM_THREADS is set.

    Args:
        cells: not finished, in the order in which they are begun.
        log: folder of a text file per worker with all that is said in it.
        jobs: processes at a time.
        keep_models: whether model/ and checkpoints/ of a cell stay.
    """
    log.mkdir(parents=True, exist_ok=True)
    waiting = deque(cells)
    at_work: dict[Connection, _Worker] = {}
    with _threads(max(1, (os.cpu_count() or 1) // jobs)):
        try:
            for number in range(min(jobs, len(cells))):
                worker = _Worker.start(log / f"worker-{number}.log", keep_models=keep_models)
                at_work[worker.give(waiting.popleft())] = worker
            while at_work:
                for connection in wait(list(at_work)):
                    worker = at_work.pop(cast("Connection", connection))
                    yield worker.take()
                    if waiting:
                        worker = worker if worker.process.is_alive() else worker.replaced()
                        at_work[worker.give(waiting.popleft())] = worker
                    else:
                        worker.connection.close()
        finally:
            for worker in at_work.values():
                worker.process.kill()


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    log: Path
    keep_models: bool
    cell: Cell | None = None

    @classmethod
    def start(cls, log: Path, *, keep_models: bool) -> "_Worker":
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(theirs, log, keep_models))
        process.start()
        # only the worker holds that end now, so that ours tells when it dies
        theirs.close()
        return cls(process, ours, log, keep_models)

    def replaced(self) -> "_Worker":
        return self.start(self.log, keep_models=self.keep_models)

    def give(self, cell: Cell) -> Connection:
        self.cell = cell
        self.connection.send(cell)
        return self.connection

    def take(self) -> Cell:
        """The cell that ended; where the worker died of it, that is recorded as its error."""
        assert self.cell is not None
        try:
            self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            failure = ResourceError(
                "WORKER", f"its process ended with {_ending(self.process.exitcode)}; see {self.log}"
            )
            grid_cells.finish(self.cell, failure, keep_models=self.keep_models)
        return self.cell


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    return f"exit code {code}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The libraries of a worker read their number of threads from its environment, which is copied from ours."""
    before = os.environ.get(THREADS)
    os.environ.setdefault(THREADS, str(count))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(THREADS, None)


def _work(connection: Connection, log: Path, keep_models: bool) -> None:
    """What a worker does: a cell, an answer, the next cell, until the other end is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a", buffering=1, encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("nlptrain").setLevel(logging.INFO)
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        grid_cells.run(cell, keep_models=keep_models)
        connection.send(cell.name)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
