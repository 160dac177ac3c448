"""Flip a share of SST-2's training labels, train on them, and count how many `nlptrain suspects` ranks first.

    NLPTRAIN_DATA=data python scripts/label_errors.py --runs runs/label_errors --seed 1

The flipped file lies in a folder of its own under --runs, with the other splits as they are. A finished run is kept.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "sst2.yaml"


def main() -> None:
    """Parse the words, train, rank, print the share that was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the flipped data and of the run")
    parser.add_argument("--seed", type=int, default=1, help="of the flips and of the training")
    parser.add_argument("--flipped", type=float, default=0.05, help="share of the labels to flip")
    parser.add_argument("--read", type=float, default=0.1, help="share of the ranking that is read")
    parser.add_argument("settings", nargs="*", help="over the configuration's, e.g. training.num_train_epochs=1")
    words = parser.parse_args()
    data, run = (words.runs / f"{name}-{words.seed}" for name in ("data", "run"))
    ranking = words.runs / f"ranking-{words.seed}.jsonl"
    lines = flip(Path(os.environ["NLPTRAIN_DATA"]) / "sst2", data / "sst2", words.flipped, words.seed)
    if not (run / "results.json").is_file():
        given = [f"training.seed={words.seed}", f"training.output_dir={run}", *words.settings]
        nlptrain(data, "train", str(CONFIG), *given)
    nlptrain(data, "suspects", str(run), "--output", str(ranking), "--share", "1")
    ranked = [json.loads(line)["line"] in lines for line in ranking.read_text(encoding="utf-8").splitlines()]
    read = round(words.read * len(ranked))
    found, flipped = sum(ranked[:read]), sum(ranked)
    print(f"seed {words.seed}: {found} of {flipped} flipped labels ({found / flipped:.1%}) are in the first {read} of")
    print(f"{len(ranked)} training rows ({words.read:.0%})")


def flip(source: Path, target: Path, share: float, seed: int) -> set[int]:
    """Copy the splits with a share of the training labels flipped; the lines, counted from the header as 1."""
    target.mkdir(parents=True, exist_ok=True)
    for split in ("validation", "test"):
        shutil.copyfile(source / f"{split}.tsv", target / f"{split}.tsv")
    header, *rows = (source / "train.tsv").read_text(encoding="utf-8").splitlines()
    chosen = set(random.Random(seed).sample(range(len(rows)), round(share * len(rows))))
    for number in chosen:
        text, label = rows[number].rsplit("\t", 1)
        rows[number] = f"{text}\t{1 - int(label)}"
    (target / "train.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return {number + 2 for number in chosen}


def nlptrain(data: Path, *words: str) -> None:
    """One command on the flipped data."""
    command = [sys.executable, "-m", "nlptrain", *words]
    subprocess.run(command, env={**os.environ, "NLPTRAIN_DATA": str(data.resolve())}, check=True)


if __name__ == "__main__":
    main()
