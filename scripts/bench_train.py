"""Training throughput and quality of `nlptrain` beside the stock Trainer at its best flags, on the same rows.

    NLPTRAIN_DATA=... python scripts/bench_train.py                        # an epoch, with scores
    NLPTRAIN_DATA=... python scripts/bench_train.py --tasks sst2 --steps 60 --repeats 1
    NLPTRAIN_DATA=... python scripts/bench_train.py --quality              # the time to a score

Each measurement is a process of its own and the recipes alternate, so that what else the machine does meets all alike.
All train the same stock model (all-MiniLM-L6-v2 with a classification layer), 32 texts a step, dropout 0.1, AdamW at
1e-4 with linear warmup and decay. Texts per second are those of the steps after the first ten, evaluation left out.
Batches of similar lengths come in an order that differs between the recipes; only whole epochs compare the same texts.

* padded: the Trainer as tutorials have it: float32, every text padded to 128 tokens
* stock: the Trainer at its best flags on this hardware: padded to the longest of a batch of similar lengths, bfloat16
  autocast where the hardware has it, fused AdamW; on a CPU eager attention (SDPA is slower there with dropout) and no
  pinned memory
* ours: `nlptrain` with its defaults
* floor: the matrix products of a step alone, forward and backward, of the mean number of real tokens

`--quality`: what stock scores on the validation rows after three epochs, in the mean of the seeds, is the goal of ours,
and the recipe is ours to choose: `QUICK`. Both clocks run from the first step on and stand still while a model is
evaluated; ours is evaluated 8 times. The ratio is the time at which ours first has the goal in the mean, to stock's
whole time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

RECIPES = ("padded", "stock", "ours")
WARM = 10
SCORE = {"sst2": "accuracy", "stsb": "pearson"}
EVALUATIONS = 8
STOCK_EPOCHS = 3.0
# what gets to stock's score soonest: sections of a configuration
QUICK: dict[str, dict[str, dict[str, Any]]] = {
    "sst2": {"training": {"num_train_epochs": 1.25, "per_device_train_batch_size": 16}},
    "stsb": {
        "model": {"architecture": "bi_encoder", "output": "cosine"},
        "training": {"num_train_epochs": 1.0, "learning_rate": 3e-5},
    },
}


def main() -> None:
    """Parse the words; measure, or be one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(SCORE), default=list(SCORE))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["stock", "ours"])
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--steps", type=int, help="so many steps instead of epochs, and no score")
    parser.add_argument("--quality", action="store_true", help="the time to what stock scores after three epochs")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16, as on hardware that does not multiply in it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--one", nargs=3, metavar=("RECIPE", "TASK", "SEED"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.quality:
        words.epochs, words.steps = STOCK_EPOCHS, None
        words.recipes = ["stock", "ours"]
    if words.one:
        recipe, task, seed = words.one
        print(json.dumps(one(recipe, task, seed, words)))
        return
    found = {task: compare(task, words) for task in words.tasks}
    print(json.dumps(found) if words.json else "\n".join(table(found)))


def compare(task: str, words: argparse.Namespace) -> dict[str, Any]:
    """Alternating repeats of every recipe on one task."""
    runs: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in words.recipes}
    for seed in range(words.repeats):
        for recipe in words.recipes:
            runs[recipe].append(child(recipe, task, seed))
            print(f"{task} {recipe} {runs[recipe][-1]}", file=sys.stderr)
    rates = {recipe: median(run["texts_per_second"] for run in found) for recipe, found in runs.items()}
    first = words.recipes[0]
    return {
        **({"quality": quality(runs["stock"], runs["ours"])} if words.quality else {}),
        "runs": runs,
        "texts_per_second": rates,
        "ratio": rates["ours"] / rates[first],
        "floor_ms": median(run["floor_ms"] for run in runs["ours"]),
        "step_ms": median(run["step_ms"] for run in runs["ours"]),
    }


def quality(stock: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Stock's end and each evaluation of ours (seconds, score), by seed and in the mean, and the ratio of times."""
    ends = [run["evaluations"][-1] for run in stock]
    curves = [run["evaluations"] for run in ours]
    end, curve = means(ends), [means(at) for at in zip(*curves, strict=True)]
    reached = next((seconds for seconds, score in curve if score >= end[1]), None)
    ratio = reached / end[0] if reached else None
    return {"ratio": ratio, "stock": end, "ours": curve, "seeds": {"stock": ends, "ours": curves}}


def means(points: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Of seconds, and of scores."""
    seconds, scores = zip(*points, strict=True)
    return mean(seconds), mean(scores)


def child(recipe: str, task: str, seed: int) -> dict[str, Any]:
    """One measurement of the script that was started, in a new process, with the same words."""
    command = [sys.executable, *sys.argv, "--one", recipe, task, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.exit(done.stderr)
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))


def one(recipe: str, task: str, seed: str, words: argparse.Namespace) -> dict[str, Any]:
    """Train once; texts per second, milliseconds a step, and the score of whole runs."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = built(recipe, task, int(seed), words, Path(folder))
        times = 0 if words.steps else EVALUATIONS if words.quality and recipe == "ours" else 1
        ends, evaluations = watched(trainer, f"eval_{SCORE[task]}", times)
        steps = len(ends) - 1 - WARM
        seconds = ends[-1] - ends[WARM] - sum(took for _, _, took in evaluations[:-1])
        found: dict[str, Any] = {"texts_per_second": round(trainer.args.train_batch_size * steps / seconds, 1)}
        found |= {"step_ms": round(1000 * seconds / steps, 1), "seconds": round(ends[-1] - ends[0], 1)}
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        if recipe == "ours":
            found["floor_ms"] = round(floor_ms(trainer), 1)
        if evaluations:
            found["score"] = round(evaluations[-1][1], 4)
        if words.quality:
            found["evaluations"] = [(round(at, 1), score) for at, score, _ in evaluations]
        return found


def watched(trainer: Any, score: str = "", times: int = 0) -> tuple[list[float], list[tuple[float, float, float]]]:
    """Train, and say when: all in seconds.

    Args:
        trainer: any `transformers.Trainer`.
        score: what is evaluated.
        times: how often, at equal distances, the last step included.

    Returns:
        When training began and when each step ended; and of each evaluation the time of training before it, the score,
        and how long it took.
    """
    import torch
    from transformers import TrainerCallback

    ends: list[float] = []
    evaluations: list[tuple[float, float, float]] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if torch.cuda.is_available() and state.global_step in (WARM, state.max_steps):
                torch.cuda.synchronize()
            ends.append(time.perf_counter())
            control.should_evaluate = state.global_step in {state.max_steps * n // times for n in range(1, times + 1)}
            return control

        def on_evaluate(self, *_: Any, **found: Any) -> None:
            before = sum(took for _, _, took in evaluations)
            metrics, took = found["metrics"], time.perf_counter() - ends[-1]
            evaluations.append((ends[-1] - ends[0] - before, metrics[score], took))

    trainer.add_callback(Watch())
    trainer.train()
    return ends, evaluations


def settings(seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """What all recipes share."""
    length: dict[str, Any] = {"max_steps": words.steps} if words.steps else {"num_train_epochs": words.epochs}
    length |= {"logging_steps": 50, "eval_strategy": "no", "save_strategy": "no", "report_to": "none"}
    length |= {"disable_tqdm": True, "seed": seed, "per_device_eval_batch_size": 64}
    length |= {"learning_rate": 1e-4, "weight_decay": 0.01, "warmup_steps": 0.06}
    return length


def built(recipe: str, task: str, seed: int, words: argparse.Namespace, folder: Path) -> Any:
    """The trainer of one recipe."""
    return ours(task, seed, words, folder) if recipe == "ours" else stock(task, seed, recipe, words, folder)


def ours(task: str, seed: int, words: argparse.Namespace, folder: Path) -> Any:
    """The trainer of a default run on the stock model, or of `QUICK`."""
    from nlptrain import pipeline
    from nlptrain.run_folder import RunFolder

    run = RunFolder(folder / "run")
    chosen = QUICK[task] if words.quality else {"model": {"architecture": "stock"}}
    common = {**settings(seed, words), "output_dir": str(run.path), "use_cpu": words.device == "cpu"}
    common |= {"bf16": False} if words.fp32 else {}
    config, splits = rows(task, seed, {**chosen, "training": common | chosen.get("training", {})})
    return pipeline.assemble(pipeline.resolve(config, run, resume=False), splits, run).trainer


def rows(task: str, seed: int, sections: dict[str, Any]) -> Any:
    """The configuration and its rows, the same for every recipe."""
    from nlptrain.config.schema import Config
    from nlptrain.data.load import load_splits

    data = {"max_length": 128, "leakage": "drop"}
    config = Config.model_validate({"task": task, "data": data, **sections})
    return config, load_splits(config.spec, config.data, seed=seed)


def stock(task: str, seed: int, recipe: str, words: argparse.Namespace, folder: Path) -> Any:
    """`transformers.Trainer` and its stock parts; nothing of ours but where the weights and rows lie."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        set_seed,
    )

    from nlptrain.models.checkpoint import default_name, locate

    set_seed(seed)
    path = locate(default_name())
    tokenizer = AutoTokenizer.from_pretrained(path)
    encoded = tokens(task, seed, tokenizer, padded=recipe == "padded")
    outputs = 1 if task == "stsb" else 2
    model = AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=outputs, attn_implementation="eager" if words.device == "cpu" else "sdpa", dtype=torch.float32
    )
    return Trainer(
        model,
        stock_arguments(seed, recipe, words, folder),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=pearson if task == "stsb" else accuracy,
    )


def tokens(task: str, seed: int, tokenizer: Any, *, padded: bool) -> Any:
    """Token rows of train and validation."""
    from datasets import DatasetDict

    config, splits = rows(task, seed, {})
    data = DatasetDict({split: splits.rows[split] for split in ("train", "validation")})
    limits = {"truncation": True, "max_length": 128, **({"padding": "max_length"} if padded else {})}
    return data.map(lambda batch: tokenizer(*(batch[name] for name in config.spec.text), **limits), batched=True)


def stock_arguments(seed: int, recipe: str, words: argparse.Namespace, folder: Path) -> Any:
    """TrainingArguments at their best, or as they come."""
    from transformers import TrainingArguments

    from nlptrain.training_arguments import has_bf16

    on_cpu = words.device == "cpu"
    best = {
        "bf16": has_bf16(cpu=on_cpu) and not words.fp32,
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "group_by_length",
        "dataloader_pin_memory": not on_cpu,
    }
    chosen = settings(seed, words) | (best if recipe == "stock" else {})
    return TrainingArguments(output_dir=str(folder), per_device_train_batch_size=32, use_cpu=on_cpu, **chosen)


def pearson(found: Any) -> dict[str, float]:
    """Of scores."""
    import numpy as np

    return {"pearson": float(np.corrcoef(found.predictions.squeeze(-1), found.label_ids)[0, 1])}


def accuracy(found: Any) -> dict[str, float]:
    """Of classes."""
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def floor_ms(trainer: Any) -> float:
    """Milliseconds of the matrix products of one step and nothing else, in the precision of the run."""
    import numpy as np
    import torch

    tokens = round(32 * float(np.mean(trainer.train_dataset["length"][:])))
    config = trainer.model.base_model.config
    dtype = torch.bfloat16 if trainer.args.bf16 else torch.float32
    width, inner, device = config.hidden_size, config.intermediate_size, trainer.model.device
    shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
    operands = [
        [torch.randn(size, device=device).to(dtype) for size in ((tokens, i), (i, o), (tokens, o))] for i, o in shapes
    ]
    took = []
    for _ in range(12):
        started = time.perf_counter()
        for states, weight, gradient in operands * config.num_hidden_layers:
            torch.mm(states, weight), torch.mm(gradient, weight.t()), torch.mm(states.t(), gradient)
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return 1000 * median(took)


def table(found: dict[str, Any]) -> list[str]:
    """Markdown: a line for each task and recipe."""
    names = (
        "task",
        "recipe",
        "texts/s, median",
        "lowest",
        "highest",
        "ratio to the first",
        "peak MiB",
        "score",
        "repeats",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for task, result in found.items():
        first = next(iter(result["runs"]))
        for recipe, runs in result["runs"].items():
            rates = [run["texts_per_second"] for run in runs]
            scores = [run["score"] for run in runs if "score" in run]
            shown = f"{SCORE[task]} {median(scores):.4f}" if scores else ""
            ratio = median(rates) / result["texts_per_second"][first]
            spread = f"{median(rates):.0f} | {min(rates):.0f} | {max(rates):.0f} | {ratio:.2f}"
            peak = median(run["peak_mb"] for run in runs)
            lines.append(f"| {task} | {recipe} | {spread} | {peak:.0f} | {shown} | {len(runs)} |")
        if found_quality := result.get("quality"):
            lines += ["", *qualities(task, found_quality)]
        step, floor = result["step_ms"], result["floor_ms"]
        lines += ["", f"{task}: a step of ours {step:.0f} ms, its matrix products {floor:.0f} ms"]
    return lines


def qualities(task: str, found: dict[str, Any]) -> list[str]:
    """Markdown: the means, and the end of every seed."""
    ends = [(stock[1], curve[-1][1]) for stock, curve in zip(*found["seeds"].values(), strict=True)]
    lines = [f"| {task}, mean of {len(ends)} | seconds | {SCORE[task]} |", "|---|---|---|"]
    for name, (seconds, score) in [("stock, the end", found["stock"]), *(("ours", at) for at in found["ours"])]:
        lines.append(f"| {name} | {seconds:.0f} | {score:.4f} |")
    ratio = f"{found['ratio']:.2f}" if found["ratio"] else "not reached"
    each = "; ".join(f"{stock:.4f} and {ours:.4f}" for stock, ours in ends)
    return [
        *lines,
        "",
        f"{task}: ratio of times to stock's score {ratio}; stock and ours at their ends, by seed: {each}",
    ]


if __name__ == "__main__":
    main()
