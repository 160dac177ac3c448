"""Tags to token labels and back, the models that score tokens, and the loss and order of a real Trainer run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from nlptrain import forward, training_arguments
from nlptrain.config.heads import HeadConfig
from nlptrain.config.parts import LossConfig
from nlptrain.config.schema import Config, ModelConfig
from nlptrain.config.task import TaskConfig
from nlptrain.data.encode import encode
from nlptrain.data.fingerprint import fingerprint
from nlptrain.data.tags import TagMap
from nlptrain.errors import ModelError
from nlptrain.metrics.scores import score
from nlptrain.models.build import build
from nlptrain.models.configuration import NlpTrainConfig
from nlptrain.models.load import load
from nlptrain.models.objective import objective
from nlptrain.outputs import OUTPUTS
from nlptrain.tasks import ENTITY_METRICS, TaskSpec
from nlptrain.trainer import FineTuner
from tests.tiny import MASK, byte_level_dir, tiny_model_dir
from tests.token_rows import TAGS, tagged

NER = TaskSpec(
    "ner", "token_classification", ("tokens",), "tags", labels=TAGS, metrics=ENTITY_METRICS, primary="entity_f1"
)
ARCHITECTURES = ["stock", "cross_encoder"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("tiny"), dropout=0.0)


def dataset(count: int, seed: int = 0) -> Dataset:
    rows = tagged(count, seed)
    columns = {
        "tokens": [" ".join(words) for words, _ in rows],
        "label": [[TAGS.index(tag) for tag in tags] for _, tags in rows],
    }
    return Dataset.from_dict({**columns, "line": list(range(1, count + 1))})


def built(folder: Path, architecture: Any = "cross_encoder", **settings: Any) -> Any:
    torch.manual_seed(0)
    return build(str(folder), ModelConfig(architecture=architecture, dropout=0.0, **settings), NER, TAGS, None)


def fine_tuner(
    folder: Path,
    run: Path,
    architecture: str = "cross_encoder",
    rows: int = 44,
    watch: list[TrainerCallback] | None = None,
    max_length: int = 64,
    **training: Any,
) -> FineTuner:
    model, tokenizer = built(folder, architecture)
    quiet = {"eval_strategy": "no", "save_strategy": "no", "logging_steps": 1, "max_grad_norm": 0.0}
    exact = {"use_cpu": True, "bf16": False}
    values = training_arguments.resolve({**quiet, **exact, "num_train_epochs": 1, **training}, run)
    args = training_arguments.build(values, metric="entity_f1", greater_is_better=True)
    encoded = encode(dataset(rows), NER, tokenizer, max_length, clean=())
    parts = {"train_rows": encoded, "eval_rows": encoded, "callbacks": watch}
    return FineTuner(model, args, task=NER, tokenizer=tokenizer, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "byte_level", "generic_byte_level"])
def test_tags_come_back_from_their_tokens(tmp_path: Path, family: Any) -> None:
    is_byte_level = family.endswith("byte_level")
    source = (
        byte_level_dir(tmp_path, generic="generic" in family)
        if is_byte_level
        else tiny_model_dir(tmp_path, family=family)
    )
    _, tokenizer = built(source)
    rows = dataset(50)
    encoded = encode(rows, NER, tokenizer, 64, clean=())
    sizes = [len(text.split()) for text in rows["tokens"]]
    assert not any(encoded["truncated"])
    assert sum(encoded["length"]) > sum(sizes) + 2 * len(sizes)  # some words are several tokens
    # a model that puts all its weight on the label of each token, and on class 1 where there is none
    labels = [np.asarray(row) for row in encoded["labels"]]
    logits = np.full((len(labels), max(map(len, labels)), len(TAGS)), -100.0)
    for row, found in enumerate(labels):
        logits[row, : len(found)] = np.eye(len(TAGS))[np.where(found < 0, 1, found)]
    answers = OUTPUTS[NER.kind].answers(OUTPUTS[NER.kind].by_row(logits, encoded), TAGS)
    assert [answer["tags"] for answer in answers] == [[TAGS[n] for n in row] for row in rows["label"]]
    assert [sum(label != -100 for label in row) for row in labels] == sizes


@pytest.mark.parametrize("generic", [False, True])
def test_a_byte_level_tokeniser_sees_the_words_of_a_list_as_those_of_a_text(tmp_path: Path, generic: bool) -> None:
    model, tokenizer = built(byte_level_dir(tmp_path, generic=generic))
    words = ["good", "film", "films"]
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == tokenizer(" " + " ".join(words))["input_ids"]
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    _, again = load(tmp_path / "saved", NER.kind)
    assert again(words, is_split_into_words=True)["input_ids"] == tokenizer(" ".join(words))["input_ids"]


def test_a_tokeniser_that_pads_on_the_left_is_refused(tmp_path: Path) -> None:
    settings = tiny_model_dir(tmp_path) / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"padding_side": "left"}))
    with pytest.raises(ModelError, match="pads on the right, found the left"):
        built(tmp_path)


def test_words_that_were_cut_off_count_as_truncated_and_are_outside(folder: Path, tmp_path: Path) -> None:
    rows = Dataset.from_dict({"tokens": ["a man is the man", "a man", "a \u200b man", "a man is the films"]})
    rows = rows.add_column("label", [[0, 1, 0, 0, 1], [0, 1], [0, 0, 1], [0, 1, 0, 0, 2]])
    rows = rows.add_column("line", [1, 2, 3, 4])
    trainer = fine_tuner(folder, tmp_path)
    encoded = encode(rows, NER, trainer.processing_class, 6, clean=())
    assert encoded["starts"][:] == [[1, 2, 3, 4, -1], [1, 2], [1, -1, 2], [1, 2, 3, 4, -1]]
    assert encoded["truncated"][:] == [True, False, True, True]
    assert encoded["labels"][0] == [-100, 0, 1, 0, 0, -100]
    logits = trainer.logits(encoded)
    assert [np.isnan(row).all(axis=1).nonzero()[0].tolist() for row in logits] == [[4], [], [1], [4]]
    answers = list(OUTPUTS[NER.kind].answers(logits, ("B-PER", "O", "I-PER", "B-THING")))
    assert [len(answer["tags"]) for answer in answers] == [5, 2, 3, 5]
    assert (answers[0]["tags"][4], answers[2]["tags"][1]) == ("O", "O")


def test_fingerprints_tell_rows_by_their_tags(folder: Path) -> None:
    _, tokenizer = built(folder)
    rows = encode(dataset(5), NER, tokenizer, 64, clean=())
    other = rows["labels"][:]
    other[0][1] = 3 - other[0][1]
    changed = rows.remove_columns("labels").add_column("labels", other)
    assert fingerprint(rows) == fingerprint(encode(dataset(5), NER, tokenizer, 64, clean=())) != fingerprint(changed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_is_loaded_with_the_same_logits_and_names(
    folder: Path, tmp_path: Path, architecture: str
) -> None:
    model, tokenizer = built(folder, architecture)
    batch = tokenizer(
        [["a", "man"], ["films", "and", "cats"]], is_split_into_words=True, padding=True, return_tensors="pt"
    )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for again in (load(tmp_path, NER.kind)[0], AutoModelForTokenClassification.from_pretrained(tmp_path)):
        torch.testing.assert_close(again(**batch).logits, model.eval()(**batch).logits, rtol=0, atol=0)
        assert tuple(again.config.id2label[number] for number in range(len(TAGS))) == TAGS
    assert model(**batch).logits.shape == (*batch["input_ids"].shape, len(TAGS))


def test_a_head_scores_each_token_as_it_scores_the_embedding_of_a_row(folder: Path) -> None:
    model, tokenizer = built(folder, head=HeadConfig(hidden=[8, 5], activation="gelu", skip=True))
    model.eval()
    batch = tokenizer([["films"], ["a", "man"]], is_split_into_words=True, padding=True, return_tensors="pt")
    states = model.encoder(**batch).last_hidden_state
    assert (len(model.head.layers), model.head.skip.weight.shape) == (2, (len(TAGS), states.shape[-1]))
    logits = model(**batch).logits
    for row, places in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        for place in range(places):
            expected = model.head(states[row, place].unsqueeze(0))[0]
            torch.testing.assert_close(logits[row, place], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"output": "sigmoid"}, {"normalize": "l2"}, {"architecture": "bi_encoder"}, {"problem_type": "regression"}],
)
def test_a_model_of_tokens_has_nothing_that_belongs_to_rows(wrong: dict[str, Any]) -> None:
    labels = {"num_labels": 1 if "problem_type" in wrong else 2, "pad_token_id": 0, "cls_token_id": 1}
    with pytest.raises(StrictDataclassError, match="pooling none needs"):
        NlpTrainConfig(pooling="none", separator_token_id=2, **labels, **wrong)


def test_class_weights_are_those_of_the_tags() -> None:
    rows = dataset(60)
    task = TaskConfig(name="ner", kind="token_classification", text=["tokens"], label="tags")
    config = Config(task=task, loss=LossConfig(class_weights="balanced"))
    tags = [number for row in rows["label"][:] for number in row]
    expected = compute_class_weight("balanced", classes=np.arange(len(TAGS)), y=tags)
    assert objective(config, rows, TagMap(TAGS), None).class_weights == pytest.approx(expected)


def test_a_model_of_tokens_is_not_loaded_as_one_of_rows_and_the_reverse(folder: Path, tmp_path: Path) -> None:
    model, _ = built(folder)
    model.save_pretrained(tmp_path / "tokens")
    rows = TaskSpec("rows", "classification", ("text",))
    build(str(folder), ModelConfig(), rows, TAGS, None)[0].save_pretrained(tmp_path / "rows")
    with pytest.raises(ModelError, match="pooling none"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "tokens")
    with pytest.raises(ModelError, match="pooling mean"):
        AutoModelForTokenClassification.from_pretrained(tmp_path / "rows")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logit(folder: Path, side: str) -> None:
    model, tokenizer = built(folder)
    model.eval()
    tokenizer.padding_side = side
    rows = [["a", "man"], ["the", "films", "and", "cats", "xyz"]]
    batch = tokenizer(rows, is_split_into_words=True, padding=True, return_tensors="pt")
    logits = model(**batch).logits
    assert logits[batch["attention_mask"] == 0].abs().max() == 0
    if side == "right":  # positions move with padding on the left
        alone = model(**tokenizer(rows[:1], is_split_into_words=True, return_tensors="pt")).logits
        torch.testing.assert_close(logits[:1, : alone.shape[1]], alone, rtol=0, atol=1e-6)


def test_token_dropout_hides_words_but_no_frame(folder: Path) -> None:
    model, tokenizer = built(folder, token_dropout=0.999999)
    batch = tokenizer([["a", "man"]], is_split_into_words=True, return_tensors="pt")
    hidden = tokenizer([[MASK, MASK]], is_split_into_words=True, return_tensors="pt")
    torch.testing.assert_close(model.train()(**batch).logits, model.eval()(**hidden).logits)


class Gradients(TrainerCallback):
    """The gradient of every optimizer step as one vector."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        self.steps.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_accumulation_changes_no_gradient_and_no_loss_not_even_of_a_partial_window(
    folder: Path, tmp_path: Path, architecture: str
) -> None:
    found = []
    for settings in (
        {"per_device_train_batch_size": 32},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
    ):
        seen = Gradients()
        still = {"learning_rate": 1e-30, "weight_decay": 0.0, **settings}
        trainer = fine_tuner(folder, tmp_path, architecture, watch=[seen], **still)
        trainer.train()
        found.append((torch.stack(seen.steps), [log["loss"] for log in trainer.state.log_history if "loss" in log]))
    (whole, losses), (parts, part_losses) = found
    assert whole.shape[0] == 2
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    assert part_losses == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [7, 64])
def test_evaluation_loss_is_the_cross_entropy_of_all_labelled_tokens(
    folder: Path, tmp_path: Path, architecture: str, size: int
) -> None:
    trainer = fine_tuner(folder, tmp_path, architecture, per_device_eval_batch_size=size)
    probabilities, targets = [], []
    for row in trainer.eval_dataset:
        one = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        logits = trainer.model.eval()(**one).logits[0].double().softmax(-1).detach().numpy()
        probabilities += [logits[place] for place in row["starts"]]
        targets += row["targets"]
    expected = log_loss(targets, np.asarray(probabilities), labels=range(len(TAGS)))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("budget", [90, 10_000])
def test_word_outputs_are_those_of_each_row_alone_in_the_order_of_the_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(forward, "BUDGET", budget)
    trainer = fine_tuner(folder, tmp_path)
    rows = encode(dataset(23, seed=5), NER, trainer.processing_class, 64, clean=())
    found = trainer.logits(rows)
    for row, words in zip(rows, found, strict=True):
        one = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        alone = trainer.model(**one).logits[0].detach().numpy()[row["starts"]]
        np.testing.assert_allclose(words, alone, rtol=0, atol=1e-6)


def test_an_evaluation_of_other_rows_than_those_of_training_is_scored_by_their_tags(
    folder: Path, tmp_path: Path
) -> None:
    trainer = fine_tuner(folder, tmp_path)
    rows = encode(dataset(9, seed=7), NER, trainer.processing_class, 64, clean=())
    expected = OUTPUTS[NER.kind].compared(trainer.logits(rows), rows["targets"][:], TAGS)
    found = trainer.evaluate(rows)
    assert found["eval_token_accuracy"] == score(ENTITY_METRICS, *expected).values["token_accuracy"]
    assert trainer.predict(rows).metrics["test_token_accuracy"] == found["eval_token_accuracy"]


def test_metrics_of_training_count_words_that_were_cut_off(folder: Path, tmp_path: Path) -> None:
    """Selection and the final score see the same words, so a long entity that is cut off is one that is missed."""
    trainer = fine_tuner(folder, tmp_path, max_length=8)
    names = ["O", "B-PER", "B-THING", "I-PER"]
    outputs = trainer.logits(trainer.eval_dataset)
    tags = [answer["tags"] for answer in OUTPUTS[NER.kind].answers(outputs, names)]
    targets = [[names[number] for number in target] for target in trainer.eval_dataset["targets"]]
    assert any(trainer.eval_dataset["truncated"])
    right = [
        ours == theirs for one, two in zip(tags, targets, strict=True) for ours, theirs in zip(one, two, strict=True)
    ]
    assert trainer.evaluate()["eval_token_accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stock_trainer_trains_the_mean_over_labelled_tokens(folder: Path, tmp_path: Path, architecture: str) -> None:
    model, tokenizer = built(folder, architecture)
    rows = encode(dataset(16), NER, tokenizer, 64, clean=())
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, max_steps=12, logging_steps=1, learning_rate=0.01, use_cpu=True
    )
    collator = DataCollatorForTokenClassification(tokenizer)
    batch = collator([{n: row[n] for n in ("input_ids", "attention_mask", "labels")} for row in rows])
    keep = batch["labels"] != -100
    logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = log_loss(
        batch["labels"][keep], logits[keep].double().softmax(-1).detach().numpy(), labels=range(len(TAGS))
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(expected, abs=1e-5)
    assert losses[-1] < 0.7 * losses[0]
