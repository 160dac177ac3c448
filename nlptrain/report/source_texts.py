"""The texts of rows, read again from where they came: predictions keep only a digest of them."""

from pathlib import Path

from nlptrain.data.read import read_table
from nlptrain.data.sources import Source, resolve
from nlptrain.data.targets import COLUMNS
from nlptrain.errors import NlptrainError
from nlptrain.predictions import Predictions, digest
from nlptrain.report.facts import RunFacts

Texts = list[tuple[str, ...] | None]


def texts(facts: RunFacts, predictions: Predictions) -> tuple[Texts, str | None]:
    """The texts of every predicted row, None where they are not to be had, and in that case why.

    Rows are found by their digest, so that a text which has changed since is not taken for the one that was judged.
    """
    task, data = facts.config.spec, facts.config.data
    try:
        table = read_table(_source(facts), encoding=data.encoding, delimiter=data.delimiter)
        names = [name for name in task.text if name in table.rows.column_names]
        columns = [COLUMNS[task.kind].texts(table, name).to_pylist() for name in names]
    except NlptrainError as error:
        return [None] * len(predictions), f"the texts of the rows are not there any more: {error}"
    rows = {digest(row): row for row in zip(*columns, strict=True)} if len(columns) == len(task.text) else {}
    found = [rows.get(name) for name in predictions.texts]
    lost = found.count(None)
    return found, f"{table.origin}: {lost} of {len(found)} rows are not there any more" if lost else None


def _source(facts: RunFacts) -> Source:
    """Where the rows of the split came from, by the record where that names a file, else by the configuration."""
    split = facts.split or "test"
    recorded = str(facts.result.data.get(split, {}).get("source", ""))
    if Path(recorded).is_file():
        return Source("file", recorded, None, split)
    sources = resolve(facts.config.spec, facts.config.data)
    held_out = split not in sources or bool(facts.result.data.get("validation_from_train")) and split == "validation"
    return sources["train" if held_out else split]
