"""Rows in Arrow files that are mapped into memory, so that a process holds of them no more than it is looking at.

A file loses its name as soon as it is mapped: the mapping keeps what is in it, and the operating system takes it back
when nothing refers to the rows any more, however the process ends. `TMPDIR` says where there is room.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import pyarrow as pa
from datasets.fingerprint import generate_random_fingerprint


@contextmanager
def arrow_file() -> Iterator[Path]:
    """The name of a file that can be written, and is gone afterwards."""
    with TemporaryDirectory(prefix="nlptrain-", ignore_cleanup_errors=True) as folder:
        yield Path(folder, "rows.arrow")


def written(tables: Iterable[pa.Table]) -> datasets.Dataset:
    """Rows that come table by table, of which there is at least one, all with the columns of the first."""
    with arrow_file() as path:
        tables = iter(tables)
        first = next(tables)
        with pa.ipc.new_stream(str(path), first.schema) as stream:
            for table in chain([first], tables):
                stream.write_table(table.combine_chunks())  # rows that were picked one by one are a chunk each
        return mapped(path)


def mapped(path: Path) -> datasets.Dataset:
    """The rows of an Arrow stream file, which may then be deleted."""
    with pa.ipc.open_stream(pa.memory_map(str(path))) as stream:
        # not `Dataset.from_file`, which a worker process would open again by its name; and a name of its own, since
        # the library's would be a hash of all rows
        return datasets.Dataset(stream.read_all(), fingerprint=generate_random_fingerprint())
