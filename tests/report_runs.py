"""Run folders as a training leaves them, made of given answers without training anything."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from nlptrain.config import load as config_file
from nlptrain.predictions import Predictions, digest, objects
from nlptrain.results import RunResult
from nlptrain.scoring import score_split

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd|' /C calc'!A0",
    "safe \u202egnp.exe\u202c end",
    "</title></style></svg><b>&amp; `code` [a](http://evil.example/x) | cell\nsecond line",
    "\u0001\u001b[31m\u2066\u200f bell \u0007",
]
CLASSES = ["negative", "positive"]


def write_run(
    folder: Path,
    texts: list[str],
    labels: list[Any],
    outputs: list[Any],
    *,
    names: list[str] | None = None,
    **more: Any,
) -> Path:
    """A finished run on a test file of these rows.

    Args:
        folder: to be made; its data lie beside it.
        texts: of the rows.
        labels: class ids, scores or lists of tags.
        outputs: logits of each row, [score], or lists of tags.
        names: of the classes; None: scores, or tags.
        more: fields of the record that differ.
    """
    by_tag = isinstance(labels[0], list)
    kind = "token_classification" if by_tag else "classification" if names else "regression"
    folder.mkdir(parents=True)
    source = folder.parent / f"{folder.name}.{'jsonl' if by_tag else 'csv'}"
    shown = [names[label] for label in labels] if names else labels
    _write_source(source, texts, shown, by_tag=by_tag)
    task: dict[str, Any] = {"name": "words", "kind": kind, "text": ["text"], "label": "label"}
    config = config_file.check(
        {
            "task": task,
            "data": {"train": str(source), "test": str(source)},
            "model": {"name": "tiny"},
            "training": {"output_dir": str(folder), "seed": 3, "learning_rate": 1e-4, "max_grad_norm": 1.0},
        }
    )
    (folder / "config.yaml").write_text(config_file.dump(config), encoding="utf-8")
    found = Predictions(
        np.arange(len(texts)) + 2,
        tuple(digest([text]) for text in texts),
        objects(labels) if by_tag else np.asarray(labels),
        objects(outputs) if by_tag else np.asarray(outputs, float),
    )
    found.write(folder / "predictions" / "test.jsonl")
    scores = score_split(config.spec, found, names, resamples=0)
    record = _record(kind, str(source), len(texts), names, scores, config.spec.primary)
    RunResult(**(record | more)).write(folder / "results.json")
    (folder / "history.jsonl").write_text("".join(map(_entry, range(1, 13))), encoding="utf-8")
    (folder / "model").mkdir()
    return folder


def classification(folder: Path, count: int = 40, *, texts: list[str] | None = None, **more: Any) -> Path:
    """A classification of two classes that is wrong on every fifth row, ever more confident."""
    rows = [(texts or HOSTILE)[n % len(texts or HOSTILE)] + f" {n}" for n in range(count)]
    labels = [n % 2 for n in range(count)]
    sides = [label if n % 5 else 1 - label for n, label in enumerate(labels)]
    logits = [[0.0, 1 + n / count] if side else [1 + n / count, 0.0] for n, side in enumerate(sides)]
    return write_run(folder, rows, labels, logits, **{"names": CLASSES, **more})


def regression(folder: Path, count: int = 40, **more: Any) -> Path:
    """Scores that are off by a known amount."""
    rng = np.random.default_rng(5)
    labels = rng.uniform(0, 5, count).round(2)
    outputs = [[float(value)] for value in labels + rng.normal(size=count).round(3)]
    return write_run(folder, [f"row {n} {'word ' * (n % 9)}" for n in range(count)], labels.tolist(), outputs, **more)


def tagged(folder: Path) -> Path:
    """Tags of three rows, one of them wrong."""
    labels = [["B-x", "I-x", "O"], ["O", "B-y"], ["O", "O"]]
    outputs = [["B-x", "O", "O"], ["O", "B-y"], ["O", "O"]]
    return write_run(folder, ["a b c", "d e", "f g"], labels, outputs)


def _write_source(path: Path, texts: list[str], labels: list[Any], *, by_tag: bool) -> None:
    if by_tag:
        rows = zip(texts, labels, strict=True)
        path.write_text("".join(json.dumps({"text": t.split(), "label": tags}) + "\n" for t, tags in rows), "utf-8")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])


def _record(kind: str, source: str, rows: int, names: list[str] | None, scores: Any, primary: str) -> dict[str, Any]:
    split: dict[str, Any] = {"source": source, "rows": rows, "duplicates": 1, "conflicting": 0, "empty": 0}
    split |= {"sha256": "ab" * 32, "characters": {"median": 9.0, "max": 40}}
    split |= {"labels": dict.fromkeys(names, 7)} if names else {}
    value = scores.values[primary]
    ends = {"low": value and value - 0.05, "high": value and value + 0.04, "method": value and "bca", "reason": ""}
    return {
        "task": "words",
        "kind": kind,
        "metrics": {"test": scores.values},
        "undefined": {"test": scores.undefined} if scores.undefined else {},
        "rows": {"train": 2 * rows, "test": rows},
        "intervals": {"test": {primary: ends}},
        "per_class": {"test": scores.per_class},
        "collapsed": {"test": scores.collapsed} if scores.collapsed else {},
        "baselines": {"constant": {"test": {primary: 0.25}}, "tfidf": {"test": {primary: 0.5}}},
        "data": {
            "train": split,
            "test": split,
            "leakage": {"train/test": 2},
            "dropped": {"train": {"leakage": 2}},
            "tokens": {"train": {"tokens": 20 * rows, "median_length": 9, "max_length": 30, "truncated_share": 0.125}},
        },
        "model": {"name": "tiny", "parameters": 1234, "labels": names},
        "training": {"steps": 12, "epochs": 3.0, "texts_per_second": 50.0, "padding_share": 0.25},
        "environment": {
            "python": "3.11",
            "processes": 1,
            "packages": {"torch": "2.13"},
            "commit": "c0ffee" * 6 + "1234",
        },
        "seed": 3,
        "seconds": {"train": 8.0, "evaluate": 2.0},
        "notes": ["The rows are made up"],
        "best_step": 8,
    }


def _entry(step: int) -> str:
    entry = {
        "loss": 2.0 / step,
        "grad_norm": 0.25 * step,
        "learning_rate": 1e-4 / step,
        "epoch": step / 4,
        "step": step,
    }
    lines = [entry, *([{"eval_loss": 3.0 / step, "eval_accuracy": step / 20, "step": step}] if step % 4 == 0 else [])]
    return "".join(json.dumps(line) + "\n" for line in lines)
