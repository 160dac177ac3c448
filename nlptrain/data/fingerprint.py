"""What a data set holds, as one number: rows, their order, tokens and labels."""

import hashlib

import pyarrow as pa
from datasets import Dataset


def fingerprint(encoded: Dataset) -> str:
    """sha256 (hex) of the token ids, lengths and labels of encoded rows, in their order."""
    digest = hashlib.sha256()
    for name in ("length", "input_ids", "labels"):
        if name in encoded.column_names:
            digest.update(name.encode())
            for batch in encoded.select_columns([name]).with_format("arrow").iter(batch_size=10_000):
                column = batch.column(name).combine_chunks()
                values = column.flatten() if pa.types.is_list(column.type) else column
                digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
