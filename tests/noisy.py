"""A small task whose labels are wrong for a fifth of the rows, so that a model cannot be too sure of itself."""

from pathlib import Path
from typing import Any

import numpy as np

from nlptrain.config.load import load
from nlptrain.config.schema import Config
from tests.command_line import sentences, write_csv
from tests.tiny import tiny_model_dir


def noisy(count: int, seed: int) -> list[tuple[str, str]]:
    """As `sentences`, with a fifth of the labels turned round."""
    wrong = np.random.default_rng(seed).random(count) < 0.2
    turned = {"positive": "negative", "negative": "positive"}
    return [
        (text, turned[label] if is_wrong else label)
        for (text, label), is_wrong in zip(sentences(count, seed), wrong, strict=True)
    ]


def pairs(count: int, seed: int) -> list[tuple[str, str, float]]:
    """Two texts and the share of words they have in common, 0 to 5, with noise."""
    rng = np.random.default_rng(seed)
    words = np.array(["good", "bad", "film", "story", "dog", "cat", "man", "woman", "music", "food"])
    rows = []
    for number in range(count):
        a, b = (list(rng.choice(words, 5, replace=False)) for _ in range(2))
        score = float(np.clip(len({*a} & {*b}) + rng.normal() / 3, 0, 5))
        rows.append((f"{' '.join(a)} {seed} {number}", f"{' '.join(b)} {number}", score))
    return rows


def write_card(folder: Path, *, regression: bool = False, rows: int = 240, **model: Any) -> Path:
    """A configuration with its files: 240 training and 101 test rows, a tiny model, one epoch."""
    name = folder / "tiny"
    if not name.is_dir():
        tiny_model_dir(name, dropout=0.0)
    make, header = (pairs, ("left", "right", "label")) if regression else (noisy, ("text", "label"))
    write_csv(folder / "train.csv", make(rows, 0), header)
    write_csv(folder / "test.csv", make(101, 1), header)
    kind = (
        "kind: regression, text: [left, right], range: [0, 5]"
        if regression
        else "kind: classification, labels: [negative, positive]"
    )
    settings = "".join(f", {key}: {value}" for key, value in model.items())
    path = folder / "card.yaml"
    path.write_text(
        f"task: {{name: words, {kind}}}\n"
        f"data: {{train: {folder}/train.csv, test: {folder}/test.csv}}\n"
        f"model: {{name: {name}, dropout: 0.0{settings}}}\n"
        "report: {bootstrap: 0, baselines: []}\n"
        f"training: {{output_dir: {folder}/run, num_train_epochs: 1, learning_rate: 0.01, "
        "per_device_train_batch_size: 8}\n",
        encoding="utf-8",
    )
    return path


def configured(folder: Path, *words: str, **settings: Any) -> Config:
    """`write_card`, loaded with words over it."""
    return load(write_card(folder, **settings), words)
