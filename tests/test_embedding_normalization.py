"""Normalisation of embeddings as a callback: of the stock Trainer with a stock model, and of a run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from nlptrain.callbacks import EmbeddingNormalization
from nlptrain.callbacks.embedding_fit import batches
from nlptrain.models.embedding_table import project_rows
from nlptrain.models.last_layer import find_place
from nlptrain.models.target import attach, fold
from tests.command_line import Done, sentences, write_csv
from tests.test_distributed import PROGRAM, TORCHRUN, launch
from tests.tiny import TARGET

STEPS, AFFINE = 6, ["standardize", "whiten", "all_but_the_top"]
FAMILIES = {
    "bert": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2},
    "roberta": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}
# where each of them drops out features before the last layer
ENTRIES = {"bert": "dropout", "distilbert": "dropout", "roberta": "classifier.dropout"}


def rows(count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    ids = torch.randint(2, 39, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row[0]) % 2} for row in ids]


def stock(family: str = "bert", auto: Any = AutoModelForSequenceClassification) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "max_position_embeddings": 16, "pad_token_id": 1, **FAMILIES[family]}
    return auto.from_config(AutoConfig.for_model(family, **sizes))


def trainer(folder: Path, *callbacks: TrainerCallback, model: Any = None, data: Any = None, **options: Any) -> Trainer:
    sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 7, "max_steps": STEPS}
    quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    args = TrainingArguments(str(folder), **{"learning_rate": 1e-2, **sizes, **quiet, **options})
    data = rows() if data is None else data
    return Trainer(model or stock(), args, train_dataset=data, eval_dataset=rows(16, 1), callbacks=list(callbacks))


def trained(folder: Path, *callbacks: TrainerCallback, **options: Any) -> Trainer:
    made = trainer(folder, *callbacks, **options)
    made.train()
    return made


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def logged(made: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in made.state.log_history if key in entry]


class Spy(TrainerCallback):
    """What the last layer takes at the start, and what the model answers before its normaliser is folded."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not hasattr(self, "inputs"):
            self.inputs = features(model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.logits = answers(model)


@torch.no_grad()
def answers(model: Any) -> Tensor:
    was, _ = model.training, model.eval()
    found = model(**together()).logits
    model.train(was)
    return found


def together() -> dict[str, Tensor]:
    return {key: torch.stack([row[key] for row in rows()]) for key in ("input_ids", "attention_mask")}


def features(model: Any) -> Any:
    """What the last linear layer takes of the training rows, in evaluation mode."""
    seen: list[Tensor] = []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        answers(model)
    return seen[0].double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_head_gets_standardised_rows_and_is_left_stock_with_the_same_answers(
    tmp_path: Path, family: str
) -> None:
    spy, names = Spy(), list(stock(family).state_dict())
    made = trained(tmp_path, EmbeddingNormalization("standardize"), spy, model=stock(family))
    assert np.abs(spy.inputs.mean(0)).max() <= 1e-6
    assert np.abs(spy.inputs.std(0) - 1).max() <= 1e-6
    model = made.model
    assert list(model.state_dict()) == names
    assert not any(module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(answers(model), spy.logits, atol=1e-5, rtol=1e-5)
    made.save_model(str(tmp_path / "saved"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(answers(again), spy.logits, atol=1e-5, rtol=1e-5)
    assert logged(made, "normalized_rows") == [24]
    assert logged(made, "dead_features") == [0]


@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_that_of_a_model_with_the_affine_map_written_into_it(tmp_path: Path, family: str) -> None:
    reference = stock(family)
    raw = features(reference)
    mean, std = (torch.tensor(values) for values in (raw.mean(0), raw.std(0)))

    class Standardize(nn.Module):
        calls = 0

        def forward(self, embeddings: Tensor) -> Tensor:
            self.calls += 1
            # the head of roberta drops out twice by one module
            first_of_two = family == "roberta" and self.calls % 2
            return embeddings if first_of_two else ((embeddings.double() - mean) / std).float()

    parent, _, name = ENTRIES[family].rpartition(".")
    holder = reference.get_submodule(parent)
    # before the dropout, so that a dropped feature has its mean
    setattr(holder, name, nn.Sequential(Standardize(), getattr(holder, name)))
    expected = answers(trained(tmp_path, model=reference).model)
    ours = answers(trained(tmp_path, EmbeddingNormalization("standardize"), model=stock(family)).model)
    plain = answers(trained(tmp_path, model=stock(family)).model)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.parametrize(("kind", "restore"), [*((kind, True) for kind in AFFINE), ("whiten", False)])
def test_a_resumed_stock_run_is_bitwise_the_uninterrupted_one(tmp_path: Path, kind: Any, restore: bool) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": restore}
    components = None if kind == "standardize" else 5
    whole = trained(tmp_path, EmbeddingNormalization(kind, components), **options)
    again = trainer(tmp_path, EmbeddingNormalization(kind, components), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert difference(again.model, whole.model) == 0.0
    assert len(logged(again, "normalized_rows")) == 1


def test_every_checkpoint_is_stock_and_saving_changes_nothing(tmp_path: Path) -> None:
    class Answers(TrainerCallback):
        found: dict[int, Tensor] = {}

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.found[state.global_step] = answers(model)

    seen = Answers()
    often = trained(tmp_path, EmbeddingNormalization("whiten", 5), seen, save_strategy="steps", save_steps=1)
    assert difference(often.model, trained(tmp_path / "once", EmbeddingNormalization("whiten", 5)).model) == 0.0
    assert len(seen.found) == STEPS
    for step, expected in seen.found.items():
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"checkpoint-{step}")
        torch.testing.assert_close(answers(again), expected, atol=1e-5, rtol=1e-5)


def test_the_best_model_is_the_best_checkpoint_and_not_normalised_twice(tmp_path: Path) -> None:
    steps = {"save_steps": 2, "eval_steps": 2, "eval_strategy": "steps", "save_strategy": "steps"}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    made = trained(tmp_path, EmbeddingNormalization("standardize"), learning_rate=0.05, **steps, **best)
    stored = AutoModelForSequenceClassification.from_pretrained(made.state.best_model_checkpoint)
    assert difference(made.model, stored) == 0.0
    scores = {entry["step"]: entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry}
    assert made.evaluate()["eval_loss"] == pytest.approx(max(scores.values()), abs=1e-6)


def test_only_rows_that_are_trained_on_count(tmp_path: Path) -> None:
    ignored = [{**row, "labels": -100} for row in rows(5, 3)]
    spies = Spy(), Spy()
    plain = trained(tmp_path, EmbeddingNormalization("standardize"), spies[0], max_steps=1)
    more = trained(tmp_path, EmbeddingNormalization("standardize"), spies[1], max_steps=1, data=[*rows(), *ignored])
    np.testing.assert_array_equal(spies[0].inputs, spies[1].inputs)
    assert logged(plain, "normalized_rows") == logged(more, "normalized_rows") == [24]


def test_fitting_draws_no_random_number_and_leaves_every_mode(tmp_path: Path) -> None:
    model = stock()
    model.train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    seen: list[bool] = []

    class Around(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(torch.equal(torch.get_rng_state(), self.before) if hasattr(self, "before") else False)
            self.before = torch.get_rng_state()
            assert [module.training for module in model.modules()] == modes

    around = Around()
    made = trainer(tmp_path, model=model)
    for callback in (around, EmbeddingNormalization("whiten")):
        made.add_callback(callback)
    made.callback_handler.callbacks.append(around)
    made.train()
    assert seen == [False, True]


def test_a_constant_feature_is_counted_and_has_no_influence(tmp_path: Path) -> None:
    model = stock()
    with torch.no_grad():
        model.bert.pooler.dense.weight[3] = 0
    model.bert.pooler.requires_grad_(False)
    spy = Spy()
    made = trained(tmp_path, EmbeddingNormalization("standardize"), spy, model=model)
    assert logged(made, "dead_features") == [1]
    assert not spy.inputs[:, 3].any()
    assert not made.model.classifier.weight[:, 3].any()


@pytest.mark.parametrize(
    ("callback", "options", "message"),
    [
        (lambda: EmbeddingNormalization("l2"), {}, "use architecture cross_encoder"),
        (lambda: EmbeddingNormalization("whiten", 17), {}, "the nearest valid value is 16"),
        (lambda: EmbeddingNormalization("standardize"), {"model": "tokens"}, "use architecture cross_encoder"),
        (lambda: EmbeddingNormalization("standardize"), {"data": "stream"}, "use a data set with a length"),
        (lambda: EmbeddingNormalization("standardize"), {"data": rows(1) * 5}, "at least two different ones"),
    ],
)
def test_what_is_not_possible_is_refused_at_the_start(
    tmp_path: Path, callback: Any, options: dict[str, Any], message: str
) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(rows())

    made: dict[str, Any] = {"tokens": stock(auto=AutoModelForTokenClassification), "stream": Stream()}
    chosen = {key: made[value] if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, callback(), **chosen)


def test_a_checkpoint_without_the_normalisation_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, save_strategy="steps", save_steps=3)
    again = trainer(tmp_path, EmbeddingNormalization("standardize"))
    with pytest.raises(ValueError, match="made without this EmbeddingNormalization"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a kind, a table, or both"),
        ({"kind": "whitten"}, "the nearest is 'whiten'"),
        ({"table": "unity"}, "the nearest is 'unit'"),
        ({"kind": "standardize", "components": 3}, "belongs to whiten"),
        ({"table": "max", "max_norm": 0.0}, "the usual one is 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingNormalization(**arguments)


def test_batches_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    loader = trainer(tmp_path).get_train_dataloader()
    cpu = torch.device("cpu")
    one = list(batches(loader, 7, range(4), cpu))
    two = [list(batches(loader, 7, range(rank, 4, 2), cpu)) for rank in (0, 1)]
    assert [len(batch["input_ids"]) for batch in one] == [7, 7, 7, 3]
    for number, batch in enumerate(one):
        assert torch.equal(batch["input_ids"], two[number % 2][number // 2]["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_enter_before_the_last_dropout(family: str) -> None:
    model = stock(family).eval()
    place = find_place(model, together())
    assert place.entry is model.get_submodule(ENTRIES[family])
    assert place.call == (2 if family == "roberta" else 1)
    assert place.linear.out_features == 2


def test_a_stock_regression_keeps_its_unit_when_both_are_folded_into_the_last_layer(tmp_path: Path) -> None:
    model = stock()
    model.config.update({"num_labels": 1, "problem_type": "regression"})
    model.num_labels, model.classifier = 1, nn.Linear(16, 1)
    attach(model, TARGET)
    scored = [{**row, "labels": float(row["input_ids"].sum() % 5)} for row in rows()]
    spy = Spy()
    trained(tmp_path, EmbeddingNormalization("standardize"), spy, model=model, data=scored)
    fold(model, TARGET)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(answers(again), spy.logits, atol=1e-5, rtol=1e-5)
    assert 0 < float(spy.logits.mean()) < 5


def table(made: Trainer) -> Any:
    return made.model.get_input_embeddings().weight.detach().double()


def test_projection_touches_exactly_the_rows_that_are_off_and_never_the_padding_row() -> None:
    embedding = nn.Embedding(5, 3, padding_idx=1)
    start = torch.tensor([[3.0, 0, 4], [0, 9, 0], [0, 1, 0], [0.3, 0, 0.4], [0, 0, 0]])
    for shrink_only, expected, changed in [
        (True, {0: [0.6, 0, 0.8]}, 1),
        (False, {0: [0.6, 0, 0.8], 3: [0.6, 0, 0.8]}, 2),
    ]:
        embedding.weight.data.copy_(start)
        assert project_rows(embedding, 1.0, shrink_only=shrink_only) == changed
        for row in range(5):
            torch.testing.assert_close(embedding.weight[row], torch.tensor(expected.get(row, start[row].tolist())))
            assert row in expected or torch.equal(embedding.weight[row], start[row])
        once = embedding.weight.clone()
        assert project_rows(embedding, 1.0, shrink_only=shrink_only) == 0
        assert torch.equal(embedding.weight, once)


@pytest.mark.parametrize("rule", ["unit", "max"])
def test_the_table_keeps_its_bound_through_training_and_resume(tmp_path: Path, rule: Any) -> None:
    largest = torch.linalg.vector_norm(table(trained(tmp_path / "plain")), dim=1).max()
    bound = 1.0 if rule == "unit" else 0.08
    norms: list[Tensor] = []

    class Norms(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            norms.append(torch.linalg.vector_norm(model.get_input_embeddings().weight.detach().double(), dim=1))

    options = {"save_strategy": "steps", "save_steps": 3}
    callback = EmbeddingNormalization(table=rule, max_norm=0.08)
    whole = trained(tmp_path, callback, Norms(), **options)
    real = torch.arange(40) != 1
    assert max(float(found[real].max()) for found in norms) <= bound * (1 + 2e-6)
    if rule == "unit":
        assert min(float(found[real].min()) for found in norms) >= 1 - 2e-6
    else:
        assert largest > 0.1
    shares = logged(whole, "table_rows_projected")
    assert len(shares) == STEPS
    assert 0 < shares[0] <= 1
    assert 0 < logged(whole, "table_rows_projected_at_start")[0] <= 1
    again = trainer(tmp_path, EmbeddingNormalization(table=rule, max_norm=0.08), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert difference(again.model, whole.model) == 0.0
    assert logged(again, "table_rows_projected") == shares


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [(kind, "cross_encoder") for kind in ("standardize", "all_but_the_top", "l2")] + [("whiten", "stock")],
)
def test_a_run_with_each_kind_learns_its_task_and_says_what_it_fitted(
    nlptrain: Callable[..., Done], card: Path, kind: str, architecture: str
) -> None:
    words = [f"model.normalize={kind}", f"model.architecture={architecture}", "embeddings={table: max, max_norm: 0.5}"]
    done = nlptrain("train", card, *words, "training.logging_steps=5")
    assert done.code == 0, done.err
    run = card.parent / "run"
    entries = history(run)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert [e["normalized_rows"] for e in entries if "normalized_rows" in e] == ([] if kind == "l2" else [108])
    assert all(0 <= e["table_rows_projected"] <= 1 for e in entries if "loss" in e)
    names = load_file(run / "model" / "model.safetensors")
    buffers = {f"normalizer.{name}" for name in ("mean", "transform", "rows")}
    assert buffers & set(names) == (buffers if architecture == "cross_encoder" and kind != "l2" else set())


@pytest.mark.parametrize("architecture", ["cross_encoder", "stock"])
def test_a_run_continued_from_its_checkpoint_is_bitwise_the_uninterrupted_one(
    nlptrain: Callable[..., Done], card: Path, architecture: str
) -> None:
    words = ["model.normalize=whiten", f"model.architecture={architecture}", "model.dropout=0.1", "training.bf16=false"]
    words += ["training.save_total_limit=9", "training.load_best_model_at_end=false"]
    run = card.parent / "run"
    assert nlptrain("train", card, *words).code == 0
    whole = load_file(run / "model" / "model.safetensors")
    first = min((run / "checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    os.rename(run / "model", card.parent / "old")
    done = nlptrain("train", card, *words, f"training.resume_from_checkpoint={first}", "--resume")
    assert done.code == 0, done.err
    again = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_head_an_output_and_random_weights_run_through_the_pipeline(
    nlptrain: Callable[..., Done], card: Path
) -> None:
    words = ["model.head={hidden: [16, 8], skip: true}", "model.output=sigmoid", "model.pretrained=false"]
    done = nlptrain("train", card, *words, "model.hidden_act=relu", "model.normalize=standardize", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["test"]["accuracy"] > 0.8


@pytest.mark.distributed
def test_two_processes_fit_what_one_fits(nlptrain: Callable[..., Done], card: Path, tmp_path: Path) -> None:
    # 117 rows train: two processes get a row that fills up, which must not count
    write_csv(tmp_path / "train.csv", sentences(130, 0))
    words = ["model.normalize=standardize", "training.max_steps=2", "training.per_device_eval_batch_size=16"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert nlptrain("train", card, *words, f"training.output_dir={one}").code == 0
    done = launch(*TORCHRUN, PROGRAM, card, *words, f"training.output_dir={two}")
    assert done.code == 0, done.err
    stored = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert int(stored[0]["normalizer.rows"]) == int(stored[1]["normalizer.rows"]) == 117
    for name in ("normalizer.mean", "normalizer.transform"):
        torch.testing.assert_close(stored[1][name], stored[0][name], atol=1e-10, rtol=1e-10)
