"""The Armijo line search in the stock Trainer with a stock model, and in a run of the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from nlptrain.callbacks import ArmijoLineSearch, GradientClipping, WeightDecay
from nlptrain.callbacks.loss_replay import LossReplay
from nlptrain.config.load import dump, load
from nlptrain.errors import ConfigError
from nlptrain.optim import ArmijoAdamW
from tests.command_line import Done
from tests.test_distributed import PROGRAM, TORCHRUN, launch

STEPS = 20
# so that in 20 steps some first trials are refused
DEMANDING = {"c": 0.7, "growth": 1.3}


def rows(count: int = 64) -> list[dict[str, Any]]:
    ids = torch.randint(1, 39, (count, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0]) % 2} for row in ids]


def trainer(
    folder: Path,
    *callbacks: TrainerCallback,
    dropout: float = 0.1,
    optimizer: Any = (ArmijoAdamW, {}),
    search: bool = True,
    more: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes, **rates))
    quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "max_steps": STEPS}
    batches = {"per_device_train_batch_size": 16, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    args = TrainingArguments(str(folder), **{**quiet, **batches, **options})
    made = Trainer(
        model,
        args,
        train_dataset=rows(),
        eval_dataset=rows(8),
        callbacks=list(callbacks),
        optimizer_cls_and_kwargs=optimizer,
        **(more or {}),
    )
    if search:
        made.add_callback(ArmijoLineSearch(made))
    return made


def trained(folder: Path, *callbacks: TrainerCallback, **options: Any) -> Trainer:
    made = trainer(folder, *callbacks, **options)
    made.train()
    return made


def logged(made: Trainer, key: str) -> list[Any]:
    return [entry[key] for entry in made.state.log_history if key in entry]


def replay_of(made: Trainer) -> LossReplay:
    (found,) = [c.replay_ for c in made.callback_handler.callbacks if isinstance(c, ArmijoLineSearch)]
    assert found is not None
    return found


def distance(one: Trainer, other: Trainer) -> float:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


class Replays(TrainerCallback):
    """Put behind the line search: the loss of each step, and what its closure gives before the weights have moved."""

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        raw = optimizer.optimizer
        self.pairs.append((raw.loss, raw.closure()))


def one_hot_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return nn.functional.multi_margin_loss(outputs.logits, labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3},
        {"label_smoothing_factor": 0.1},
        {"more": {"compute_loss_func": one_hot_loss}, "gradient_accumulation_steps": 2},
        {"bf16": True},
        {"gradient_checkpointing": True, "neftune_noise_alpha": 5.0},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_a_replay_at_the_same_weights_is_bitwise_the_loss_with_dropout(tmp_path: Path, options: dict[str, Any]) -> None:
    watch = Replays()
    made = trainer(tmp_path, max_steps=4, **options)
    made.add_callback(watch)
    made.train()
    assert len(watch.pairs) == 4
    assert all(before == again for before, again in watch.pairs)


def test_with_fresh_masks_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossReplay, "_again", lambda self, forward: forward.again())
    watch = Replays()
    made = trainer(tmp_path, max_steps=4)
    made.add_callback(watch)
    made.train()
    assert all(abs(before - again) > 1e-4 for before, again in watch.pairs)


class RandomStates(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # what another part may do between the forward pass and the step
        torch.rand(3)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(torch.get_rng_state())


def test_the_random_numbers_of_a_run_are_those_of_a_run_without_search(tmp_path: Path) -> None:
    ours, plain = RandomStates(), RandomStates()
    searched = trained(tmp_path, ours)
    trained(tmp_path, plain, search=False, optimizer=(torch.optim.AdamW, {"lr": 1e-3}))
    assert logged(searched, "armijo_trials")[0] >= 2
    assert len(ours.seen) == len(plain.seen) == STEPS
    assert all(torch.equal(one, other) for one, other in zip(ours.seen, plain.seen, strict=True))


def test_one_seed_gives_one_run(tmp_path: Path) -> None:
    one, other, third = (trained(tmp_path, seed=seed, optimizer=(ArmijoAdamW, DEMANDING)) for seed in (1, 1, 2))
    assert logged(one, "armijo_step_size") == logged(other, "armijo_step_size")
    assert distance(one, other) == 0.0 < distance(one, third)


class Decrease(TrainerCallback):
    """Put before the line search: what the step did to the loss of its batch, and what its gradient promised."""

    def __init__(self) -> None:
        self.made: Any = None
        self.seen: list[tuple[float, float]] = []
        self.held = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.before = [p.detach().clone() for p in model.parameters()]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        moved = zip(model.parameters(), self.before, strict=True)
        promised = sum(float((p.grad.double() * (p.detach().double() - b.double())).sum()) for p, b in moved)
        replay = replay_of(self.made)
        self.seen.append((replay.replay() - replay.loss(), promised))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held += len(replay_of(self.made).forwards)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_stock_trainer_learns_and_every_step_decreases_the_loss_of_its_batch_enough(
    tmp_path: Path, accumulation: int
) -> None:
    watch = Decrease()
    made = watch.made = trainer(
        tmp_path, watch, max_steps=40, gradient_accumulation_steps=accumulation, weight_decay=0.1, eval_strategy="steps"
    )
    before = made.evaluate()["eval_loss"]
    own = made.compute_loss
    made.train()
    assert made.evaluate()["eval_loss"] < 0.5 * before
    accepted = [(change, promised) for change, promised in watch.seen if promised]
    assert len(accepted) == 40 - logged(made, "armijo_failures")[-1] > 30
    assert logged(made, "armijo_unsearched")[-1] == 0
    assert all(change <= 0.1 * promised * (1 - 1e-5) < 0 for change, promised in accepted)
    # inputs are not held beyond their step, and the Trainer is as it was
    assert watch.held == 0
    assert made.compute_loss == own


def test_evaluations_are_not_recorded(tmp_path: Path) -> None:
    found: list[tuple[str, int]] = []

    class Held(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.append(("evaluation", len(replay_of(made).forwards)))

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found.append(("step", len(replay_of(made).forwards)))

    made = trainer(tmp_path, Held(), max_steps=3, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1)
    made.train()
    assert found == [("step", 2), ("evaluation", 0)] * 3


def test_trials_leave_running_statistics_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    replay, inputs = LossReplay(model), torch.randn(5, 3)
    loss = replay.recording(lambda model, inputs: model(inputs).square().sum())(model, inputs)
    loss.backward()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert replay.replay() == replay.loss() == loss.item()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("scaled", [False, True], ids=["mean of means", "the library's multiple"])
def test_accumulation_in_a_stock_trainer_changes_nothing(tmp_path: Path, scaled: bool) -> None:
    """Even where the library multiplies loss and gradients by the accumulation steps: both sides have the factor.

    Adam's own eps has not, so it is given it here.
    """
    found = []
    for size, accumulation in ((32, 1), (16, 2), (8, 4)):
        eps = 1e-8 * (accumulation if scaled else 1)
        batches = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        made = trainer(tmp_path, dropout=0.0, optimizer=(ArmijoAdamW, {**DEMANDING, "eps": eps}), **batches)
        made.model_accepts_loss_kwargs = scaled
        made.train()
        found.append(made)
    sizes = logged(found[0], "armijo_step_size")
    assert sizes != sorted(sizes)
    assert logged(found[2], "loss")[0] == pytest.approx(logged(found[0], "loss")[0] * (4 if scaled else 1), rel=1e-5)
    for made in found[1:]:
        assert logged(made, "armijo_step_size") == pytest.approx(logged(found[0], "armijo_step_size"), rel=1e-6)
        assert distance(made, found[0]) <= 1e-5


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 10, "lr_scheduler_type": "linear"}
    whole = trained(tmp_path, **options)
    again = trainer(tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert distance(again, whole) == 0.0
    keys = ("armijo_step_size", "armijo_trials", "armijo_failures", "learning_rate")
    assert all(logged(again, key) == logged(whole, key) for key in keys)
    assert again.optimizer.optimizer.search == whole.optimizer.optimizer.search


def test_the_clipping_of_the_trainer_is_switched_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = trained(tmp_path, max_steps=2, max_grad_norm=1e-3)
    unclipped = trained(tmp_path, max_steps=2)
    assert "max_grad_norm 0.001 set to 0" in caplog.text
    assert distance(made, unclipped) == 0.0


class OwnStep(Trainer):
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        loss = model(**inputs).loss
        loss.backward()
        return loss.detach()


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        ((), {"optimizer": (torch.optim.AdamW, {"lr": 1e-3})}, "must be ArmijoAdamW, found AdamW"),
        ((), {"fp16": True}, "fp16 scales gradients"),
        ((GradientClipping("norm", 1.0),), {}, "GradientClipping changes gradients"),
        ((WeightDecay(0.1),), {}, "WeightDecay changes gradients or weights"),
        ((), {"torch_compile": True}, "dropout masks"),
    ],
)
def test_what_the_search_cannot_be_exact_with_is_refused(
    tmp_path: Path, callbacks: tuple[TrainerCallback, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, *callbacks, **options)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharded_parameters_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path)
    found = {"model": made.model, "optimizer": made.accelerator.prepare(made.create_optimizer())}
    (search,) = [c for c in made.callback_handler.callbacks if isinstance(c, ArmijoLineSearch)]
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    with pytest.raises(ValueError, match="slope; use DDP"):
        search.on_train_begin(made.args, made.state, made.control, **found)


def test_gradients_of_another_loss_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "training_step", OwnStep.training_step)
    with pytest.raises(ValueError, match="not those of the 0 losses"):
        trained(tmp_path)


CARD = "task: sst2\noptim: {name: armijo, settings: {c: 0.2}}\n"


def test_a_card_needs_no_rate_and_falls_over_the_last_part_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(CARD, encoding="utf-8")
    config = load(path)
    assert config.replaced["learning_rate"] == 1.0
    assert config.schedule_settings == {"warmup": 0, "hold": 0.3}
    path.write_text(dump(config), encoding="utf-8")
    assert load(path) == config
    assert load(path, ["schedule={name: cosine}"]).schedule_settings == {"warmup": 0.06}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.learning_rate=1e-4", "training.learning_rate: a section of this file takes its place"),
        ("training.max_grad_norm=1.0", "training.max_grad_norm: a section"),
        ("training.lr_scheduler_type=cosine", "training.lr_scheduler_type: a section"),
        ("training.fp16=true", "leave out training.fp16"),
        ("training.deepspeed=ds.json", "leave out training.deepspeed"),
        ("training.fsdp=true", "leave out training.fsdp"),
        ("clipping={by: norm}", "leave out clipping"),
        ("optim.decay_schedule=cosine", "leave out decay_schedule"),
        ("optim.head_learning_rate=1e-3", "leave out head_learning_rate"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(CARD, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load(path, [override])


def settings(run: Path, *more: str) -> list[str]:
    """Words for a card of which the learning rate is taken out."""
    quiet = [f"training.output_dir={run}", "training.logging_steps=1", "training.bf16=false"]
    return [*quiet, "optim={name: armijo, settings: {c: 0.7, growth: 1.3}}", *more]


@pytest.fixture
def rateless(card: Path) -> Path:
    card.write_text(card.read_text(encoding="utf-8").replace("learning_rate: 0.01, ", ""), encoding="utf-8")
    return card


def history(run: Path, key: str) -> list[float]:
    entries = map(json.loads, (run / "history.jsonl").read_text(encoding="utf-8").splitlines())
    return [entry[key] for entry in entries if key in entry]


def difference(one: Path, other: Path) -> float:
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    return max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])


def test_a_run_resumes_exactly_and_learns(nlptrain: Callable[..., Done], rateless: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ("model.dropout=0.1", "training.save_strategy=steps", "training.eval_strategy=steps")
    words += ("training.save_steps=7", "training.eval_steps=7", "training.save_total_limit=9")
    done = nlptrain("train", rateless, *settings(whole, *words), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["test"]["accuracy"] > 0.9
    assert nlptrain("train", rateless, *settings(stopped, *words)).code == 0
    # as if it had been killed after step 14
    for checkpoint in (stopped / "checkpoints").iterdir():
        if int(checkpoint.name.split("-")[1]) > 14:
            checkpoint.rename(tmp_path / checkpoint.name)
    for name in ("results.json", "history.jsonl"):
        (stopped / name).unlink(missing_ok=True)
    done = nlptrain("train", rateless, *settings(stopped, *words), "--resume")
    assert done.code == 0, done.err
    assert "checkpoint-14" in done.err
    assert difference(whole, stopped) == 0.0
    for key in ("armijo_step_size", "armijo_trials", "loss"):
        assert history(whole, key) == history(stopped, key)
    shares = history(whole, "learning_rate")
    assert (shares[0], shares[len(shares) // 4], 0 < shares[-1] < 0.1) == (1.0, 1.0, True)


def test_accumulation_in_our_trainer_changes_nothing(
    nlptrain: Callable[..., Done], rateless: Path, tmp_path: Path
) -> None:
    runs = []
    for size, accumulation in ((32, 1), (16, 2), (8, 4)):
        runs.append(tmp_path / str(size))
        words = (f"training.per_device_train_batch_size={size}", f"training.gradient_accumulation_steps={accumulation}")
        done = nlptrain("train", rateless, *settings(runs[-1], *words, f"training.max_steps={STEPS}"))
        assert done.code == 0, done.err
    for run in runs[1:]:
        assert history(run, "armijo_step_size") == pytest.approx(history(runs[0], "armijo_step_size"), rel=1e-6)
        assert difference(run, runs[0]) <= 1e-5


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_take_the_steps_of_one(nlptrain: Callable[..., Done], rateless: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = f"training.max_steps={STEPS}"
    assert nlptrain("train", rateless, *settings(one, words, "training.per_device_train_batch_size=8")).code == 0
    # the program itself, which then also compares the weights of its processes
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\nfrom nlptrain import pipeline\nfit = pipeline.fit\n"
        "def compared(trainer, *args, **kwargs):\n"
        "    done = fit(trainer, *args, **kwargs)\n"
        "    flat = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])\n"
        "    both = [torch.empty_like(flat) for _ in range(2)]\n"
        "    torch.distributed.all_gather(both, flat)\n"
        "    assert torch.equal(*both), 'the processes have other weights'\n"
        "    return done\n"
        "pipeline.fit = compared\n" + Path(PROGRAM).read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    done = launch(*TORCHRUN, program, rateless, *settings(two, words, "training.per_device_train_batch_size=4"))
    assert done.code == 0, done.err
    assert history(two, "armijo_step_size") == pytest.approx(history(one, "armijo_step_size"), rel=1e-6)
    assert difference(one, two) <= 1e-5
