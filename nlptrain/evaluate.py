"""Scores of a finished run on a labelled file."""

from typing import Any

from nlptrain.data.load import load_rows
from nlptrain.inference import OpenRun
from nlptrain.scoring import score_split


def evaluate(opened: OpenRun, source: str) -> dict[str, Any]:
    """Every metric of the task on the rows of `source`.

    Returns:
        JSON-ready: ``metrics`` (None where undefined), ``undefined`` (name to reason), ``intervals``, ``per_class``,
        ``collapsed`` (see `nlptrain.scoring`), ``rows``, ``notes``.

    Raises:
        DataError: unreadable rows, or labels the model does not know.
    """
    rows, notes = load_rows(opened.task, source, opened.config.data, opened.labels)
    found = opened.predictions(rows, opened.encode(rows))
    names = opened.labels.names if opened.labels else None
    scores = score_split(opened.task, found, names, resamples=opened.config.report.bootstrap)
    return {
        "task": opened.task.name,
        "source": source,
        "rows": len(rows),
        "metrics": scores.values,
        "undefined": scores.undefined,
        "intervals": scores.intervals,
        "per_class": scores.per_class,
        "collapsed": scores.collapsed,
        "notes": notes,
    }
