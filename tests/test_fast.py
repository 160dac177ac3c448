"""The faster pass is the library's: states, gradients, distribution of dropout."""

import copy
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from nlptrain.fast import speed_up, weights_at_rest
from nlptrain.fast.attention import attention
from nlptrain.fast.dropout import Mask, dropout, dropout_add
from nlptrain.fast.feed_forward import feed_forward
from nlptrain.fast.products import affine
from nlptrain.fast.words import WordLookup
from nlptrain.optim.build import OPTIMIZERS, optimizer
from nlptrain.trainer import LEAVE_GRADIENTS
from tests.tiny import tiny_model_dir, tiny_tokenizer

IDS = torch.tensor([[2, 9, 11, 40, 3], [2, 15, 3, 0, 0], [2, 9, 9, 3, 0]])
MASK = (IDS != 0).long()
TYPES = torch.tensor([[0, 0, 0, 1, 1], [0] * 5, [0] * 5])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model_dir(tmp_path / "model")


def classifiers(folder: Path) -> tuple[Any, Any]:
    stock = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, attn_implementation="eager")
    fast = copy.deepcopy(stock)
    assert speed_up(fast)
    return stock.eval(), fast.eval()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("types", [None, TYPES])
def test_classifier_of_the_first_token_equals_the_stock_one(folder: Path, types: Tensor | None) -> None:
    stock, fast = classifiers(folder)
    for model in (stock, fast):
        for _ in range(2):  # gradients add up, and the padding row has none
            logits = model(input_ids=IDS, attention_mask=MASK, token_type_ids=types).logits
            functional.cross_entropy(logits, torch.tensor([0, 2, 1])).backward()
    torch.testing.assert_close(gradients(fast), gradients(stock), atol=1e-6, rtol=1e-4)


def test_all_states_equal_the_stock_ones(folder: Path) -> None:
    stock = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    fast = copy.deepcopy(stock)
    speed_up(fast)
    for model in (stock, fast):
        (model(input_ids=IDS, attention_mask=MASK).last_hidden_state[MASK.bool()] ** 3).sum().backward()
    expected = stock(input_ids=IDS, attention_mask=MASK).last_hidden_state
    found = fast(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(found[MASK.bool()], expected[MASK.bool()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(fast), gradients(stock), atol=1e-4, rtol=1e-4)


def test_reduced_precision_rounds_like_autocast(folder: Path) -> None:
    stock, fast = classifiers(folder)
    with torch.no_grad():
        exact = stock(input_ids=IDS, attention_mask=MASK).logits
        with torch.autocast("cpu", torch.bfloat16):
            found = fast(input_ids=IDS, attention_mask=MASK).logits
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found.float(), exact, atol=0.01, rtol=0)


@pytest.mark.parametrize(("precision", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_weights_at_rest_answer_as_others_and_as_they_are_in_each_block(
    folder: Path, precision: torch.dtype, error: float
) -> None:
    _, model = classifiers(folder)
    given = {"input_ids": IDS, "attention_mask": MASK}
    for _ in range(2):
        with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            expected = model(**given).logits
            with weights_at_rest():
                found = [model(**given).logits for _ in range(2)]
        torch.testing.assert_close(found, [expected, expected], atol=error, rtol=error)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)


def test_weights_at_rest_have_gradients_where_they_are_wanted(folder: Path) -> None:
    found = []
    for around in (nullcontext(), weights_at_rest()):
        _, model = classifiers(folder)
        nn.init.ones_(model.classifier.weight)
        with around:
            model(input_ids=IDS, attention_mask=MASK).logits.square().sum().backward()
        found.append(gradients(model))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_matrices_with_gaps_and_without(*, transposed: bool) -> None:
    torch.manual_seed(0)
    wide, weight, bias = torch.randn(5, 12), torch.randn(7, 5 if transposed else 6), torch.randn(7)
    for x in (wide[:, :6], wide[:, ::2]):
        x = x.t() if transposed else x
        torch.testing.assert_close(affine(x, weight, bias), x @ weight.t() + bias)
        torch.testing.assert_close(affine(weight, x), weight @ x.t())


MANY_SHAPES = """
import re
import torch
from nlptrain.fast import keep_memory, remember_shapes
from nlptrain.fast.products import affine

def megabytes():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

keep_memory()
remember_shapes(bf16=True)
weight, found = torch.zeros(64, 64), []
for rows in range(2500, 0, -1):
    affine(torch.zeros(rows, 64), weight)
    if rows in (1500, 1):
        found.append(megabytes())
print(found[1] - found[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory where Linux says it")
def test_memory_does_not_grow_with_the_shapes_of_products() -> None:
    # what a trainer of this process has set already is not to be inherited
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_CAPACITY")}
    command = [sys.executable, "-c", MANY_SHAPES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    assert float(done.stdout) < 80  # some 20, and 200 with the caches as they are by default


def test_gradient_of_words_is_the_stock_one_step_after_step() -> None:
    torch.manual_seed(0)
    stock = nn.Embedding(20, 4, padding_idx=0)
    fast = copy.deepcopy(stock)
    lookup = WordLookup(fast)
    for ids in (torch.tensor([[1, 2, 2, 0]]), torch.tensor([[5, 2, 0, 0]]), torch.tensor([[7]])):
        stock.weight.grad = fast.weight.grad = None
        for found in (stock(ids), lookup(ids)):
            found.square().sum().backward()
        assert torch.equal(fast.weight.grad, stock.weight.grad)  # type: ignore[arg-type]


def _of_two(rank: int, meeting: str, found: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 4, padding_idx=0)
    ids = (torch.tensor([1, 2, 2, 0]), torch.tensor([2, 7]))[rank]
    for number, look in enumerate((WordLookup(embedding), embedding)):
        embedding.weight.grad = None
        look(ids).square().sum().backward()
        torch.save(embedding.weight.grad, f"{found}-{number}-{rank}")
    distributed.destroy_process_group()


@pytest.mark.distributed
def test_of_two_processes_the_gradient_of_words_is_the_mean(tmp_path: Path) -> None:
    multiprocessing.spawn(_of_two, (str(tmp_path / "meeting"), str(tmp_path / "found")), nprocs=2)
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 4, padding_idx=0)
    (embedding(torch.tensor([1, 2, 2, 0, 2, 7])).square().sum() / 2).backward()
    # by the rows of both, and by the whole table
    for path in (tmp_path / f"found-{number}-{rank}" for number in (0, 1) for rank in (0, 1)):
        torch.testing.assert_close(torch.load(path), embedding.weight.grad)


def test_what_is_done_to_the_shortened_table_is_done_to_the_whole() -> None:
    torch.manual_seed(0)
    lookup = WordLookup(nn.Embedding(20, 4, padding_idx=0))
    for ids in (torch.tensor([[1, 2, 2, 0]]), torch.tensor([[5, 2, 0, 0]])):
        lookup(ids).square().sum().backward()
    table = lookup.embedding.weight.grad
    assert table is not None
    whole = table.clone()
    with lookup.shortened({"words": table, "other": whole}) as shortened:
        assert shortened["other"] is whole
        assert len(shortened["words"]) == 4
        torch.testing.assert_close(shortened["words"].norm(), whole.norm())
        shortened["words"].mul_(0.5)
    assert torch.equal(table, whole / 2)


SCRATCHY = {"sgd": {"nesterov": True}, "rmsprop": {"momentum": 0.9, "centered": True}, "adam": {"amsgrad": True}}


@pytest.mark.parametrize("settings", [{}, SCRATCHY])
@pytest.mark.parametrize("name", [name for name in LEAVE_GRADIENTS if name in OPTIMIZERS and name != "armijo"])
def test_optimizers_of_the_kept_table_only_read_it(name: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(20, 4))
    groups = [{"params": [weight], "lr": 0.1, "weight_decay": 0.1}]
    for decoupled in {True, OPTIMIZERS[name].coupled is None}:
        chosen = optimizer(name, groups, decoupled=decoupled, **settings.get(name, {}))
        for _ in range(3):
            gradient = torch.randn(20, 4)
            weight.grad = gradient.clone()
            chosen.step()
            assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_feed_forward_is_two_layers_and_the_exact_gelu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 24, dtype=torch.float64), nn.Linear(24, 6, dtype=torch.float64)
    states = torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    tensors = [states, *first.parameters(), *second.parameters()]
    weights = torch.randn(2, 5, 6, dtype=dtype)
    expected = second(functional.gelu(first(states.double())))
    found = feed_forward(states, first, second)
    tolerance = {"atol": 1e-12, "rtol": 1e-12} if dtype == torch.float64 else {"atol": 0.1, "rtol": 0.03}
    torch.testing.assert_close(found.double(), expected, **tolerance)
    for one, other in zip(
        torch.autograd.grad(found, tensors, weights),
        torch.autograd.grad(expected, tensors, weights.double()),
        strict=True,
    ):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("query_rows", [1, 6])
def test_attention_equals_the_library_s(query_rows: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(6, rows, 8, requires_grad=True) for rows in (query_rows, 6, 6)]
    hidden = torch.tensor([[0.0] * 6, [0.0] * 4 + [-1e30] * 2])
    shaped = [x.view(2, 3, -1, 8) for x in inputs]
    expected = functional.scaled_dot_product_attention(*shaped, attn_mask=hidden[:, None, None])
    found = attention(*inputs, hidden, 0.0)
    torch.testing.assert_close(found, expected.reshape(found.shape), atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(found)
    ours = torch.autograd.grad((found * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected.reshape(found.shape) * weight).sum(), inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_attention_with_dropout_has_the_gradient_of_its_own_masks() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(3)]

    def repeated(*given: Tensor) -> Tensor:
        torch.manual_seed(5)
        return attention(*given, None, 0.3)

    torch.manual_seed(5)
    shares = torch.softmax(inputs[0] @ inputs[1].transpose(1, 2) / 2, -1)
    expected = (shares * Mask(shares, 0.3)(torch.ones_like(shares))) @ inputs[2]
    torch.testing.assert_close(repeated(*inputs), expected)
    ours = torch.autograd.grad(repeated(*inputs).pow(2).sum(), inputs)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.pow(2).sum(), inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_share_it_says_and_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1_000_003, dtype=dtype)
    found = dropout(x, 0.1)
    kept = (found != 0).double().mean().item()
    assert kept == pytest.approx(0.9, abs=5 * (0.09 / len(x)) ** 0.5)  # five standard errors
    assert set(found.unique().tolist()) == {0.0, torch.tensor(32768 / round(0.9 * 32768)).to(dtype).item()}
    # neighbours are independent
    alive = (found != 0).double() - kept
    assert (alive[1:] * alive[:-1]).mean().abs() < 5 * 0.09 / len(x) ** 0.5


def test_dropout_is_a_function_of_the_global_seed_and_its_gradient_of_the_mask() -> None:
    x, residual = torch.randn(50, 3, requires_grad=True), torch.randn(50, 3, requires_grad=True)
    torch.manual_seed(3)
    first = dropout_add(x, residual, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout_add(x, residual, 0.5), first)
    assert not torch.equal(dropout_add(x, residual, 0.5), first)
    of_x, of_residual = torch.autograd.grad(first.sum(), (x, residual))
    torch.testing.assert_close(x * of_x + residual, first)
    assert torch.equal(of_residual, torch.ones_like(residual))


def test_frozen_words_get_no_gradient(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    model.bert.embeddings.word_embeddings.requires_grad_(False)
    assert speed_up(model, own_gradient=True)
    model(input_ids=IDS, attention_mask=MASK).logits.sum().backward()
    assert model.bert.embeddings.word_embeddings.weight.grad is None
    assert model.classifier.weight.grad.any()


def test_hooks_inside_the_encoder_are_heard(folder: Path) -> None:
    _, fast = classifiers(folder)
    heard = []
    fast.bert.encoder.layer[0].register_forward_hook(lambda *_: heard.append(1))
    fast(input_ids=IDS, attention_mask=MASK)
    assert heard


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias

    def forward(self, states: Tensor) -> Tensor:
        return 2 * self.base(states)  # type: ignore[no-any-return]  # a shift would be lost in the layer norm


def test_an_adapter_in_place_of_a_layer_is_asked(folder: Path) -> None:
    stock, fast = classifiers(folder)
    for model in (stock, fast):
        part = model.bert.encoder.layer[0].output
        part.dense = Adapted(part.dense)
    expected = stock(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(fast(input_ids=IDS, attention_mask=MASK).logits, expected)


def test_what_the_pass_does_not_know_goes_to_the_library(folder: Path) -> None:
    stock, fast = classifiers(folder)
    states = fast(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    assert len(states) == len(stock(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states)
    assert not speed_up(AutoModel.from_pretrained(tiny_model_dir(folder.parent / "other", family="distilbert")))


def test_a_stock_trainer_ends_in_the_same_weights(tmp_path: Path) -> None:
    folder = tiny_model_dir(tmp_path / "model", dropout=0.0)
    rows = [{"input_ids": [2, 9 + n % 5, 12 + n % 3, 3], "labels": n % 2} for n in range(24)]

    def trained(*, fast: bool) -> Tensor:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        nn.init.constant_(model.classifier.weight, 0.02)
        assert not fast or speed_up(model)
        quiet: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        args = TrainingArguments(str(tmp_path), num_train_epochs=2, learning_rate=1e-3, **quiet)
        collator = DataCollatorWithPadding(tiny_tokenizer())
        Trainer(model, args, train_dataset=rows, data_collator=collator).train()
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    torch.testing.assert_close(trained(fast=True), trained(fast=False), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("p", [1e-9, 1 - 1e-9])
def test_dropout_at_the_ends_of_its_range(p: float) -> None:
    kept = (dropout(torch.ones(100_000), p) != 0).double().mean().item()
    assert kept == pytest.approx(1 - p, abs=1e-3)
