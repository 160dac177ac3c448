"""All splits of a task, read, checked, labelled and counted; or the rows of one file for evaluation and prediction."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nlptrain.config.refine import RefineConfig
from nlptrain.config.schema import DataConfig
from nlptrain.data import checks
from nlptrain.data.balance import epoch_rows
from nlptrain.data.columnar import LINE
from nlptrain.data.held_out import hold_out
from nlptrain.data.labels import LabelMap, is_unlabelled, scores
from nlptrain.data.parts import Part, read_parts
from nlptrain.data.read import Table, read_chunks
from nlptrain.data.sources import Source, resolve, source_of
from nlptrain.data.targets import COLUMNS
from nlptrain.errors import DataError
from nlptrain.tasks import TaskSpec


@dataclass(frozen=True)
class Splits:
    """What a run trains and is judged on.

    Attributes:
        rows: per split the task's text columns (str; tokens with single spaces between them), ``label`` (int64 class
            id, list of them, or float64 score; no such column where the split is unlabelled) and ``line`` (int64, where
            the row stands in its source).
        labels: the classes; None for regression.
        facts: JSON-ready counts of what was found and done.
        notes: sentences that the user should read.
        held_out: training rows that fine-tuning does not see, as `rows` has them, by what they are for.
    """

    rows: dict[str, datasets.Dataset]
    labels: LabelMap | None
    facts: dict[str, Any]
    notes: list[str]
    held_out: dict[str, datasets.Dataset] = field(default_factory=dict)


@dataclass
class _Log:
    """What was done to the rows."""

    notes: list[str] = field(default_factory=list)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)

    def drop(self, part: Part, split: str, reason: str, rows: NDArray[np.int64]) -> Part:
        if len(rows) == len(part.keys):
            problem = f"{part.origin}: data.{reason}: drop would leave no row"
            raise DataError("DATA_EMPTY", f"{problem}; give a source with other rows")
        if len(rows):
            self.dropped.setdefault(split, {})[reason] = len(rows)
            self.notes.append(f"{split}: dropped {part.where.at(rows)} because of data.{reason}: drop")
        return part.without(rows)


def load_splits(task: TaskSpec, data: DataConfig, *, seed: int, refine: RefineConfig | None = None) -> Splits:
    """Read, check and label every split; without a validation split, hold out a part of the training rows.

    Args:
        task: what the columns mean.
        data: sources and what to do about leaks, repeats and empty texts.
        seed: of the held-out parts.
        refine: says which training rows are held out from fine-tuning; None: none.

    Raises:
        DataError: anything wrong with a source or its rows.
        ConfigError: there is no source of training rows, or a name in the configuration cannot be used.
    """
    log = _Log()
    parts = read_parts(resolve(task, data), task, data)
    labels = _label_map(parts["train"], task)
    parts = {split: _labelled(part, split, task, labels, log) for split, part in parts.items()}
    found = {split: part.found() for split, part in parts.items()}
    parts = {split: _cleaned(part, split, data, log) for split, part in parts.items()}
    leakage = {f"{a}/{b}": len(checks.shared(parts[b].keys, parts[a].keys)) for a, b in combinations(parts, 2)}
    parts["train"] = _unleaked(parts, data, log)
    made = None
    if "validation" not in parts:
        parts = _with_validation(parts, task, labels, data, seed, log)
        found["validation"] = parts["validation"].found()
        made = {"fraction": data.validation_fraction, "seed": seed}
    parts["train"], held = hold_out(parts["train"], labels, refine, seed=seed)
    if held:
        counts = ", ".join(f"{len(part.keys)} for the {name}" for name, part in held.items())
        log.notes.append(f"train: held out from fine-tuning: {counts}, seed {seed}")
    _check_targets(parts, labels, log)
    if data.balance == "oversample":
        known = parts["train"].targets or []
        drawn = f"{epoch_rows(known)} rows an epoch, of {len(known)} different ones"
        log.notes.append(f"train: {drawn}, because of data.balance: oversample")
    facts: dict[str, Any] = {split: part.facts(labels) | found[split] for split, part in parts.items()}
    facts |= {"leakage": leakage, "dropped": log.dropped, "validation_from_train": made}
    facts |= {"held_out": {name: len(part.keys) for name, part in held.items()}} if held else {}
    rows, kept = ({name: part.dataset(task) for name, part in some.items()} for some in (parts, held))
    return Splits(rows, labels, facts, log.notes, kept)


def load_rows(
    task: TaskSpec, source: str, data: DataConfig, labels: LabelMap | None
) -> tuple[datasets.Dataset, list[str]]:
    """Labelled rows of one source (on the Hub: its test split) for a trained model, as `Splits.rows` has them.

    Args:
        task: what the columns mean.
        source: a file, ``package://...`` or a Hub data set.
        data: encoding, delimiter and what to do about repeats and empty texts.
        labels: the model's classes; None for regression.

    Returns:
        The rows, and sentences that the user should read.

    Raises:
        DataError: anything wrong with the source, or labels the model does not know.
    """
    where, log = _source(task, source), _Log()
    if labels is not None:
        labels = replace(labels, numbered=task.labels == labels.names)
    part = _labelled(read_parts({"test": where}, task, data)["test"], "test", task, labels, log)
    if part.targets is None:
        raise DataError("DATA_LABEL", f"{part.origin}: every label is -1, so there is nothing to score; use predict")
    return _cleaned(part, "test", data, log).dataset(task), log.notes


def unlabelled_rows(task: TaskSpec, source: Source, data: DataConfig) -> tuple[datasets.Dataset, list[str]]:
    """Every row of a source in its order, as `load_rows` gives them but without labels."""
    found = [_unchecked(t, task) for t in read_chunks(source, encoding=data.encoding, delimiter=data.delimiter)]
    return datasets.concatenate_datasets([rows for rows, _ in found]), found[0][1]


def stream_rows(task: TaskSpec, source: str, data: DataConfig) -> Iterator[tuple[datasets.Dataset, list[str]]]:
    """Every row of one source in its order, blank texts too, some thousands at a time, for predictions.

    Args:
        task: what the columns mean.
        source: a file, ``package://...`` or a Hub data set.
        data: encoding and delimiter.

    Yields:
        Rows with the text columns, all other columns as strings (null where empty in JSON or Parquet) and ``line``, but
        without the task's label column and any called ``label`` or ``line``; and sentences that the user should read.

    Raises:
        DataError: anything wrong with the source; of malformed rows at its end.
    """
    for table in read_chunks(_source(task, source), encoding=data.encoding, delimiter=data.delimiter):
        yield _unchecked(table, task)


def _source(task: TaskSpec, source: str) -> Source:
    return source_of(source, task.splits.get("test", "test"))


def _label_map(train: Part, task: TaskSpec) -> LabelMap | None:
    labels = COLUMNS[task.kind].labels
    if labels is None:
        return None
    if task.labels is None:
        labels.refuse(train.values, train.where)
    return labels.fit(train.values, task)


def _labelled(part: Part, split: str, task: TaskSpec, labels: LabelMap | None, log: _Log) -> Part:
    """The part with targets; a test split whose every label is -1 has none."""
    values = part.values
    single = labels.single(values, part.where)[0] if labels else values
    if split.startswith("test") and is_unlabelled(single, task):
        log.notes.append(f"{split}: every label is -1, so it is unlabelled and gets no scores")
        return part
    found = labels.encode(values, part.where) if labels else scores(values, task, part.where)
    if labels:
        log.notes.extend(f"{split}: {note}" for note in labels.notes(found, part.where))
    return replace(part, targets=found)


def _cleaned(part: Part, split: str, data: DataConfig, log: _Log) -> Part:
    """The part after `data.empty_text` and `data.duplicates`."""
    empty = checks.blank(part.keys)
    repeats = checks.repeats(part.keys, part.targets)
    problems = []
    if len(empty) and data.empty_text == "error":
        problems.append(
            f"{part.origin}: no text in {part.where.at(empty)}; fill in the rows or set data.empty_text: drop"
        )
    if len(repeats) and data.duplicates == "error":
        found = f"{part.origin}: {part.where.at(repeats)} repeat an earlier row"
        problems.append(f"{found}; remove them or set data.duplicates: drop")
    if problems:
        raise DataError("DATA_ROWS", problems)
    if contradictory := checks.contradictions(part.keys, part.targets):
        log.notes.append(f"{split}: texts with more than one label or score: {contradictory}; all are kept")
    if data.duplicates == "drop" and split == "train":
        part = log.drop(part, split, "duplicates", repeats)
        empty = checks.blank(part.keys)
    return log.drop(part, split, "empty_text", empty) if data.empty_text == "drop" else part


def _unleaked(parts: dict[str, Part], data: DataConfig, log: _Log) -> Part:
    """The training part after `data.leakage`."""
    train, problems = parts["train"], []
    leaked = np.empty(0, np.int64)
    for split, part in parts.items():
        rows = checks.shared(part.keys, train.keys)
        if split != "train" and len(rows):
            same = checks.shared(train.keys, part.keys)
            leaked = np.union1d(leaked, same)
            problems.append(f"{part.origin}: {part.where.at(rows)} also in {train.origin}: {train.where.at(same)}")
    if problems and data.leakage == "error":
        remedy = "remove the rows, or set data.leakage: drop (takes them out of the training rows) or allow"
        raise DataError("DATA_LEAKAGE", [f"{problem}; {remedy}" for problem in problems])
    if data.leakage == "drop":
        return log.drop(train, "train", "leakage", leaked)
    log.notes.extend(f"{problem}; kept because of data.leakage: allow" for problem in problems)
    return train


def _with_validation(
    parts: dict[str, Part], task: TaskSpec, labels: LabelMap | None, data: DataConfig, seed: int, log: _Log
) -> dict[str, Part]:
    train = parts["train"]
    names = labels.names if labels else None
    fraction = data.validation_fraction
    kept, held = COLUMNS[task.kind].hold_out(
        train.keys, train.targets or [], names=names, fraction=fraction, seed=seed, origin=train.origin
    )
    log.notes.append(f"validation: {len(held)} of {len(kept) + len(held)} training rows held out, seed {seed}")
    made = {"train": train.only(kept), "validation": train.only(held)}
    return made | {split: part for split, part in parts.items() if split != "train"}


def _check_targets(parts: dict[str, Part], labels: LabelMap | None, log: _Log) -> None:
    """Something can be learnt from train, and every class that is judged can be learnt."""
    train = parts["train"]
    trained = _classes(train, labels)
    if len(trained) < 2:
        held = [labels.names[int(one)] if labels else one for one in trained]
        problem = f"{train.origin}: all {len(train.keys)} training rows have the same label or score {held}"
        raise DataError("DATA_LABEL", f"{problem}; at least two different ones are needed to train")
    for split, part in parts.items():
        if labels is None or part.targets is None:
            continue
        found = _classes(part, labels)
        for unseen in sorted(found - trained):
            at = part.where.at([row for row, target in enumerate(part.targets) if unseen in labels.ids(target)])
            problem = f"{part.origin}: label {labels.names[int(unseen)]!r} in {at} of {split} is in no training row"
            raise DataError("DATA_LABEL", f"{problem}; add such rows to train or remove these")
        if lacking := [labels.names[int(one)] for one in sorted(trained - found)]:
            log.notes.append(f"{split}: no row has the label {', '.join(map(repr, lacking))}")


def _classes(part: Part, labels: LabelMap | None) -> set[Any]:
    """The distinct classes, or scores, of the rows."""
    targets = part.targets or []
    return set(chain.from_iterable(map(labels.ids, targets))) if labels else set(targets)


def _unchecked(table: Table, task: TaskSpec) -> tuple[datasets.Dataset, list[str]]:
    """Every row for prediction, with the columns that do not claim to be labels."""
    checks.check_texts(table, task)
    left_out = {*checks.RESERVED, task.label, *task.label_aliases} & set(table.rows.column_names)
    others = [name for name in table.rows.column_names if name not in {LINE, *task.text, *left_out}]
    texts = COLUMNS[task.kind].texts
    columns = {name: texts(table, name) for name in task.text}
    columns |= {name: table.arrow.column(name) for name in others}
    notes = [f"{table.origin}: column {name!r} is not used for predictions" for name in sorted(left_out)]
    return datasets.Dataset(pa.table(columns | {"line": table.arrow.column(LINE)})), notes
