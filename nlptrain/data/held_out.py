"""Training rows that fine-tuning never sees, for what is fitted and decided after it."""

from collections.abc import Mapping, Sequence

from datasets import Dataset

from nlptrain.config.refine import RefineConfig
from nlptrain.data import checks
from nlptrain.data.keys import numbered, row_keys
from nlptrain.data.labels import LabelMap
from nlptrain.data.parts import Part
from nlptrain.data.splits import dealt, stratified
from nlptrain.errors import DataError
from nlptrain.tasks import TaskSpec


def hold_out(
    train: Part, labels: LabelMap | None, refine: RefineConfig | None, *, seed: int
) -> tuple[Part, dict[str, Part]]:
    """Divide training rows by a `refine` section: those that remain, and each of `RefineConfig.parts`.

    Rows of one text stay together, and classes or scores are spread alike.

    Raises:
        DataError: there are too few rows.
    """
    if refine is None or not refine.parts:
        return train, {}
    kept, held = stratified(
        train.keys,
        train.targets or [],
        names=labels.names if labels else None,
        fraction=refine.held_out,
        seed=seed,
        origin=train.origin,
        remedy="give more rows or another refine.held_out",
    )
    return train.only(kept), deal(train.only(held), refine, seed=seed)


def deal(rows: Part, refine: RefineConfig, *, seed: int) -> dict[str, Part]:
    """All of these rows as the parts that a `refine` section needs."""
    parts = dealt(rows.keys, rows.targets or [], names=refine.parts, seed=seed)
    return {name: rows.only(chosen) for name, chosen in parts.items()}


def deal_others(
    rows: Dataset,
    known: Mapping[str, Dataset],
    task: TaskSpec,
    clean: Sequence[str],
    refine: RefineConfig,
    *,
    seed: int,
    origin: str,
) -> dict[str, Dataset]:
    """The rows of another source as the parts that a `refine` section needs.

    Args:
        rows: labelled, as `nlptrain.data.load.Splits.rows` has them.
        known: the same of every split of a run.
        task: names the texts.
        clean: steps that make texts the same, as `nlptrain.data.cleaning.clean` takes them.
        refine: says which parts.
        seed: of the draw.
        origin: what to call the source in messages.

    Raises:
        DataError: texts that also stand in a split, or too few rows.
    """
    keys, *keys_of_known = numbered(*(row_keys(part, task.text, clean)[0] for part in (rows, *known.values())))
    for split, others in zip(known, keys_of_known, strict=True):
        both = checks.shared(keys, others).tolist()
        if both:
            lines = ", ".join(str(rows[row]["line"]) for row in both[:5])
            raise DataError(
                "DATA_LEAKAGE",
                f"{origin}: {len(both)} rows (lines {lines}{', ...' if len(both) > 5 else ''}) also stand in the "
                f"run's {split} rows, and a refinement needs rows used for nothing else; give others",
            )
    parts = dealt(keys, rows["label"][:], names=refine.parts, seed=seed)
    if few := [name for name, chosen in parts.items() if len(chosen) < 2]:
        raise DataError("DATA_SPLIT", f"{origin}: {len(rows)} rows leave fewer than 2 for {', '.join(few)}; give more")
    return {name: rows.select(chosen) for name, chosen in parts.items()}
