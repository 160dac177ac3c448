"""Throughput of `nlptrain predict` beside `transformers.pipeline`, of the same model on the same texts.

    NLPTRAIN_DATA=... python scripts/bench_predict.py --repeats 3
    NLPTRAIN_DATA=... python scripts/bench_predict.py --run runs/sst2 --rows 300 --json

Each measurement is a process of its own and the recipes alternate, so that what else the machine does meets all alike.
Loading is left out, and a few texts are predicted before the clock starts; all look for garbage as seldom as the
command does. Without --run the model is the published all-MiniLM-L6-v2 with a classification layer that nobody has
trained, and room for 256 tokens.

* pipeline: the library's, over a data set with batch_size=32 as its documentation has it, in float32
* pipeline_bf16: the same with weights in bfloat16; only where the hardware multiplies in it, unless it is asked for
* ours: `nlptrain predict`, from a file to a file
* int8: the same with `--backend onnx_int8`; left out, with the reason, where the extra `onnx` is not installed

The texts are `sst2`, SST-2's test split, and `long`, rows of its training split joined to 128 to 256 tokens.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

RECIPES = ("pipeline", "pipeline_bf16", "ours", "int8")
TEXTS = ("sst2", "long")
BATCH = 32
WARM = 16
LONG_ROWS = 400
# words and signs, of which 100 are some 128 tokens
LONG_WORDS = (100, 180)


def main() -> None:
    """Parse the words; measure, or be one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, help="the first is what others are compared with")
    parser.add_argument("--run", type=Path, help="a run folder of a classification of single texts")
    parser.add_argument("--rows", type=int, help="only so many texts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--one", nargs=3, metavar=("RECIPE", "RUN", "FILE"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        recipe, run, file = words.one
        print(json.dumps(one(recipe, Path(run), Path(file))))
        return
    words.recipes = words.recipes or usual_recipes()
    with tempfile.TemporaryDirectory() as folder:
        run = words.run or fresh(Path(folder) / "run")
        found = {name: compare(name, run, written(name, run, Path(folder), words.rows), words) for name in words.texts}
    print(json.dumps(found) if words.json else "\n".join(table(found)))


def usual_recipes() -> list[str]:
    """All that this hardware and this installation have."""
    from nlptrain.training_arguments import has_bf16

    missing = {} if has_bf16(cpu=True) else {"pipeline_bf16": "this hardware does not multiply in bfloat16"}
    if reason := without_int8():
        missing["int8"] = reason
    for recipe, why in missing.items():
        print(f"left out: {recipe}: {why}", file=sys.stderr)
    return [name for name in RECIPES if name not in missing]


def without_int8() -> str:
    """Why the 8-bit path cannot be measured; nothing where it can."""
    from nlptrain.errors import ConfigError
    from nlptrain.fast import int8

    try:
        int8.check("classification")
    except ConfigError as error:
        return str(error)
    return ""


def compare(name: str, run: Path, file: Path, words: argparse.Namespace) -> dict[str, Any]:
    """Alternating repeats of every recipe on the texts of one file."""
    runs: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in words.recipes}
    answers: dict[str, NDArray[np.float64]] = {}
    for _ in range(words.repeats):
        for recipe in words.recipes:
            done = child(recipe, run, file)
            answers[recipe] = np.array(done.pop("probabilities"))
            runs[recipe].append(done)
            print(f"{name} {recipe} {done}", file=sys.stderr)
    rates = {recipe: median(done["texts_per_second"] for done in found) for recipe, found in runs.items()}
    first = words.recipes[0]
    return {
        "runs": runs,
        "rows": len(answers[first]),
        "texts_per_second": rates,
        "ratio": rates["ours"] / rates[first] if "ours" in rates else None,
        "difference": {recipe: float(np.abs(found - answers[first]).max()) for recipe, found in answers.items()},
        "changed": {r: float((found.argmax(1) != answers[first].argmax(1)).mean()) for r, found in answers.items()},
    }


def child(recipe: str, run: Path, file: Path) -> dict[str, Any]:
    """One measurement in a new process."""
    command = [sys.executable, __file__, "--one", recipe, str(run), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.exit(done.stderr)
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))


def one(recipe: str, run: Path, file: Path) -> dict[str, Any]:
    """Predict a file once; texts per second, peak memory of the process in MB, and the probabilities."""
    from nlptrain.inference import open_run
    from nlptrain.run_folder import RunFolder

    gc.set_threshold(50_000)
    opened = open_run(RunFolder(run), "onnx_int8" if recipe == "int8" else "torch")
    few = file.with_name("few.jsonl")
    few.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:WARM]), "utf-8")
    work = (ours if recipe in ("ours", "int8") else served)(opened, run, recipe)
    work(few)
    started = time.perf_counter()
    found = work(file)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    probabilities = [[round(row[name], 7) for name in opened.names] for row in found()]
    return {"texts_per_second": round(len(probabilities) / seconds, 1), "peak_mb": peak, "probabilities": probabilities}


Answers = Callable[[], list[dict[str, float]]]


def ours(opened: Any, *_: Any) -> Callable[[Path], Answers]:
    """`nlptrain predict` by the backend of the opened run."""
    from nlptrain.predict import predict

    def work(file: Path) -> Answers:
        output = file.with_name("out.jsonl")
        predict(opened, str(file), output)
        return lambda: [
            {name: row[f"probability_{name}"] for name in opened.names}
            for row in map(json.loads, output.read_text("utf-8").splitlines())
        ]

    return work


def served(opened: Any, run: Path, recipe: str) -> Callable[[Path], Answers]:
    """`transformers.pipeline`, given texts that are cleaned already."""
    import torch
    from datasets import Dataset
    from transformers import pipeline
    from transformers.pipelines.pt_utils import KeyDataset

    from nlptrain.data.cleaning import clean
    from nlptrain.run_folder import RunFolder

    dtype = torch.bfloat16 if recipe == "pipeline_bf16" else torch.float32
    serve: Any = pipeline("text-classification", model=str(RunFolder(run).model), device="cpu", dtype=dtype)
    (column,), steps, limit = opened.task.text, opened.config.data.clean, opened.max_length

    def work(file: Path) -> Answers:
        texts = [clean(json.loads(line)[column], steps) for line in file.read_text("utf-8").splitlines()]
        rows = KeyDataset(Dataset.from_dict({"text": texts}), "text")
        answers = list(serve(rows, batch_size=BATCH, top_k=None, truncation=True, max_length=limit))
        return lambda: [{one["label"]: one["score"] for one in row} for row in answers]

    return work


def fresh(path: Path) -> Path:
    """A run folder of the published encoder with a classification layer of random weights."""
    from transformers import set_seed

    from nlptrain import training_arguments
    from nlptrain.config import load as config_file
    from nlptrain.config.schema import Config
    from nlptrain.models.build import build
    from nlptrain.models.checkpoint import default_name
    from nlptrain.run_folder import RunFolder

    run = RunFolder(path)
    run.create()
    settings = {"task": "sst2", "data": {"max_length": 256}, "model": {"architecture": "stock"}}
    config = Config.model_validate(settings)
    config = config.model_copy(update={"training": training_arguments.resolve(config.training, path)})
    set_seed(0)
    model, tokenizer = build(default_name(), config.model, config.spec, config.spec.labels, None)
    model.save_pretrained(run.model)
    tokenizer.save_pretrained(run.model)
    run.write_config(config_file.dump(config))
    return path


def written(name: str, run: Path, folder: Path, count: int | None) -> Path:
    """A file of the texts, in the columns of the run's task."""
    from nlptrain.config import load as config_file
    from nlptrain.run_folder import RunFolder

    task = config_file.load(RunFolder(run).config).spec
    if task.kind != "classification" or len(task.text) != 1:
        sys.exit(f"--run: expected a classification of single texts, found {task.kind} of {', '.join(task.text)}")
    texts = (sst2("test") if name == "sst2" else joined(sst2("train"))[:LONG_ROWS])[:count]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({task.text[0]: text}) + "\n" for text in texts), "utf-8")
    return path


def sst2(split: str) -> list[str]:
    """The texts of a split of SST-2."""
    from nlptrain.config.schema import Config
    from nlptrain.data.load import load_splits

    config = Config.model_validate({"task": "sst2", "data": {"leakage": "allow"}})
    texts: list[str] = load_splits(config.spec, config.data, seed=0).rows[split]["sentence"][:]
    return texts


def joined(texts: list[str]) -> list[str]:
    """Neighbouring texts made one, of at least as many words and signs as are drawn."""
    rng, made, parts = np.random.default_rng(0), [], []
    wanted = rng.integers(*LONG_WORDS)
    for text in texts:
        parts += text.split()
        if len(parts) >= wanted:
            made.append(" ".join(parts))
            parts, wanted = [], rng.integers(*LONG_WORDS)
    return made


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: a line for each set of texts and recipe."""
    names = ["texts", "n", "recipe", "texts/s, median", "lowest", "highest", "ratio to the first"]
    names += ["largest difference of a probability", "other label", "peak MiB", "repeats"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, result in found.items():
        first = next(iter(result["runs"]))
        for recipe, runs in result["runs"].items():
            rates = [run["texts_per_second"] for run in runs]
            ratio = median(rates) / result["texts_per_second"][first]
            spread = f"{median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} | {ratio:.2f}"
            same = f"{result['difference'][recipe]:.1e} | {result['changed'][recipe]:.2%}"
            peak = median(run["peak_mb"] for run in runs)
            lines.append(f"| {name} | {result['rows']} | {recipe} | {spread} | {same} | {peak:.0f} | {len(runs)} |")
    return lines


if __name__ == "__main__":
    main()
