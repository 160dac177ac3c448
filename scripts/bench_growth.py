"""How the time of an epoch and the memory of a run grow with the rows, and what a second process is worth.

    NLPTRAIN_DATA=... python scripts/bench_growth.py                                   # all three parts
    NLPTRAIN_DATA=... python scripts/bench_growth.py --parts memory --rows 2000000     # also at two million rows

Every measurement is a process of its own. The rows are those of SST-2 again and again, each with a number at its end
that makes it another text.

* epoch: seconds of one epoch over 1, 2, 4 and 8 times `--base` rows, the straight line through them by their tokens,
  and the largest departure from it
* memory: peak resident memory, mapped files included, of `nlptrain train` and of `nlptrain predict` from the command
  line with their defaults but for 20 optimizer steps; always a small random model, as the rows are what is looked at
* processes: texts per second of 2 processes of 1 thread beside 1 process of 2 threads, `--texts` a step in both; and
  the sum of two that know nothing of each other, with half a step's texts each: they neither exchange anything nor wait
  for each other, and one is a little faster while the other starts
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from bench_train import WARM, watched

FACTORS = (1, 2, 4, 8)
PARTS = ("epoch", "memory", "processes")
STEPS = 20


def main() -> None:
    """Parse the words; measure, or be one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a small random model instead of all-MiniLM-L6-v2")
    parser.add_argument("--base", type=int, help="rows of the shortest epoch; 256, or 4096 of a small model")
    parser.add_argument("--memory-base", type=int, default=10_000, help="fewest rows of which memory is measured")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="other numbers of rows for the memory")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps to compare processes by")
    parser.add_argument("--texts", type=int, default=32, help="texts of such a step, over all processes; even")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.texts < 2 or words.texts % 2:
        parser.error(f"--texts: expected an even number of at least 2, found {words.texts}")
    if words.one:
        one(*words.one)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = small_model(folder / "small")
        measures = {"epoch": epochs, "memory": memory, "processes": processes}
        found = {part: measures[part](folder, small, words) for part in words.parts}
    print(json.dumps(found) if words.json else "\n".join(tables(found)))


def small_model(folder: Path) -> Path:
    """An encoder of 2 narrow layers with the tokenizer of the default one."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from nlptrain.models.checkpoint import default_name, locate

    path = locate(default_name())
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    AutoModel.from_config(AutoConfig.from_pretrained(path, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int) -> Path:
    """A CSV file of so many different labelled texts."""
    from nlptrain.config.schema import DataConfig
    from nlptrain.data.load import load_splits
    from nlptrain.tasks import TASKS

    rows = load_splits(TASKS["sst2"], DataConfig(leakage="drop"), seed=0).rows["train"]
    pairs = itertools.cycle(zip(rows["sentence"][:], rows["label"][:], strict=True))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "label"])
        writer.writerows((f"{text} {row}", label) for row, (text, label) in enumerate(itertools.islice(pairs, count)))
    return path


def card(folder: Path, rows: Path, model: Path | None, **training: Any) -> Path:
    """A configuration file (JSON is YAML) of a run on these rows, whose folder has the name of the file."""
    path = folder / f"{rows.stem}-{len(list(folder.iterdir()))}.yaml"
    values = {"output_dir": str(path.with_suffix("")), "report_to": "none", **training}
    values |= {} if model else {"learning_rate": 1e-4}
    names = {"name": str(model)} if model else {}
    path.write_text(json.dumps({"task": "sst2", "data": {"train": str(rows)}, "model": names, "training": values}))
    return path


# ---- the time of an epoch ----


def epochs(folder: Path, small: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an epoch by its tokens."""
    base = words.base or (4096 if words.tiny else 256)
    runs = []
    for factor in FACTORS:
        rows = write_rows(folder / f"epoch-{factor}.csv", factor * base)
        config = card(folder, rows, small if words.tiny else None, num_train_epochs=1, **QUIET)
        runs.append({"rows": factor * base, **trained([sys.executable], config, threads=1)})
        print(f"epoch {runs[-1]}", file=sys.stderr)
    tokens, seconds = (np.array([run[name] for run in runs], float) for name in ("tokens", "seconds"))
    slope, start = np.polyfit(tokens, seconds, 1, w=1 / seconds)
    departures = seconds / (start + slope * tokens) - 1
    return {
        "runs": runs,
        "seconds_per_million_tokens": slope * 1e6,
        "seconds_at_start": start,
        "largest_departure": float(np.abs(departures).max()),
    }


QUIET = {"eval_strategy": "no", "save_strategy": "no"}


def trained(command: list[str], config: Path, *, threads: int) -> dict[str, Any]:
    """What `one` says of a run in new processes."""
    words = [*command, __file__, "--one", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))


def one(config: str) -> None:
    """Train as the configuration says and print seconds, tokens and texts per second."""
    from nlptrain import pipeline
    from nlptrain import processes as group
    from nlptrain.config.load import load
    from nlptrain.data.load import load_splits
    from nlptrain.run_folder import RunFolder

    checked, count = load(Path(config)), group.start()
    run = RunFolder(Path(checked.training["output_dir"]))
    checked = pipeline.resolve(checked, run, resume=False)
    splits = load_splits(checked.spec, checked.data, seed=checked.training["seed"])
    work = pipeline.assemble(checked, splits, run)
    ends, _ = watched(work.trainer)
    warm = min(WARM, len(ends) // 2)
    rate = checked.training["per_device_train_batch_size"] * count * (len(ends) - 1 - warm) / (ends[-1] - ends[warm])
    tokens = sum(work.encoded["train"]["length"][:])
    if group.is_main():
        print(json.dumps({"seconds": ends[-1] - ends[0], "tokens": tokens, "texts_per_second": round(rate, 1)}))
    group.finish()


# ---- the memory of a run ----


def memory(folder: Path, small: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of training and prediction by the rows of the file."""
    runs = []
    for count in sorted({factor * words.memory_base for factor in FACTORS} | set(words.rows)):
        rows = write_rows(folder / "memory.csv", count)
        config = card(folder, rows, small, max_steps=STEPS)
        run = str(config.with_suffix(""))
        output = ["--output", str(folder / "predictions.csv")]
        found = {"train": peak(["train", str(config)]), "predict": peak(["predict", run, "--data", str(rows), *output])}
        runs.append({"rows": count, **{f"{name}_mb": megabytes for name, megabytes in found.items()}})
        print(f"memory {runs[-1]}", file=sys.stderr)
    first, last = runs[0], runs[-1]
    more = {name: (last[name] - first[name]) / (last["rows"] - first["rows"]) for name in ("train_mb", "predict_mb")}
    return {"runs": runs, "mb_per_million_rows": {name: 1e6 * value for name, value in more.items()}}


def peak(words: list[str]) -> int:
    """Largest resident memory of one `nlptrain` command, in MB of 10^6 bytes."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, "-m", "nlptrain", *words], stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            sys.exit(said.read().decode())
    unit = 1 if sys.platform == "darwin" else 1024
    return round(used.ru_maxrss * unit / 1e6)


# ---- processes ----


def processes(folder: Path, small: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Texts per second of three ways to use two cores."""
    rows, half = write_rows(folder / "processes.csv", words.texts * words.steps), words.texts // 2
    alone = [sys.executable]
    launcher = [*alone, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ways = {
        "1 x 2": (1, alone, 2, words.texts),
        "2 x 1": (1, launcher, 1, half),
        "2 x 1 apart": (2, alone, 1, half),
    }
    found = {}
    for name, (count, command, threads, size) in ways.items():
        settings = {"max_steps": words.steps, "per_device_train_batch_size": size, **QUIET}
        configs = [card(folder, rows, small if words.tiny else None, **settings) for _ in range(count)]
        with ThreadPoolExecutor(count) as at_once:
            runs = at_once.map(partial(trained, command, threads=threads), configs)
            found[name] = round(sum(run["texts_per_second"] for run in runs), 1)
        print(f"processes {name} {found[name]}", file=sys.stderr)
    return {"texts_per_second": found, "ratio": {name: rate / found["1 x 2"] for name, rate in found.items()}}


def tables(found: dict[str, Any]) -> list[str]:
    """Markdown."""
    lines = []
    if epoch := found.get("epoch"):
        rows = [(run["rows"], run["tokens"], f"{run['seconds']:.1f}") for run in epoch["runs"]]
        lines += table(("rows", "tokens", "seconds of an epoch"), rows)
        line = f"{epoch['seconds_per_million_tokens']:.1f} s a million tokens"
        lines += [f"{line}; largest departure from a straight line {epoch['largest_departure']:.1%}", ""]
    if used := found.get("memory"):
        rows = [(run["rows"], run["train_mb"], run["predict_mb"]) for run in used["runs"]]
        lines += table(("rows", "train, peak MB", "predict, peak MB"), rows)
        more = used["mb_per_million_rows"]
        lines += [f"{more['train_mb']:.0f} MB and {more['predict_mb']:.0f} MB more for a million rows more", ""]
    if both := found.get("processes"):
        rows = [(name, rate, f"{both['ratio'][name]:.2f}") for name, rate in both["texts_per_second"].items()]
        lines += table(("processes x threads", "texts/s", "ratio to the first"), rows)
    return lines


def table(names: tuple[str, ...], rows: Any) -> list[str]:
    """One table."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in (names, ["---"] * len(names), *rows)]


if __name__ == "__main__":
    main()
