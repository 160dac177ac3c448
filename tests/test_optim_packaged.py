"""Schedule-free and Prodigy against the formulas of their papers, under a stock Trainer, and in a run."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from prodigyopt import Prodigy
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from nlptrain.errors import ConfigError
from nlptrain.optim import optimizer, parameter_groups
from nlptrain.optim.schedule_free import AdamWScheduleFree, RAdamScheduleFree
from tests.command_line import Done
from tests.tiny import built, tiny_model_dir

LR, WD, EPS, STEPS = 0.1, 0.3, 1e-8, 12
BETA1, BETA2 = 0.9, 0.999
SCHEDULE_FREE = ["schedule_free_adamw", "schedule_free_radam"]
PACKAGED = [*SCHEDULE_FREE, "prodigy"]
CURVATURE = torch.diag(torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64))
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def gradient(at: Tensor) -> Tensor:
    """Of the quadratic ``at @ CURVATURE @ at / 2``."""
    return CURVATURE @ at


def path(used: torch.optim.Optimizer, weight: nn.Parameter, steps: int = STEPS) -> Iterator[Tensor]:
    """The weight after each step on the quadratic."""
    for _ in range(steps):
        if hasattr(used, "train"):
            used.train()
        weight.grad = gradient(weight.detach())
        used.step()
        yield weight.detach().clone()


def named(name: str, lr: float, decay: float = WD, **settings: Any) -> tuple[torch.optim.Optimizer, nn.Parameter]:
    weight = nn.Parameter(START.clone())
    return optimizer(name, [{"params": [weight], "lr": lr, "weight_decay": decay}], **settings), weight


def rectification(step: int) -> float | None:
    """Liu et al. 2020 (arXiv 1908.03265), Algorithm 2; None while the variance is intractable."""
    longest = 2 / (1 - BETA2) - 1
    length = longest - 2 * step * BETA2**step / (1 - BETA2**step)
    if length <= 4:
        return None
    return math.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length))


def averages(name: str, steps: int, rate: Callable[[int], float] = lambda step: LR) -> Iterator[Tensor]:
    """x of Defazio et al. 2024 (arXiv 2405.15682), Algorithm 1, with the three points written out."""
    x, z, v, total = START.clone(), START.clone(), torch.zeros_like(START), 0.0
    for step in range(1, steps + 1):
        factor = rectification(step) if name == "schedule_free_radam" else 1.0
        lr = rate(step) * (factor or 0.0)
        y = (1 - BETA1) * z + BETA1 * x
        g = gradient(y)
        v = BETA2 * v + (1 - BETA2) * g * g
        z = z - lr * (g / ((v / (1 - BETA2**step)).sqrt() + EPS) + WD * y)
        total += lr**2
        share = lr**2 / total if total else 0.0
        x = (1 - share) * x + share * z
        yield x


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_weights_after_a_step_are_the_average_of_the_paper(name: str) -> None:
    for found, expected in zip(path(*named(name, LR)), averages(name, STEPS), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_the_gradient_is_due_at_y_and_everything_else_sees_x(name: str) -> None:
    used, weight = named(name, LR)
    *_, x = path(used, weight)
    z = used.state[weight]["z"]
    used.train()
    torch.testing.assert_close(weight.detach(), (1 - BETA1) * z + BETA1 * x, rtol=0, atol=1e-12)
    assert not torch.allclose(weight, x, atol=1e-4)
    used.eval()
    torch.testing.assert_close(weight.detach(), x, rtol=0, atol=1e-12)


def test_a_warm_up_by_the_scheduler_is_the_librarys_own() -> None:
    used, weight = named("schedule_free_adamw", LR)
    warm = LambdaLR(used, lambda step: min(1.0, (step + 1) / 5))
    other = nn.Parameter(START.clone())
    theirs = AdamWScheduleFree([other], lr=LR, weight_decay=WD, warmup_steps=5)
    for found, expected in zip(path(used, weight), path(theirs, other), strict=True):
        warm.step()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected = list(averages("schedule_free_adamw", STEPS, lambda step: LR * min(1.0, step / 5)))
    torch.testing.assert_close(found, expected[-1], rtol=0, atol=1e-12)


def test_prodigy_is_the_algorithm_of_the_paper() -> None:
    """Mishchenko & Defazio 2024 (arXiv 2306.06101), Algorithm 4 with rate 1 and the decay of AdamW."""
    beta3, d, r = math.sqrt(BETA2), 0.1, 0.0
    x, s, m, v = START.clone(), *(torch.zeros_like(START) for _ in range(3))
    rates = set()
    for found in path(*named("prodigy", 1.0, decay=0.01, d0=0.1)):
        g = gradient(x)
        m, v = BETA1 * m + (1 - BETA1) * d * g, BETA2 * v + (1 - BETA2) * d * d * g * g
        r = beta3 * r + (1 - beta3) * d * d * float(g @ (START - x))
        s = beta3 * s + (1 - beta3) * d * d * g
        larger = max(d, r / float(s.abs().sum()))
        x = (1 - d * 0.01) * x - d * m / (v.sqrt() + larger * EPS)
        d = larger
        rates.add(d)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
    assert len(rates) > 3


@pytest.mark.parametrize("name", PACKAGED)
def test_the_decay_of_a_group_is_its_own(name: str) -> None:
    """Two copies of one weight in one optimizer: the gradient of neither depends on the other."""
    weights = [nn.Parameter(START.clone()) for _ in range(2)]
    rate = 1.0 if name == "prodigy" else LR
    groups = [{"params": [w], "lr": rate, "weight_decay": decay} for w, decay in zip(weights, (WD, 0.0), strict=True)]
    used = optimizer(name, groups, **({"d0": 0.1} if name == "prodigy" else {}))
    for _ in range(8):
        before = weights[0].detach().clone()
        if hasattr(used, "train"):
            used.train()
        for weight in weights:
            weight.grad = gradient(START)
        used.step()
        if name == "prodigy":
            break
    decayed, spared = (weight.detach() for weight in weights)
    if name == "prodigy":
        torch.testing.assert_close(spared - decayed, 0.1 * WD * before, rtol=0, atol=1e-12)
    else:
        assert torch.all(decayed.abs() < spared.abs())
        torch.testing.assert_close(spared, alone(name), rtol=0, atol=1e-12)


def alone(name: str) -> Tensor:
    used, weight = named(name, LR, decay=0.0)
    for _ in range(8):
        used.train()  # type: ignore[attr-defined]
        weight.grad = gradient(START)
        used.step()
    return weight.detach()


def test_coupled_decay_of_prodigy_is_added_to_the_gradient() -> None:
    used, weight = named("prodigy", 1.0, decoupled=False)
    weight.grad = torch.zeros_like(weight)
    used.step()
    other, plain = named("prodigy", 1.0, decay=0.0)
    plain.grad = WD * START
    other.step()
    assert torch.equal(weight, plain)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("schedule_free_adamw", {"warmup_steps": 3}, "unknown setting 'warmup_steps'"),
        ("schedule_free_adamw", {"betas": [0.0, 0.9]}, r"betas in \(0, 1\)"),
        ("schedule_free_radam", {"eps": 0.0}, "eps > 0"),
        ("schedule_free_radam", {"decoupled": False}, "decoupled by definition"),
        ("prodigy", {"d0": 0.0}, "Invalid d0"),
        ("prodigy", {"dcoef": 2.0}, "did you mean d_coef"),
    ],
)
def test_what_a_packaged_optimizer_does_not_know_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(name, 1.0, **settings)


ROWS = [("good film", 1), ("the dog eats", 0), ("no", 0), ("a very old book", 1)] * 4


class Watch(TrainerCallback):
    """The weights after each step, and those that evaluations meet, by step."""

    def __init__(self) -> None:
        self.after: dict[int, Tensor] = {}
        self.evaluated: dict[int, Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.after[state.global_step] = flat(model.state_dict())

    def on_prediction_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.evaluated[state.global_step] = flat(model.state_dict())


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([weights[name].detach().flatten().clone() for name in sorted(weights)])


def trainer(folder: Path, architecture: str, watch: Watch, parts: dict[str, Any], **arguments: Any) -> Trainer:
    model, tokenizer = built(tiny_model_dir(folder), "sst2", architecture=architecture, dropout=0.0)
    texts, labels = zip(*ROWS, strict=True)
    rows = Dataset.from_dict({**tokenizer(list(texts)), "label": list(labels)})
    quiet = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "lr_scheduler_type": "constant"}
    quiet |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 16, "max_steps": 4, "eval_steps": 3}
    given = TrainingArguments(str(folder / "run"), **{"eval_strategy": "steps", "save_steps": 2, **quiet, **arguments})
    parts = {key: make(model) if callable(make) else make for key, make in parts.items()}
    collate = DataCollatorWithPadding(tokenizer)
    return Trainer(
        model, given, train_dataset=rows, eval_dataset=rows, data_collator=collate, callbacks=[watch], **parts
    )


def in_groups(name: str) -> Callable[[Any], tuple[torch.optim.Optimizer, None]]:
    rate = 1.0 if name == "prodigy" else 1e-2
    return lambda model: (optimizer(name, parameter_groups(model, learning_rate=rate, weight_decay=0.1)), None)


@pytest.mark.parametrize(
    "parts",
    [
        {"optimizers": in_groups("schedule_free_adamw")},
        {"optimizers": in_groups("schedule_free_radam")},
        {"optimizer_cls_and_kwargs": (AdamWScheduleFree, {"lr": 1e-2})},
        {"optimizer_cls_and_kwargs": (RAdamScheduleFree, {"lr": 1e-2, "silent_sgd_phase": False})},
    ],
)
@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
def test_a_stock_trainer_evaluates_and_saves_the_average(
    tmp_path: Path, parts: dict[str, Any], architecture: str
) -> None:
    watch = Watch()
    used = trainer(tmp_path, architecture, watch, parts, gradient_accumulation_steps=2, max_steps=8)
    used.train()
    for step in (2, 4, 6, 8):
        saved = flat(load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors"))
        assert torch.equal(saved, watch.after[step])
    assert watch.evaluated.keys() >= {3, 6}
    assert all(torch.equal(seen, watch.after[step]) for step, seen in watch.evaluated.items())
    raw: Any = used.optimizer.optimizer  # type: ignore[union-attr]
    x = flat(used.model.state_dict())  # type: ignore[union-attr]
    raw.train()
    assert (flat(used.model.state_dict()) - x).abs().max() > 1e-5  # type: ignore[union-attr]


def test_prodigy_finds_a_rate_under_a_stock_trainer(tmp_path: Path) -> None:
    watch = Watch()
    parts = {"optimizer_cls_and_kwargs": (Prodigy, {"lr": 1.0})}
    used = trainer(tmp_path, "stock", watch, parts, eval_strategy="no", max_steps=30, per_device_train_batch_size=16)
    used.train()
    raw: Any = used.optimizer.optimizer  # type: ignore[union-attr]
    found = {group["d"] for group in raw.param_groups}
    assert len(found) == 1
    assert 1e-3 < found.pop() < 0.1


CARDS = {
    "schedule_free_adamw": "training.learning_rate=0.01",
    "schedule_free_radam": "training.learning_rate=0.01",
    "prodigy": "training.learning_rate=1.0",
}


@pytest.mark.parametrize("name", PACKAGED)
def test_a_run_learns_and_continues_to_the_same_weights(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, name: str
) -> None:
    saving = ("training.save_strategy=steps", "training.save_steps=13", "training.save_total_limit=9")
    words = [
        "training.bf16=false",
        f"optim.name={name}",
        CARDS[name],
        *saving,
        "training.eval_strategy=no",
        "training.logging_steps=1",
    ]
    done = nlptrain("train", card, *words, "--json")
    assert done.code == 0, done.err
    result, run = json.loads(done.out), tmp_path / "run"
    assert result["metrics"]["test"]["accuracy"] > 0.7
    weights = load_file(run / "model" / "model.safetensors")
    last = load_file(run / "checkpoints" / "checkpoint-42" / "model.safetensors")
    assert all(value.equal(last[key]) for key, value in weights.items())
    for folder in (run / "model", *(run / "checkpoints").glob("checkpoint-[34]*")):
        shutil.rmtree(folder)
    assert nlptrain("train", card, *words, "--resume").code == 0
    again = load_file(run / "model" / "model.safetensors")
    assert all(value.equal(again[key]) for key, value in weights.items())


def test_what_is_saved_on_the_way_does_not_change_the_weights(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    words = ["optim.name=schedule_free_adamw", "training.max_steps=12", "training.load_best_model_at_end=false"]
    saving = {
        "often": ["training.save_strategy=steps", "training.save_steps=1"],
        "never": ["training.eval_strategy=no"],
    }
    for name, more in saving.items():
        assert nlptrain("train", card, *words, *more, f"training.output_dir={tmp_path / name}").code == 0
    often, never = (load_file(tmp_path / name / "model" / "model.safetensors") for name in saving)
    assert all(value.equal(never[key]) for key, value in often.items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optim.name=schedule_free_adamw", "schedule={name: cosine}"], "use constant, which may warm up"),
        (["optim.name=schedule_free_adamw", "training.lr_scheduler_type=linear"], "makes it constant_with_warmup"),
        (["optim.name=schedule_free_radam", "training.fp16=true"], "training.fp16"),
        (["optim={name: schedule_free_adamw, decay_schedule: cosine}"], "leave out decay_schedule"),
        (["training.optim=schedule_free_adamw"], "not the averaged ones"),
        (["optim={name: prodigy, layer_decay: 0.9}"], "one rate for all weights"),
        (["optim.name=prodigy", "training.learning_rate=0.001"], "makes it 1.0"),
        (["optim.name=prodigi"], "did you mean 'prodigy'?"),
        (["optim={name: prodigy, settings: {d0: 0}}", "training.learning_rate=1.0"], "Invalid d0"),
    ],
)
def test_contradictions_are_found_before_anything_trains(
    nlptrain: Callable[..., Done], card: Path, words: list[str], expected: str
) -> None:
    done = nlptrain("check", card, *words)
    assert (done.code, expected in done.err) == (2, True), done.err


def test_a_constant_schedule_may_warm_an_average_up(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    words = ("optim.name=schedule_free_adamw", "schedule={name: constant, warmup: 4}", "training.logging_steps=1")
    done = nlptrain("train", card, *words, "training.max_steps=6")
    assert done.code == 0, done.err
    entries = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    rates = [entry["learning_rate"] for entry in entries if "learning_rate" in entry]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(("name", "package"), [("schedule_free_adamw", "schedulefree"), ("prodigy", "prodigyopt")])
def test_a_missing_package_is_one_sentence_with_the_command(
    nlptrain: Callable[..., Done], card: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "nlptrain.optim.schedule_free")
    monkeypatch.setitem(sys.modules, package, None)
    card.write_text(card.read_text().replace("learning_rate: 0.01, ", ""))
    done = nlptrain("check", card, f"optim.name={name}")
    assert done.code == 2
    assert f"error[E_OPTIM]: optim {name}: needs a package that is not installed: pip install {package}" in done.err
