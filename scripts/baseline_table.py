"""What needs no fine-tuning, on the same rows, as a table: see `nlptrain.baselines`.

python scripts/baseline_table.py configs/sst2.yaml configs/stsb.yaml
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from nlptrain import baselines
from nlptrain.config.load import load
from nlptrain.data.load import load_splits
from nlptrain.score_lines import shown

SHOWN = ("accuracy", "f1", "matthews_correlation", "pearson", "spearman", "nmse")


def main() -> None:
    """Parse the words, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    print("| run | baseline | split | n | metric | value |\n|---|---|---|---|---|---|")
    for path in parser.parse_args().configs:
        print("\n".join(rows(path)))


def rows(path: Path) -> Iterator[str]:
    """Lines of the table for one configuration."""
    config = load(path, ["report.baselines=[constant, tfidf, frozen]"])
    splits = load_splits(config.spec, config.data, seed=int(config.training.get("seed", 42)))
    for name, found in baselines.scores(config, splits).items():
        for split, values in found.items():
            for metric in (m for m in SHOWN if m in values):
                n = len(splits.rows[split])
                yield f"| {path.stem} | {name} | {split} | {n} | {metric} | {shown(values[metric])} |"


if __name__ == "__main__":
    main()
