"""A small tagging task that a tiny model can learn: a gazetteer, with words that break into several tokens."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TAGS = ("O", "B-PER", "B-THING", "I-PER")
GAZETTEER = {"man": "B-PER", "woman": "B-PER", "mans": "B-PER", "happy": "I-PER", "films": "B-THING", "book": "B-THING"}
OTHERS = ["the", "a", "is", "was", "it", "dogs", "cats", "runs", "eats", "and", "very", "new", "xyz"]
Row = tuple[list[str], list[str]]


def tagged(count: int, seed: int) -> list[Row]:
    """Distinct rows of 4 to 12 words; "happy" stands inside an entity behind a person, and alone begins none."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words: list[str] = []
        for word in rng.choice([*GAZETTEER, *OTHERS], rng.integers(4, 11)).tolist():
            words += ["woman", "happy"] if word == "happy" else [word]
        words = [*words, f"{seed}x{number}"]
        rows.append((words, [GAZETTEER.get(word, "O") for word in words]))
    return rows


def write_jsonl(path: Path, rows: Sequence[Row]) -> Path:
    """One object with two lists a line."""
    path.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in rows))
    return path
