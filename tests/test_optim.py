"""Optimizers against hand algebra and torch's AdamW; groups against the models' own layout."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, Trainer

from nlptrain.errors import ConfigError
from nlptrain.optim import SGDW, AdagradW, RMSpropW, decay_counts, optimizer, parameter_groups
from nlptrain.optim.decoupled import DecoupledDecay

LR, WD = 0.1, 0.1
OF_TORCH = ["adam", "adamw", "rmsprop", "adagrad", "sgd"]
LAYERS = 3
SMALL = {"vocab_size": 40, "pad_token_id": 0, "num_labels": 2}
WIDE = {"hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 16}
SIZES: dict[str, dict[str, Any]] = {
    "bert": WIDE,
    "roberta": WIDE,
    "mpnet": WIDE,
    "modernbert": WIDE,
    "distilbert": {"dim": 16, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 16},
    "xlm": {"emb_dim": 16, "n_layers": LAYERS, "n_heads": 2, "n_langs": 1},
}
BASE, HEAD, FACTOR = 1e-3, 1e-2, 0.5
PLACES = [
    ("bert", "bert.embeddings.LayerNorm.weight", BASE * FACTOR**3),
    ("bert", "bert.encoder.layer.0.attention.self.query.weight", BASE * FACTOR**2),
    ("bert", "bert.encoder.layer.1.output.dense.bias", BASE * FACTOR),
    ("bert", "bert.encoder.layer.2.output.LayerNorm.weight", BASE),
    ("bert", "bert.pooler.dense.weight", BASE),
    ("bert", "classifier.weight", HEAD),
    ("distilbert", "distilbert.embeddings.word_embeddings.weight", BASE * FACTOR**3),
    ("distilbert", "distilbert.transformer.layer.0.ffn.lin1.weight", BASE * FACTOR**2),
    ("distilbert", "pre_classifier.bias", HEAD),
    ("roberta", "roberta.encoder.layer.1.output.dense.weight", BASE * FACTOR),
    ("modernbert", "model.layers.0.mlp.Wi.weight", BASE * FACTOR**2),
    ("modernbert", "model.final_norm.weight", BASE),
    ("mpnet", "mpnet.encoder.relative_attention_bias.weight", BASE * FACTOR**3),
    ("xlm", "transformer.attentions.0.q_lin.weight", BASE * FACTOR**2),
    ("xlm", "transformer.ffns.0.lin1.weight", BASE * FACTOR**2),
]


def model_of(family: str) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **SMALL, **SIZES[family]))


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return model_of("bert")


def weights(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer], gradients: list[float]) -> list[float]:
    """A weight that starts at 1, after each of `gradients`."""
    weight, found = nn.Parameter(torch.ones(1, dtype=torch.float64)), []
    used = build([weight])
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        used.step()
        found.append(weight.item())
    return found


def named(name: str, **settings: Any) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: optimizer(name, [{"params": parameters, "lr": LR, "weight_decay": WD}], **settings)


def updates(name: str, gradients: list[float]) -> list[float]:
    """What each step subtracts, by the definitions and with the table's defaults."""
    m = v = total = momentum = 0.0
    found = []
    for step, g in enumerate(gradients, start=1):
        m, v, total = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, total + g * g
        momentum = 0.9 * momentum + g
        mean_square = sum(0.01 * 0.99 ** (step - 1 - i) * old**2 for i, old in enumerate(gradients[:step]))
        adam = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
        rms, adagrad = g / (mean_square**0.5 + 1e-8), g / (total**0.5 + 1e-10)
        found.append({"adam": adam, "adamw": adam, "rmsprop": rms, "adagrad": adagrad, "sgd": momentum}[name])
    return found


@pytest.mark.parametrize("name", OF_TORCH)
def test_a_step_at_zero_gradient_is_the_decay_alone(name: str) -> None:
    assert weights(named(name), [0.0]) == pytest.approx([0.99], abs=1e-15)


@pytest.mark.parametrize("gradients", [[0.5], [0.5, 0.0, -2.0], [0.0, 0.0, 0.3]])
@pytest.mark.parametrize("name", OF_TORCH)
def test_steps_shrink_the_weight_and_subtract_the_plain_update(name: str, gradients: list[float]) -> None:
    expected, weight = [], 1.0
    for update in updates(name, gradients):
        weight = (1 - LR * WD) * weight - LR * update
        expected.append(weight)
    assert weights(named(name), gradients) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "expected"), [("rmsprop", 0.0), ("adagrad", 0.9), ("adam", 0.9), ("sgd", 0.99)])
def test_coupled_decay_is_the_classic_one(name: str, expected: float) -> None:
    assert weights(named(name, decoupled=False), [0.0]) == pytest.approx([expected], abs=1e-6)


def run(used: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        used.step()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def two_matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64)) for _ in range(2)]


class AdamByMixin(DecoupledDecay, torch.optim.Adam):
    """Adam as the other optimizers are decoupled; torch has its own."""


def test_the_mixin_makes_of_adam_bitwise_the_adamw_of_torch() -> None:
    ours, theirs = two_matrices(), two_matrices()
    found = run(AdamByMixin(ours, lr=LR, weight_decay=WD), ours)
    assert torch.equal(found, run(torch.optim.AdamW(theirs, lr=LR, weight_decay=WD), theirs))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_decoupled_adam_is_the_adamw_of_torch(name: str) -> None:
    ours, theirs = two_matrices(), two_matrices()
    found = run(named(name)(ours), ours)
    expected = run(torch.optim.AdamW(theirs, lr=LR, weight_decay=WD), theirs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_l2_of_adam_is_the_weight_decay_of_torchs_adam_and_spares_the_same_groups() -> None:
    (ours, bias), (theirs, other) = two_matrices(), two_matrices()
    parts = {"all/decay": ours, "all/no_decay": bias}
    groups = [{"name": name, "params": [p], "lr": LR, "weight_decay": 0.0} for name, p in parts.items()]
    expected = [{"params": [theirs], "weight_decay": 0.3}, {"params": [other]}]
    found = run(optimizer("adam", groups, l2=0.3), [ours, bias])
    torch.testing.assert_close(found, run(torch.optim.Adam(expected, lr=LR), [theirs, other]), rtol=0, atol=1e-12)


def test_a_closure_sees_the_weights_before_their_decay() -> None:
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    used = SGDW([weight], lr=LR, weight_decay=WD)

    def closure() -> float:
        used.zero_grad()
        loss = (weight**2 / 2).sum()
        loss.backward()
        return loss.item()

    assert used.step(closure) == 0.5
    assert weight.item() == pytest.approx((1 - LR * WD) - LR * 1.0, abs=1e-15)


def test_a_parameter_without_gradient_stays() -> None:
    with_gradient, without = two_matrices()
    before = without.detach().clone()
    with_gradient.grad = torch.zeros_like(with_gradient)
    RMSpropW([with_gradient, without], lr=LR, weight_decay=WD).step()
    assert torch.equal(without, before)


def test_hooks_are_called_once_a_step_also_after_a_plain_instance() -> None:
    torch.optim.Adagrad(two_matrices())
    parameters, calls = two_matrices(), []
    used = AdagradW(parameters, lr=LR, weight_decay=WD)
    used.register_step_pre_hook(lambda *_: calls.append(1))
    run(used, parameters, steps=2)
    assert calls == [1, 1]


def test_a_step_that_fails_keeps_the_decay_of_the_groups() -> None:
    parameters = two_matrices()
    used = RMSpropW(parameters, lr=LR, weight_decay=WD)
    parameters[0].grad = torch.zeros_like(parameters[0]).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        used.step()
    assert used.param_groups[0]["weight_decay"] == WD


def test_a_saved_optimizer_continues_bitwise() -> None:
    parameters = two_matrices()
    used = RMSpropW(parameters, lr=LR, weight_decay=WD)
    run(used, parameters, steps=4)
    others = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    again = RMSpropW(others, lr=1.0)
    again.load_state_dict(deepcopy(used.state_dict()))
    assert torch.equal(run(again, others), run(used, parameters))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adamx", {}, "unknown optimizer 'adamx'; did you mean adam"),
        ("sgd", {"momentun": 0.9}, "unknown setting 'momentun'; did you mean momentum"),
        ("rmsprop", {"lr": 1.0}, "unknown setting 'lr'; one of alpha, eps, momentum, centered"),
        ("rmsprop", {"momentum": -1.0}, "Invalid momentum value: -1.0"),
        ("adamw", {"decoupled": False}, "decoupled by definition"),
        ("adam", {"l2": 0.1}, "two kinds of decay"),
    ],
)
def test_what_an_optimizer_does_not_know_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named(name, **settings)(two_matrices())


def test_a_group_without_its_own_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="own lr"):
        optimizer("sgd", [{"params": two_matrices()}])


def groups_of(model: nn.Module, **settings: Any) -> list[dict[str, Any]]:
    return parameter_groups(model, **{"learning_rate": BASE, "weight_decay": WD, **settings})


@pytest.mark.parametrize("settings", [{}, {"layer_decay": FACTOR, "head_learning_rate": HEAD}], ids=["parts", "layers"])
@pytest.mark.parametrize("family", SIZES)
def test_groups_hold_every_trainable_parameter_once_and_decay_what_the_trainer_decays(
    family: str, settings: dict[str, Any]
) -> None:
    model = model_of(family)
    next(model.parameters()).requires_grad_(False)
    groups = groups_of(model, **settings)
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(trainable)
    decayed = {trainable[id(p)] for group in groups if group["weight_decay"] == WD for p in group["params"]}
    theirs = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    assert decayed == set(theirs) & set(trainable.values())


@pytest.mark.parametrize(("family", "name", "rate"), PLACES)
def test_rates_fall_geometrically_from_the_top_layer_to_the_embeddings(family: str, name: str, rate: float) -> None:
    model = model_of(family)
    wanted = model.get_parameter(name)
    groups = groups_of(model, layer_decay=FACTOR, head_learning_rate=HEAD)
    assert [g["lr"] for g in groups if any(p is wanted for p in g["params"])] == [pytest.approx(rate, rel=1e-12)]
    assert groups[0]["lr"] == BASE


def test_names_say_part_and_decay(bert: PreTrainedModel) -> None:
    names = {group["name"] for group in groups_of(bert, layer_decay=FACTOR)}
    parts = ["embeddings", *(f"encoder.layer.{n}" for n in range(LAYERS)), "encoder.top", "head"]
    assert names == {f"{part}/{kind}" for part in parts for kind in ("decay", "no_decay")}


def test_counts_are_those_of_the_weights_of_the_model(bert: PreTrainedModel) -> None:
    tables = sum(m.weight.numel() for m in bert.modules() if isinstance(m, nn.Embedding))
    linear = sum(m.weight.numel() for m in bert.modules() if isinstance(m, nn.Linear))
    everything = bert.num_parameters()
    assert decay_counts(groups_of(bert)) == (linear + tables, everything - linear - tables)
    assert decay_counts(groups_of(bert, decay_embeddings=False)) == (linear, everything - linear)


@pytest.mark.parametrize("name", OF_TORCH)
def test_biases_and_norms_do_not_move_at_zero_gradient(name: str) -> None:
    model = model_of("bert")
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    used = optimizer(name, groups_of(model))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    used.step()
    for key, parameter in model.named_parameters():
        spared = "bias" in key or "LayerNorm" in key
        torch.testing.assert_close(parameter.detach(), before[key] * (1 if spared else 1 - BASE * WD))


def test_norms_of_torch_are_spared_whatever_their_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.RMSNorm(2), nn.GroupNorm(1, 2))
    assert decay_counts(groups_of(model)).decayed == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_learning_rate": HEAD}, "no trainable head"),
        ({"layer_decay": FACTOR}, "no list of layers"),
        ({"layer_decay": 1.5}, "layer_decay: must be in .0, 1., found 1.5; the nearest valid value is 1"),
        ({"weight_decay": -1.0}, "weight_decay: must be a finite number >= 0, found -1.0"),
    ],
)
def test_rates_that_no_part_could_follow_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        groups_of(nn.Linear(2, 2), **settings)
