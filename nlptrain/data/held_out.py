"""Training rows that fine-tuning never sees, for what is fitted and decided after it."""

from nlptrain.config.refine import RefineConfig
from nlptrain.data.labels import LabelMap
from nlptrain.data.parts import Part
from nlptrain.data.splits import dealt, stratified


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
