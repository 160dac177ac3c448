"""When two rows have the same texts: a key for each row, and the keys of all splits as numbers."""

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nlptrain.data import cleaning
from nlptrain.data.mapped import written
from nlptrain.data.read import CHUNK

BLANK = 0
_KEY = "key"


def row_key(texts: Sequence[str]) -> str:
    """Equal for rows whose texts are the same after NFC, strip and casefold, in either order; "" if all are blank."""
    folded = sorted(unicodedata.normalize("NFC", text).strip().casefold() for text in texts)
    return "\x1f".join(folded) if folded[-1] else ""


def row_keys(
    rows: datasets.Dataset, columns: Sequence[str], clean: Sequence[str]
) -> tuple[pa.ChunkedArray, NDArray[np.uint8]]:
    """The `row_key` of every row once its texts are cleaned.

    Args:
        rows: with the text `columns`.
        columns: names.
        clean: steps, as `nlptrain.data.cleaning.clean` takes them.

    Returns:
        The keys (n,), and in how many texts of a row each step changes something (n, steps).
    """
    changed = []

    def tables() -> Iterator[pa.Table]:
        for batch in rows.select_columns(list(columns)).iter(CHUNK):
            texts = zip(*(batch[name] for name in columns), strict=True)
            traced = [[cleaning.traced(text, clean) for text in row] for row in texts]
            counts = [[sum(step in steps for _, steps in row) for step in clean] for row in traced]
            changed.append(np.array(counts, np.uint8).reshape(len(traced), len(clean)))
            yield pa.table({_KEY: pa.array([row_key([text for text, _ in row]) for row in traced], pa.string())})

    keys = written(tables()).with_format("arrow")[:].column(_KEY)
    return keys, np.concatenate(changed)


def numbered(*splits: pa.ChunkedArray) -> list[NDArray[np.int64]]:
    """Keys as numbers, (n,) for each split: the same for the same keys of all splits, and in the order of the keys.

    `BLANK` stands for the key of a row without text.
    """
    # the first is "", so that it is there, and the lowest
    keys = pa.chunked_array([pa.array([""]), *chain.from_iterable(split.chunks for split in splits)])
    ranks = pc.rank(keys, "ascending", tiebreaker="dense").to_numpy().astype(np.int64) - 1
    return np.split(ranks[1:], np.cumsum([len(split) for split in splits])[:-1])
