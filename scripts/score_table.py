"""Train configurations with several seeds and write the table of their scores that stands in the README.

    python scripts/score_table.py configs/sst2.yaml configs/stsb.yaml --runs runs/table --seeds 1 2 3 --jobs 2

Finished runs are kept and skipped, so it can be stopped and started again. Each job is one `nlptrain train` process;
with several jobs the cores are divided among them. The table is a pure function of the results.json files.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

SHOWN = {
    "classification": ("accuracy", "f1", "f1_macro", "matthews_correlation"),
    "regression": ("pearson", "spearman", "nmse"),
}


def main() -> None:
    """Parse the words, train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    words = parser.parse_args()
    cells = [(config, seed) for config in words.configs for seed in words.seeds]
    with ThreadPoolExecutor(words.jobs) as pool:
        list(pool.map(lambda cell: train(cell[0], cell[1], words.runs, words.jobs), cells))
    print("\n".join(table(words.configs, words.seeds, words.runs)))


def train(config: Path, seed: int, runs: Path, jobs: int) -> None:
    """One run, unless it is finished."""
    run = folder(config, seed, runs)
    if (run / "results.json").is_file():
        return
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    resume = ["--resume"] if (run / "config.yaml").is_file() else []
    command = [sys.executable, "-m", "nlptrain", "train", str(config), *resume]
    run.parent.mkdir(parents=True, exist_ok=True)
    with run.with_suffix(".log").open("a") as log:
        done = subprocess.run(
            [*command, f"training.seed={seed}", f"training.output_dir={run}"],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=log,
            stderr=log,
            check=False,
        )
    print(f"{config.stem} seed {seed}: exit {done.returncode}", file=sys.stderr)


def folder(config: Path, seed: int, runs: Path) -> Path:
    """Where a cell lies."""
    return runs / f"{config.stem}-{seed}"


def table(configs: list[Path], seeds: list[int], runs: Path) -> Iterator[str]:
    """Markdown: a row for each configuration, split and metric; median and range over the seeds."""
    yield "| run | split | n | metric | median | lowest | highest | seeds | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for config in configs:
        found = [json.loads(p.read_text()) for s in seeds if (p := folder(config, s, runs) / "results.json").is_file()]
        for split in found[0]["metrics"] if found else ():
            for metric in SHOWN[found[0]["kind"]]:
                if metric in found[0]["metrics"][split]:
                    yield row(config.stem, split, metric, found)


def row(name: str, split: str, metric: str, found: list[dict[str, Any]]) -> str:
    """One line of the table."""
    values = [result["metrics"][split][metric] for result in found]
    minutes = median(sum(result["seconds"].values()) for result in found) / 60
    numbers = " | ".join(f"{value:.4f}" for value in (median(values), min(values), max(values)))
    return f"| {name} | {split} | {found[0]['rows'][split]} | {metric} | {numbers} | {len(values)} | {minutes:.1f} |"


if __name__ == "__main__":
    main()
