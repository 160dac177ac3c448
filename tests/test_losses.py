"""Each loss against torch or its formula, and one mean over a step's rows however the step is divided."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.linear_model import LinearRegression
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

from nlptrain.config.load import check
from nlptrain.config.parts import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, LossConfig
from nlptrain.config.schema import Config
from nlptrain.data.balance import class_weights
from nlptrain.errors import ConfigError
from nlptrain.models.loss import LOSSES, Loss
from nlptrain.models.objective import fit_cosine, hold_cosine
from tests.command_line import Done, sentences, write_csv
from tests.test_traps import SCORE, SENTIMENT, gradients
from tests.tiny import TARGET, built, tiny_model_dir, tiny_tokenizer

CLASSES = torch.tensor([0, 1, 1, 2, 0, 2, 2])
LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SCORES = torch.tensor([1.0, 4.5, 3.0, 3.0, 0.0, 5.0, 2.5], dtype=torch.float64)
FOUND = torch.randn(7, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 2.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("tiny"), dropout=0.0)


def cosent(cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The published formula, pair by pair."""
    total = torch.ones((), dtype=cosines.dtype)
    for i, high in enumerate(labels):
        for j, low in enumerate(labels):
            if high > low:
                total = total + torch.exp(20 * (cosines[j] - cosines[i]))
    return total.log()


def mean(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return loss({"logits": logits}, labels)


def test_cross_entropy_is_torchs() -> None:
    expected = functional.cross_entropy(LOGITS, CLASSES, label_smoothing=0.3)
    torch.testing.assert_close(mean(Loss("cross_entropy", label_smoothing=0.3), LOGITS, CLASSES), expected)


def test_bce_is_torchs_on_the_difference_of_the_logits_and_the_cross_entropy_of_two_classes() -> None:
    two, labels = LOGITS[:, :2], CLASSES % 2
    found = mean(Loss("bce"), two, labels)
    torch.testing.assert_close(
        found, functional.binary_cross_entropy_with_logits(two[:, 1] - two[:, 0], labels.double())
    )
    torch.testing.assert_close(found, functional.cross_entropy(two, labels))
    with pytest.raises(ValueError, match=r"two classes, found 3.*softmax"):
        mean(Loss("bce"), LOGITS, CLASSES)


def test_mse_and_huber_are_torchs_in_units_of_the_scale() -> None:
    found, truth = FOUND.squeeze(-1) / 1.7, SCORES / 1.7
    torch.testing.assert_close(mean(Loss("mse", scale=1.7), FOUND, SCORES), functional.mse_loss(found, truth))
    expected = functional.huber_loss(found, truth, delta=0.4)
    torch.testing.assert_close(mean(Loss("huber", scale=1.7, delta=0.4), FOUND, SCORES), expected)


def test_cosent_is_the_published_sum_over_pairs() -> None:
    cosines = 0.1 * torch.tanh(FOUND - 2.5)
    expected = cosent(cosines.squeeze(-1), SCORES)
    torch.testing.assert_close(mean(Loss("cosent"), cosines, SCORES), expected)
    # on any line of the cosine
    torch.testing.assert_close(mean(Loss("cosent", scale=5.0), 5 * cosines + 1, SCORES), expected)
    for labels in (SCORES[:1], torch.full((4,), 2.0, dtype=torch.float64)):
        assert mean(Loss("cosent"), cosines[: len(labels)], labels).item() == 0


def test_cosent_does_not_overflow() -> None:
    cosines, labels = torch.tensor([[-1.0], [1.0], [-1.0]]), torch.tensor([2.0, 1.0, 2.0])
    found = mean(Loss("cosent", inverse_temperature=1000), cosines, labels)
    assert found.item() == pytest.approx(2000 + math.log(2))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, labels = (LOGITS[:, :2], CLASSES % 2) if name in CLASSIFICATION_LOSSES else (FOUND, SCORES)
    weights = [0.5, 2.0] if name in CLASSIFICATION_LOSSES else None
    loss = Loss(name, class_weights=weights)
    assert torch.autograd.gradcheck(lambda x: mean(loss, x, labels), logits.clone().requires_grad_())


def test_gradient_of_cosent_is_that_of_the_pairs() -> None:
    first, second = ((0.1 * torch.tanh(FOUND - 2.5)).requires_grad_() for _ in range(2))
    mean(Loss("cosent"), first, SCORES).backward()
    cosent(second.squeeze(-1), SCORES).backward()
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kept", [0, 5])
def test_a_row_that_does_not_count_changes_neither_loss_nor_gradient(name: str, kept: int) -> None:
    classification = name in CLASSIFICATION_LOSSES
    logits = (LOGITS[:, :2] if classification else FOUND).clone().requires_grad_()
    labels = CLASSES % 2 if classification else SCORES.clone()
    labels[kept:] = -100 if classification else float("nan")
    found = Loss(name)({"logits": logits}, labels, num_items_in_batch=10)
    found.backward()
    rows = Loss(name)({"logits": logits[:kept]}, labels[:kept], num_items_in_batch=10)
    torch.testing.assert_close(found, rows)
    assert not logits.grad[kept:].any()


def test_a_weighted_row_counts_as_so_many_rows() -> None:
    loss = Loss("cross_entropy", class_weights=[1, 2, 3], label_smoothing=0.1)
    repeated = CLASSES.repeat_interleave(CLASSES + 1), LOGITS.repeat_interleave(CLASSES + 1, dim=0)
    expected = functional.cross_entropy(repeated[1], repeated[0], reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(mean(loss, LOGITS, CLASSES) * len(CLASSES), expected)


def test_balanced_weights_are_scikit_learns_and_give_torchs_loss_of_all_rows() -> None:
    counts = {str(one): int((one == CLASSES).sum()) for one in range(3)}
    found = list(class_weights("balanced", counts).values())
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=CLASSES.numpy()))
    for weights in (found, list(class_weights({"0": 4.0, "1": 1.0, "2": 0.5}, counts).values())):
        expected = functional.cross_entropy(LOGITS, CLASSES, weight=torch.tensor(weights, dtype=torch.float64))
        torch.testing.assert_close(mean(Loss("cross_entropy", class_weights=weights), LOGITS, CLASSES), expected)


def test_evaluation_leaves_weights_and_smoothing_out() -> None:
    loss = Loss("cross_entropy", class_weights=[1, 2, 3], label_smoothing=0.1)
    assert loss.evaluation(LOGITS, CLASSES) == pytest.approx(functional.cross_entropy(LOGITS, CLASSES).item())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "hubber"}, "did you mean 'huber'"),
        ({"name": "huber", "delta": 0.0}, "delta must be a finite number above 0"),
        ({"name": "huber", "margin": 1.0}, "it has scale, delta"),
        ({"name": "cross_entropy", "label_smoothing": 1.0}, r"in \[0, 1\)"),
        ({"name": "cross_entropy", "class_weights": [1, -1]}, "above 0, found -1"),
        ({"name": "mse", "class_weights": [1, 1]}, "for a classification"),
    ],
)
def test_a_wrong_loss_is_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Loss(**arguments)


@pytest.mark.parametrize(
    "loss",
    [
        Loss("cross_entropy", class_weights=[0.3, 3.0], label_smoothing=0.1),
        Loss("bce", class_weights=[0.3, 3.0]),
        Loss("huber", scale=2.0, delta=0.5),
    ],
    ids=lambda loss: loss.name,
)
def test_accumulation_changes_no_gradient_not_even_of_a_partial_window(
    folder: Path, tmp_path: Path, loss: Loss
) -> None:
    common = {"task": SCORE if loss.name in REGRESSION_LOSSES else SENTIMENT, "loss": loss, "rows": 44}
    whole = gradients(folder, tmp_path, per_device_train_batch_size=32, **common)
    parts = gradients(folder, tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=4, **common)
    assert whole.shape[0] == 2
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_parts_of_a_step_weigh_by_their_rows_and_cosent_makes_no_pair_across_them() -> None:
    cosines = 0.1 * torch.tanh(FOUND - 2.5)
    parts = [
        Loss("cosent")({"logits": cosines[rows]}, SCORES[rows], num_items_in_batch=7)
        for rows in (slice(0, 5), slice(5, 7))
    ]
    expected = (5 * cosent(cosines[:5, 0], SCORES[:5]) + 2 * cosent(cosines[5:, 0], SCORES[5:])) / 7
    torch.testing.assert_close(sum(parts), expected)


@pytest.mark.parametrize(
    "loss", [Loss("cross_entropy", class_weights=[0.5, 4.0]), Loss("huber", delta=0.5)], ids=lambda loss: loss.name
)
def test_a_stock_trainer_with_a_stock_model(tmp_path: Path, folder: Path, loss: Loss) -> None:
    """Two steps of SGD, the second of a partial window, against the same by hand."""
    tokenizer, regression = tiny_tokenizer(), loss.name == "huber"
    labels = [i / 3 if regression else int(i % 3 == 0) for i in range(11)]
    rows = Dataset.from_dict({**tokenizer([" ".join(["good", "film", "dog"] * (1 + i % 4)) for i in range(11)])})
    rows = rows.add_column("labels", labels)
    weights = []
    for size, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1 if regression else 2)
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            learning_rate=0.1,
            optim="sgd",
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        by_hand = _by_hand(model, rows, loss, tokenizer)
        Trainer(
            model, arguments, DataCollatorWithPadding(tokenizer), train_dataset=rows, compute_loss_func=loss
        ).train()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], by_hand, rtol=0, atol=1e-6)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def _by_hand(model: Any, rows: Dataset, loss: Loss, tokenizer: Any) -> torch.Tensor:
    """The weights after the two steps by torch's own losses; `model` is left as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for window in (range(8), range(8, 11)):
        batch = DataCollatorWithPadding(tokenizer)([rows[i] for i in window])
        labels = batch.pop("labels")
        logits = model(**batch).logits
        if loss.name == "huber":
            value = functional.huber_loss(logits.squeeze(-1), labels, delta=0.5)
        else:
            weight = torch.tensor(loss.class_weights)
            value = functional.cross_entropy(logits, labels, weight=weight, reduction="sum") / len(labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    found = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    model.load_state_dict(before)
    return found


@pytest.mark.parametrize(("lowest", "mapped"), [(0, lambda y: y / 5), (-1, lambda y: 2 * y / 5 - 1)])
def test_cosine_mse_is_the_squared_error_of_the_cosine_to_the_mapped_score(
    folder: Path, lowest: int, mapped: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    model, tokenizer = built(folder, "stsb", architecture="bi_encoder", output="cosine", dropout=0.0)
    hold_cosine(model, TARGET, lowest)
    batch = tokenizer(["good film", "a", "no"], ["the dog", "one", "two"], padding=True, return_tensors="pt")
    labels = torch.tensor([0.0, 1.0, 5.0])
    expected = functional.mse_loss(functional.cosine_similarity(*model.embed(**batch)), mapped(labels))
    found = mean(Loss("cosine_mse", scale=5 / (1 - lowest)), model(**batch).logits, labels)
    torch.testing.assert_close(found, expected)
    assert not any(parameter.requires_grad for parameter in model.head.parameters())


def test_the_line_of_a_ranking_loss_is_fitted_by_least_squares(folder: Path) -> None:
    model, tokenizer = built(folder, "stsb", architecture="bi_encoder", output="cosine", dropout=0.0)
    hold_cosine(model, TARGET, 0)
    batch = tokenizer(["good film", "a", "no"], ["the dog", "one", "two"], padding=True, return_tensors="pt")
    before, labels = model(**batch).logits.squeeze(-1).detach().double().numpy(), np.array([1.0, 0.5, 4.0])
    fit_cosine(model, before, labels)
    fitted = LinearRegression().fit(before[:, None], labels).predict(before[:, None])
    np.testing.assert_allclose(model(**batch).logits.squeeze(-1).detach().numpy(), fitted, atol=1e-4)


def test_the_table_is_the_one_of_the_configuration() -> None:
    names = get_args(get_args(LossConfig.model_fields["name"].annotation)[0])
    assert set(LOSSES) == set(names) == {*CLASSIFICATION_LOSSES, *REGRESSION_LOSSES}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"task": "sst2", "loss": {"name": "mse"}}, "not for classification; one of cross_entropy, bce"),
        ({"task": "stsb", "loss": {"name": "bce"}}, "not for regression; one of mse, huber"),
        ({"task": "stsb", "loss": {"name": "huber", "delta": 0.0}}, "greater than 0"),
        ({"task": "stsb", "loss": {"delta": 1.0}}, "delta belongs to name: huber"),
        ({"task": "stsb", "loss": {"name": "cosent", "lowest_cosine": -1}}, "belongs to name: cosine_mse"),
        ({"task": "stsb", "loss": {"name": "cosent"}}, "needs model.architecture bi_encoder and model.output cosine"),
        ({"task": "stsb", "loss": {"class_weights": "balanced"}}, "for classification; task 'stsb'"),
        ({"task": "stsb", "data": {"balance": "oversample"}}, "for classification; task 'stsb'"),
        ({"task": "sst2", "loss": {"class_weights": "balance"}}, "expected balanced, or a weight for each label"),
        ({"task": "sst2", "loss": {"class_weights": {"negative": 0}}}, "the weight of 'negative' must be"),
        (
            {"task": "sst2", "loss": {"class_weights": "balanced"}, "data": {"balance": "oversample"}},
            "both make up for rare classes",
        ),
        (
            {"task": "sst2", "loss": {"name": "bce"}, "training": {"label_smoothing_factor": 0.1}},
            "for loss cross_entropy, not for bce",
        ),
        ({"task": "stsb", "training": {"label_smoothing_factor": 0.1}}, "for loss cross_entropy, not for mse"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_clear_problem(document: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(document)
    (problem,) = caught.value.problems
    assert expected in problem


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": {"gradient_accumulation_steps": 4}}, "other pairs than those of one batch"),
        ({"task": {"kind": "regression", "text": ["a", "b"], "primary": "nmse"}}, "nmse cannot select"),
    ],
)
def test_cosent_is_refused_where_it_would_mislead(change: dict[str, Any], expected: str) -> None:
    cosine = {"task": "stsb", "model": {"architecture": "bi_encoder", "output": "cosine"}, "loss": {"name": "cosent"}}
    assert isinstance(check(cosine), Config)
    with pytest.raises(ConfigError, match=expected):
        check(cosine | change)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("{negative: 1, postive: 2}", "unknown label 'postive'; did you mean 'positive'"),
        ("{negative: 1}", "no weight for the label 'positive'"),
    ],
)
def test_weights_of_other_labels_than_the_tasks_end_check_and_train_before_a_model_loads(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, weights: str, expected: str
) -> None:
    for command in ("check", "train"):
        done = nlptrain(command, card, f"loss.class_weights={weights}", f"model.name={tmp_path}/nowhere")
        assert done.code == 2
        assert expected in done.err


def test_bce_of_three_classes_is_refused_before_a_model_loads(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path
) -> None:
    write_csv(tmp_path / "train.csv", [(text, str(n % 3)) for n, (text, _) in enumerate(sentences(120, 0))])
    words = ("task={name: words, kind: classification}", "data.test=null", f"model.name={tmp_path}/nowhere")
    done = nlptrain("check", card, *words, "loss.name=bce")
    assert done.code == 2
    assert "bce is for two classes, found 3" in done.err


@pytest.fixture
def rare(card: Path, tmp_path: Path) -> Path:
    """The experiment with four negative rows for each positive one."""
    write_csv(tmp_path / "train.csv", [row for n, row in enumerate(sentences(120, 0)) if n % 2 == 0 or n % 8 == 1])
    return card


def test_check_says_the_steps_that_a_run_with_oversampling_takes(nlptrain: Callable[..., Done], rare: Path) -> None:
    facts = json.loads(nlptrain("check", rare, "data.balance=oversample", "--json").out)
    assert facts["steps"]["rows_per_epoch"] == 2 * facts["data"]["train"]["labels"]["negative"]
    result = json.loads(nlptrain("train", rare, "data.balance=oversample", "--json").out)
    assert result["training"]["steps"] == facts["steps"]["total"] > 3 * math.ceil(facts["data"]["train"]["rows"] / 8)
    assert any(f"{facts['steps']['rows_per_epoch']} rows an epoch" in note for note in result["notes"])


def test_check_and_results_say_the_weights(nlptrain: Callable[..., Done], rare: Path) -> None:
    words = ("loss.class_weights=balanced", "training.max_steps=2")
    facts = json.loads(nlptrain("check", rare, *words, "--json").out)
    counts = facts["data"]["train"]["labels"]
    expected = {label: sum(counts.values()) / (2 * count) for label, count in counts.items()}
    assert counts["negative"] > 3 * counts["positive"]
    assert facts["loss"]["class_weights"] == pytest.approx(expected)
    assert f"positive {expected['positive']:.4g}" in nlptrain("check", rare, *words).out
    assert json.loads(nlptrain("train", rare, *words, "--json").out)["training"]["loss"] == facts["loss"]


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_a_run_with_each_classification_loss_learns(nlptrain: Callable[..., Done], card: Path, name: str) -> None:
    result = json.loads(nlptrain("train", card, f"loss.name={name}", "--json").out)
    assert result["training"]["loss"]["name"] == name
    assert result["metrics"]["test"]["accuracy"] > 0.9


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_a_run_with_each_regression_loss_learns_and_answers_in_the_users_unit(
    nlptrain: Callable[..., Done], card: Path, tmp_path: Path, name: str
) -> None:
    for split, count, seed in (("train", 160, 0), ("test", 40, 1)):
        seconds = ("bad", "good", "good")
        rows = [
            (text, seconds[n % 3], 60 if (label == "positive") == (seconds[n % 3] == "good") else 40)
            for n, (text, label) in enumerate(sentences(count, seed))
        ]
        write_csv(tmp_path / f"{split}.csv", rows, ("a", "b", "score"))
    text = card.read_text().replace("{name: words, kind: classification, labels: [negative, positive]}", "TASK")
    card.write_text(
        text.replace("TASK", "{name: pairs, kind: regression, text: [a, b], label: score, range: [0, 100]}")
    )
    words = ("model.architecture=bi_encoder", "training.num_train_epochs=8", "training.learning_rate=0.003")
    output = "model.output=cosine" if name.startswith("cos") else "model.output=linear"
    done = nlptrain("train", card, *words, output, f"loss.name={name}", "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]["test"]
    assert metrics["pearson"] > 0.7
    assert metrics["nmse"] < 0.6
    evaluated = json.loads(nlptrain("evaluate", tmp_path / "run", "--data", tmp_path / "test.csv", "--json").out)
    assert evaluated["metrics"] == pytest.approx(metrics, abs=1e-6)
