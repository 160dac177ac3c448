"""Scores of a finished run on a labelled file."""

from typing import Any

from nlptrain.data.load import load_rows
from nlptrain.fast import int8
from nlptrain.inference import OpenRun
from nlptrain.scoring import score_split


def evaluate(opened: OpenRun, source: str) -> dict[str, Any]:
    """Every metric of the task on the rows of `source`.

    Returns:
        JSON-ready: ``metrics`` (None where undefined), ``undefined`` (name to reason), ``intervals``, ``per_class``,
        ``collapsed`` (see `nlptrain.scoring`), ``rows``, ``notes``, ``backend``, and of any but torch ``cost``: how far
        its answers are from torch's, see `nlptrain.fast.int8.cost`.

    Raises:
        DataError: unreadable rows, or labels the model does not know.
    """
    rows, notes = load_rows(opened.task, source, opened.config.data, opened.labels)
    encoded = opened.encode(rows)
    found = opened.predictions(rows, encoded)
    names = opened.labels.names if opened.labels else None
    scores = score_split(opened.task, found, names, resamples=opened.config.report.bootstrap)
    exact = None if opened.backend == "torch" else opened.exact_logits(encoded)
    return {
        "task": opened.task.name,
        "backend": opened.backend,
        "source": source,
        "rows": len(rows),
        "metrics": scores.values,
        "undefined": scores.undefined,
        "intervals": scores.intervals,
        "per_class": scores.per_class,
        "collapsed": scores.collapsed,
        "notes": notes,
    } | ({} if exact is None else {"cost": int8.cost(opened.task.kind, found.outputs, exact)})
