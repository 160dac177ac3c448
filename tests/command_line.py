"""A small labelled task and the command line as tests use them."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

POSITIVE, NEGATIVE = ["good", "fine", "great", "happy"], ["bad", "poor", "awful", "sad"]


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Distinct texts whose label two of their words tell, alternating."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = ("negative", "positive")[number % 2]
        telling = rng.choice(POSITIVE if number % 2 else NEGATIVE, 2)
        words = [*telling, *rng.choice(["film", "story", "dog", "a", "the"], 6)]
        rows.append((" ".join(rng.permutation(words)) + f" {seed} {'x' * (number % 7)} {number}", label))
    return rows


def write_csv(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    """A CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_card(folder: Path) -> Path:
    """A classification experiment on a tiny random model that takes a second."""
    from tests.tiny import tiny_model_dir

    model = tiny_model_dir(folder / "tiny", dropout=0.0)
    write_csv(folder / "train.csv", sentences(120, 0))
    write_csv(folder / "test.csv", sentences(31, 1))
    path = folder / "card.yaml"
    path.write_text(
        "task: {name: words, kind: classification, labels: [negative, positive]}\n"
        f"data: {{train: {folder}/train.csv, test: {folder}/test.csv}}\n"
        f"model: {{name: {model}, dropout: 0.0}}\n"
        f"training: {{output_dir: {folder}/run, num_train_epochs: 3, learning_rate: 0.01, "
        "per_device_train_batch_size: 8}\n",
        encoding="utf-8",
    )
    return path
