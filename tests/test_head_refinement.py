"""HeadRefinement under a stock Trainer with a stock model: the optimum of scikit-learn, guarded, resumed, shared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForSequenceClassification, TrainerCallback

from nlptrain.callbacks import HeadRefinement
from tests.command_line import Done
from tests.noisy import write_card
from tests.test_distributed import PROGRAM, TORCHRUN, launch
from tests.test_embedding_normalization import FAMILIES, difference, features, rows, stock, trained, trainer

L2 = 0.05
TRAIN = rows(24)


def longer(found: list[dict[str, Any]], *, turned: bool = False) -> list[dict[str, Any]]:
    """Other rows, and yet like these: the last token twice; with the other label where it is turned."""
    return [
        {
            "input_ids": torch.cat([row["input_ids"], row["input_ids"][-1:]]),
            "attention_mask": torch.ones(9, dtype=torch.int64),
            "labels": row["labels"] ^ turned,
        }
        for row in found
    ]


def margins(model: Any) -> np.ndarray:
    """Logit of class 1 minus that of class 0 of the training rows, from the head's own weights."""
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    weight, bias = (part.detach().double().numpy() for part in (head.weight, head.bias))
    return features(model) @ (weight[1] - weight[0]) + bias[1] - bias[0]


def theirs(model: Any, data: list[dict[str, Any]] = TRAIN) -> np.ndarray:
    """The same of the logistic regression of scikit-learn on the features of the rows."""
    x = StandardScaler().fit_transform(features(model))
    y = np.array([row["labels"] for row in data])
    # two logits, w and -w, have the length of their difference over sqrt(2)
    return LogisticRegression(C=2 / (len(y) * L2), solver="newton-cholesky", tol=1e-10).fit(x, y).decision_function(x)


class Start(TrainerCallback):
    """The model before the first step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not hasattr(self, "weights"):
            self.margins, self.expected = margins(model), theirs(model)
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_training_starts_from_the_head_scikit_learn_finds_and_goes_on_as_usual(tmp_path: Path, family: str) -> None:
    start = Start()
    refined = trained(tmp_path / "a", HeadRefinement(before=True, l2=L2), start, model=stock(family))
    np.testing.assert_allclose(start.margins, start.expected, atol=1e-4)
    # the same head put there by hand: no random number was drawn and every mode is what it was
    model = stock(family)
    model.load_state_dict(start.weights)
    assert difference(trained(tmp_path / "b", model=model).model, refined.model) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_embedding_the_last_two_layers_end_where_autograd_finds_no_slope(tmp_path: Path, family: str) -> None:
    start, before = Start(), stock(family)
    found = HeadRefinement(before=True, part="embedding", l2=L2)
    trained(tmp_path, found, start, model=stock(family), max_steps=1)
    before.load_state_dict(start.weights)
    made, last = [layer for layer in before.modules() if isinstance(layer, torch.nn.Linear)][-2:]
    seen: list[torch.Tensor] = []
    with made.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().double())):
        features(before)
    x, y = (seen[0] - seen[0].mean(0)) / seen[0].std(0, correction=0), torch.tensor([row["labels"] for row in TRAIN])
    w1 = (made.weight.detach().double() * seen[0].std(0, correction=0)).requires_grad_()
    b1 = (made.bias + made.weight @ seen[0].mean(0).float()).detach().double().requires_grad_()
    w2, b2 = (part.detach().double().requires_grad_() for part in (last.weight, last.bias))
    bend = torch.relu if family == "distilbert" else torch.tanh
    loss = torch.nn.functional.cross_entropy(bend(x @ w1.T + b1) @ w2.T + b2, y) + L2 / 2 * (w1**2).sum()
    (loss + L2 / 2 * (w2**2).sum()).backward()
    assert max(float(part.grad.abs().max()) for part in (w1, b1, w2, b2)) < 1e-5
    assert found.record_["before"]["certificate"]["converged"]
    whole = stock(family).state_dict().items()
    assert sum(not torch.equal(value, start.weights[name]) for name, value in whole) == 4


def test_the_best_model_is_refined_after_training_where_the_guard_agrees(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}
    best |= {"save_steps": 2, "learning_rate": 1e-4}
    plain = trained(tmp_path / "a", **best)
    found = HeadRefinement(after=True, guard=longer(TRAIN), l2=L2, proximal=False)
    refined = trained(tmp_path / "b", found, **best)
    assert found.record_["after"]["decision"]["accepted"]
    assert found.record_["after"]["decision"]["rows"] == found.record_["after"]["certificate"]["rows"] == 24
    np.testing.assert_allclose(margins(refined.model), theirs(refined.model), atol=1e-4)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, refined.model.state_dict()[name]) == ("classifier" not in name)


def test_a_guard_that_finds_it_worse_leaves_every_bit(tmp_path: Path) -> None:
    plain = trained(tmp_path / "a")
    found = HeadRefinement(after=True, guard=longer(TRAIN, turned=True), l2=1e-3, proximal=False)
    refined = trained(tmp_path / "b", found)
    assert not found.record_["after"]["decision"]["accepted"]
    certificate = found.record_["after"]["certificate"]
    assert certificate["objective_after"] < certificate["objective_before"]
    assert difference(plain.model, refined.model) == 0


def test_a_resumed_run_fits_nothing_before_it(tmp_path: Path) -> None:
    def callback() -> HeadRefinement:
        return HeadRefinement(before=True, l2=L2)

    whole = trained(tmp_path / "a", callback(), save_strategy="steps", save_steps=3)
    again = trainer(tmp_path / "b", found := callback())
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert found.record_["before"] is None
    assert difference(whole.model, again.model) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs before=True, after=True, or both"),
        ({"after": True}, "labelled rows that are used for nothing else"),
        ({"after": True, "guard": TRAIN, "metric": "acuracy"}, "metric must be one of accuracy"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadRefinement(**arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"after": True, "guard": rows(30)[10:]}, {}, "the guard's rows must be used for nothing else, found 14"),
        ({"after": True, "guard": rows(9, 3), "rows": rows(4, 3)}, {}, "must be used for nothing else, found 4"),
        ({"before": True, "method": "neuton"}, {}, "newton"),
        ({"before": True}, {"data": Dataset.from_list(TRAIN).to_iterable_dataset()}, "found a stream"),
    ],
)
def test_what_is_not_possible_is_refused_before_the_first_step(
    tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    made = trainer(tmp_path, HeadRefinement(**arguments), **options)
    with pytest.raises(ValueError, match=message):
        made.train()
    assert made.state.global_step == 0


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_refine_as_one(nlptrain: Callable[..., Done], tmp_path: Path) -> None:
    # 101 rows of the fit: one process has a batch less
    card = write_card(tmp_path, rows=400)
    words = ["refine.when=[before, after]", "refine.calibrate=true", "refine.held_out=0.5", "refine.l2=0.1"]
    words += ["training.learning_rate=1e-15", "training.per_device_eval_batch_size=8", "training.bf16=false"]
    one, two = tmp_path / "one", tmp_path / "two"
    single = nlptrain("train", card, *words, f"training.output_dir={one}")
    assert single.code == 0, single.err
    done = launch(
        *TORCHRUN, PROGRAM, card, *words, f"training.output_dir={two}", "training.per_device_train_batch_size=4"
    )
    assert done.code == 0, done.err
    ours, others = (json.loads((run / "results.json").read_text())["refinement"] for run in (one, two))
    for when in ("before", "after"):
        for name in ("rows", "l2", "iterations"):
            assert others[when]["certificate"][name] == ours[when]["certificate"][name]
    assert others["after"]["decision"]["accepted"] == ours["after"]["decision"]["accepted"]
    assert others["calibration"]["temperature"] == pytest.approx(ours["calibration"]["temperature"], rel=1e-4)
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    for name in ("head.linear.weight", "head.linear.bias"):
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=1e-5, rtol=0)
    # never gathered to one process
    parts = sorted((two / "refine" / "features").glob("fit.*"))
    sizes = [len(load_file(part)["places"]) for part in parts]
    assert len(sizes) == 2
    assert min(sizes) > 0
    assert sum(sizes) == ours["after"]["certificate"]["rows"]
    again = launch(*TORCHRUN, "-m", "nlptrain", "refine", two, "refine.l2=1", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["refinement"]["after"]["certificate"]["l2"] == 1
    assert AutoModelForSequenceClassification.from_pretrained(two / "model").config.temperature > 0
