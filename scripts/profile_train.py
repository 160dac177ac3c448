"""Where the time of a training step goes, in the recipes of `bench_train.py`.

    NLPTRAIN_DATA=... python scripts/profile_train.py --tasks sst2

Milliseconds a step that operators take themselves, by torch.profiler (which slows them down) over the steps 51 to 150,
seed 0: the stock sampler goes from long texts to short ones in 50 steps. Each recipe is a process of its own.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bench_train import RECIPES, SCORE, built, child

PROFILED = (50, 150)
OPERATORS = 16


def main() -> None:
    """Parse the words; profile every recipe, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(SCORE), default=list(SCORE))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["stock", "ours"])
    parser.add_argument("--fp32", action="store_true", help="no bfloat16, as on hardware that does not multiply in it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--one", nargs=3, metavar=("RECIPE", "TASK", "SEED"), help=argparse.SUPPRESS)
    parser.set_defaults(steps=PROFILED[1], quality=False)
    words = parser.parse_args()
    if words.one:
        recipe, task, _ = words.one
        print(json.dumps(profile(recipe, task, words)))
        return
    found = {task: {recipe: child(recipe, task, 0) for recipe in words.recipes} for task in words.tasks}
    print(json.dumps(found) if words.json else "\n".join(profiles(found)))


def profile(recipe: str, task: str, words: argparse.Namespace) -> dict[str, float]:
    """Train once; the milliseconds a step of each operator itself, the most first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler
    from transformers import TrainerCallback

    first, last = PROFILED
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if words.device == "cuda" else [])
    watch = profiler(activities=activities)

    class Between(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in PROFILED:
                (watch.start if state.global_step == first else watch.stop)()

    with tempfile.TemporaryDirectory() as folder:
        trainer = built(recipe, task, 0, words, Path(folder))
        trainer.add_callback(Between())
        trainer.train()
    took = {
        event.key: (event.self_cpu_time_total + event.self_device_time_total) / 1000 / (last - first)
        for event in watch.key_averages()
    }
    return dict(sorted(took.items(), key=lambda item: -item[1]))


def profiles(found: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Markdown: a table for each task, the operators that take most in any recipe, and all others together."""
    lines = []
    for task, by_recipe in found.items():
        names = sorted({name for took in by_recipe.values() for name in took})
        names.sort(key=lambda name: -max(took.get(name, 0) for took in by_recipe.values()))
        lines += [f"| {task}, ms a step | {' | '.join(by_recipe)} |", "|---" * (len(by_recipe) + 1) + "|"]
        for name in names[:OPERATORS]:
            lines.append(f"| {name} | {' | '.join(f'{took.get(name, 0):.1f}' for took in by_recipe.values())} |")
        rest = [sum(took.get(name, 0) for name in names[OPERATORS:]) for took in by_recipe.values()]
        lines += [f"| {len(names) - OPERATORS} others | {' | '.join(f'{value:.1f}' for value in rest)} |", ""]
    return lines


if __name__ == "__main__":
    main()
