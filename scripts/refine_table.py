"""Train SST-2 and STS-B with rows held out, refine the heads, and write the table of their scores before and after.

    NLPTRAIN_DATA=data python scripts/refine_table.py --runs runs/refine_table --seeds 1 2 3

The cards' settings, but the weights of the last step and not of the best (a head that is tuned too long is what the
stage is for), and 2 epochs of STS-B. Finished runs are kept and skipped, and so are refinements. The table is a pure
function of what the runs hold: scores of the test split, median and range over the seeds. The guard decides on other
rows, held out from training.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from scipy.special import softmax

from nlptrain.predictions import Predictions
from nlptrain.refine import ece, nll, reliability
from nlptrain.run_folder import RunFolder

CONFIGS = Path(__file__).parents[1] / "configs"
SHOWN = {"sst2": ("accuracy", "nll", "ece"), "stsb_cross": ("pearson", "nmse")}
SHORT = ["report.bootstrap=0", "report.baselines=[]", "training.eval_strategy=no", "training.save_strategy=epoch"]
OWN = {"sst2": [], "stsb_cross": ["training.num_train_epochs=2"]}


def main() -> None:
    """Parse the words, train and refine what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("settings", nargs="*", help="over the configurations', e.g. training.num_train_epochs=1")
    words = parser.parse_args()
    for seed in words.seeds:
        for name in SHOWN:
            refined(name, seed, words.runs / f"{name}-{seed}", words.settings)
    print("\n".join(table(words.runs, words.seeds)))


def refined(name: str, seed: int, run: Path, settings: list[str]) -> None:
    """One run, trained and refined, unless it is."""
    if not (run / "results.json").is_file():
        given = ["refine.when=[]", f"training.seed={seed}", f"training.output_dir={run}", *SHORT, *OWN[name], *settings]
        nlptrain("train", str(CONFIGS / f"{name}.yaml"), *(["--resume"] if run.exists() else []), "refine={}", *given)
    if not (record(run)["refinement"] or {}).get("after"):
        calibrated = ["refine.calibrate=true"] if name == "sst2" else []
        nlptrain("refine", str(run), "refine.when=[after]", *calibrated)


def nlptrain(*words: str) -> None:
    """One command; its lines go to stderr."""
    subprocess.run([sys.executable, "-m", "nlptrain", *words], stdout=sys.stderr, check=True)


def record(run: Path) -> dict[str, Any]:
    """The results of a run."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def table(runs: Path, seeds: list[int]) -> Iterator[str]:
    """Markdown: a row for each task and metric."""
    yield "| run | split | n | metric | before | after | seeds | accepted |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, metrics in SHOWN.items():
        found = [record(runs / f"{name}-{seed}") for seed in seeds]
        scores = [both(runs / f"{name}-{seed}") for seed in seeds]
        accepted = sum(one["refinement"]["after"]["decision"]["accepted"] for one in found)
        for metric in metrics:
            before = summary([one["before"][metric] for one in scores])
            after = summary([one["after"][metric] for one in scores])
            rows = found[0]["rows"]["test"]
            yield f"| {name} | test | {rows} | {metric} | {before} | {after} | {len(found)} | {accepted} |"


def both(run: Path) -> dict[str, dict[str, float]]:
    """The scores of the test split before and after; of a classification with those of its probabilities."""
    results, folder = record(run), RunFolder(run)
    found = {"before": results["refinement"]["fine_tuned"]["test"], "after": results["metrics"]["test"]}
    files = {"before": folder.fine_tuned_predictions("test"), "after": folder.predictions("test")}
    if results["kind"] != "classification":
        return found
    for name, path in files.items():
        rows = Predictions.read(path)
        error = ece(reliability(softmax(rows.outputs, axis=1), rows.labels))
        found[name] = found[name] | {"nll": nll(rows.outputs, rows.labels), "ece": error}
    return found


def summary(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
