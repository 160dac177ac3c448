"""Heads with hidden layers and the sigmoid outputs, against hand algebra and a plain torch construction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf, expit
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, pipeline
from transformers.activations import ACT2FN

from nlptrain.config.heads import ENCODER_ACTIVATIONS
from nlptrain.config.schema import ModelConfig
from nlptrain.errors import ConfigError
from nlptrain.models.build import build
from nlptrain.models.heads import ACTIVATIONS, LinearHead, MLPHead, bounded, logit_of, pair_features, two_logits
from nlptrain.models.target import TargetScale
from nlptrain.tasks import TASKS
from tests.tiny import built, tiny_model_dir

REFERENCE: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "gelu": lambda a: a * (1 + erf(a / np.sqrt(2))) / 2,
    "tanh": np.tanh,
    "sigmoid": expit,
}
MODULES = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
PAIRS = [{"text": "good film", "text_pair": "this is a very good story"}, {"text": "the dog eats", "text_pair": "no"}]
HEADS = [None, {"hidden": [8], "activation": "tanh"}, {"hidden": [16, 4], "activation": "leaky_relu", "skip": True}]


def scaled_up(head: nn.Module) -> dict[str, NDArray[Any]]:
    """Weights of a size at which an activation bends, none of them 0; and the same for numpy."""
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.7)
    return {name: p.detach().double().numpy() for name, p in head.named_parameters()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_with_skip_is_w2_phi_of_w1_x_plus_ws_x(activation: str) -> None:
    head = MLPHead(5, 1, 3, 0.0, widths=[4], activation=activation, skip=True)
    w, x = scaled_up(head), torch.randn(7, 5)
    inner = REFERENCE[activation](x.numpy() @ w["layers.0.weight"].T + w["layers.0.bias"])
    expected = inner @ w["output.weight"].T + w["output.bias"] + x.numpy() @ w["skip.weight"].T
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_deep_head_on_a_pair_is_the_sequential_of_its_layers(activation: str) -> None:
    head = MLPHead(5, 2, 2, 0.0, widths=[6, 3], activation=activation)
    scaled_up(head)
    phi = MODULES[activation]()
    plain = nn.Sequential(nn.Linear(20, 6), phi, nn.Linear(6, 3), phi, nn.Linear(3, 2))
    for parameter, value in zip(plain.parameters(), head.parameters(), strict=True):
        parameter.data = value.data
    u, v = torch.randn(4, 5), torch.randn(4, 5)
    torch.testing.assert_close(head(u, v), plain(pair_features(u, v)), atol=1e-6, rtol=1e-6)


def test_dropout_hides_the_same_features_from_both_ways() -> None:
    head = MLPHead(64, 1, 64, 0.5, widths=[64], activation="relu", skip=True)
    for layer in (head.layers[0], head.output, head.skip):
        nn.init.eye_(layer.weight)
    head.eval()
    x = torch.rand(200, 64)
    torch.testing.assert_close(head(x), 2 * x)
    head.train()
    ways = (head(x) / x).round().long()
    # 0 where dropped before; else 2 by the skip, and 4 or 0 by the hidden layer
    assert set(ways.unique().tolist()) == {0, 2, 6}
    assert (ways == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_hidden_layers_start_as_glorot_and_the_output_small() -> None:
    head = MLPHead(300, 1, 50, 0.0, widths=[200], skip=True)
    stds = [head.layers[0].weight.std().item(), head.output.weight.std().item(), head.skip.weight.std().item()]
    assert stds == pytest.approx([(2 / 500) ** 0.5, 0.02, 0.02], rel=0.05)
    assert not any(value.any() for name, value in head.named_parameters() if name.endswith("bias"))


def test_a_linear_head_draws_and_holds_what_it_always_did() -> None:
    torch.manual_seed(3)
    head = LinearHead(6, 1, 2, 0.0)
    torch.manual_seed(3)
    plain = nn.Linear(6, 2)
    nn.init.normal_(plain.weight, std=0.02)
    assert list(head.state_dict()) == ["linear.weight", "linear.bias"]
    assert torch.equal(head.linear.weight, plain.weight)


@pytest.mark.parametrize("arguments", [{"widths": []}, {"widths": [4, 0]}, {"widths": [4], "activation": "swish"}])
def test_head_refuses_no_layers_no_width_and_an_unknown_activation(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="widths of at least 1"):
        MLPHead(5, 1, 2, 0.0, **arguments)


def test_cross_entropy_of_two_logits_is_that_of_the_sigmoid_with_its_gradient() -> None:
    z, labels = torch.linspace(-30, 30, 61).unsqueeze(1), torch.arange(61) % 2
    one, two = z.clone().requires_grad_(), z.clone().requires_grad_()
    ours = functional.cross_entropy(two_logits(one), labels, reduction="none")
    theirs = functional.binary_cross_entropy_with_logits(two.squeeze(1), labels.float(), reduction="none")
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.0, 5.0), (1.0, 10.0), (-1.0, 1.0), (0.1, 0.7), (-3e4, 7e4)])
def test_bounded_scores_never_leave_the_range_and_are_the_scaled_sigmoid(low: float, high: float) -> None:
    z = torch.cat([torch.linspace(-200, 200, 4001), torch.randn(100_000)])
    found = bounded(z, low, high)
    assert (found.min(), found.max()) == (torch.tensor(low), torch.tensor(high))
    np.testing.assert_allclose(found.numpy(), low + (high - low) * expit(z.double().numpy()), atol=1e-6 * (high - low))
    start = bounded(torch.tensor([logit_of(low + 0.3 * (high - low), low, high)]), low, high)
    assert start.item() == pytest.approx(low + 0.3 * (high - low), rel=1e-5, abs=1e-6 * (high - low))


@pytest.mark.parametrize("head", HEADS, ids=["linear", "mlp", "skip"])
@pytest.mark.parametrize(
    ("task", "architecture", "output"),
    [
        ("mrpc", "cross_encoder", "linear"),
        ("mrpc", "bi_encoder", "softmax"),
        ("mrpc", "cross_encoder", "sigmoid"),
        ("stsb", "bi_encoder", "linear"),
        ("stsb", "cross_encoder", "sigmoid"),
    ],
)
def test_a_saved_model_comes_back_and_pipeline_answers_as_it_does(
    tmp_path: Path, task: str, architecture: str, output: str, head: Any
) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), task, architecture=architecture, output=output, head=head)
    for name, parameter in model.head.named_parameters():
        nn.init.normal_(parameter, std=0.5 if name.endswith("weight") else 0.1)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "run")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    batch = tokenizer(
        *([pair[key] for pair in PAIRS] for key in ("text", "text_pair")), padding=True, return_tensors="pt"
    )
    before = model.eval()(**batch).logits
    torch.testing.assert_close(loaded(**batch).logits, before, atol=1e-6, rtol=1e-6)
    answers: Any = pipeline("text-classification", model=str(tmp_path / "run"))(PAIRS, top_k=None)
    expected = before if task == "stsb" else before.softmax(-1)
    for row, found in zip(expected.tolist(), answers, strict=True):
        scores = {entry["label"]: entry["score"] for entry in found}
        assert [scores[label] for label in TASKS[task].labels or ["score"]] == pytest.approx(row, abs=1e-5)


def test_a_sigmoid_has_one_logit_and_is_what_pipeline_says_of_the_second_class(tmp_path: Path) -> None:
    model, tokenizer = built(tiny_model_dir(tmp_path), "sst2", output="sigmoid")
    assert model.head.linear.out_features == 1
    batch = tokenizer(["good film", "bad"], padding=True, return_tensors="pt")
    logits = model.eval()(**batch).logits
    z = model.head(*model.embed(**{"token_type_ids": None, **batch}))
    assert torch.equal(logits, torch.cat([torch.zeros_like(z), z], 1))
    torch.testing.assert_close(logits.softmax(-1)[:, 1:], z.sigmoid())


def test_a_bounded_regression_starts_at_the_mean_and_learns_in_the_unit_of_the_scores(tmp_path: Path) -> None:
    target = TargetScale(mean=4.0, scale=1.2, low=0.0, high=5.0)
    settings = ModelConfig(output="sigmoid", dropout=0.0)
    model, tokenizer = build(str(tiny_model_dir(tmp_path)), settings, TASKS["stsb"], None, target)
    batch = tokenizer(["good film"] * 3, ["bad"] * 3, return_tensors="pt")
    labels = torch.tensor([0.0, 3.0, 5.0])
    found = model(**batch, labels=labels)
    assert (model.config.target_low, model.config.target_high) == (0.0, 5.0)
    assert found.logits.squeeze(1).tolist() == pytest.approx([4.0] * 3, abs=0.3)
    expected = ((found.logits.squeeze(1) - labels) / 1.2).square().mean()
    torch.testing.assert_close(found.loss, expected)


def test_sigmoid_refuses_more_classes_and_a_regression_without_a_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two classes apart; task 'mnli' has 3"):
        built(tmp_path, "mnli", output="sigmoid")
    with pytest.raises(ConfigError, match="softmax is for classes"):
        built(tmp_path, "stsb", output="softmax")


def test_the_table_of_activations_is_the_librarys_but_for_those_with_weights() -> None:
    assert set(ENCODER_ACTIVATIONS) == {name for name in ACT2FN if not list(ACT2FN[name].parameters())}


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("architecture", ["stock", "cross_encoder"])
def test_hidden_act_reaches_the_encoder_which_is_then_random_and_seeded(
    tmp_path: Path, family: Any, architecture: str
) -> None:
    folder = tiny_model_dir(tmp_path, family=family, dropout=0.0)
    pretrained = built(folder, "sst2", architecture=architecture)[0].base_model.state_dict()
    made = []
    for seed, act in ((1, "relu"), (1, "relu"), (2, None)):
        torch.manual_seed(seed)
        model, tokenizer = built(folder, "sst2", architecture=architecture, pretrained=False, hidden_act=act)
        made.append(model)
    states = [model.state_dict() for model in made]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    for name, value in made[0].base_model.state_dict().items():
        if value.ndim == 2:
            assert not torch.equal(value, pretrained[name])
            assert value.std().item() == pytest.approx(0.02, rel=0.15)
        assert value.dtype == torch.float32
    # the same weights under another activation give something else
    batch = tokenizer(["good film"], return_tensors="pt")
    made[2].load_state_dict(states[0])
    assert not torch.allclose(made[2].eval()(**batch).logits, made[0].eval()(**batch).logits, atol=1e-9)
    made[0].save_pretrained(tmp_path / "run")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(again(**batch).logits, made[0](**batch).logits)
