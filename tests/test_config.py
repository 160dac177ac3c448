"""The configuration: precedence, located errors, round trip, limits of the YAML."""

from dataclasses import fields
from pathlib import Path

import pytest

from nlptrain.config import arguments
from nlptrain.config.load import dump, json_schema, load
from nlptrain.errors import ConfigError

CARDS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), overrides)
    return caught.value.problems


def test_command_line_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    config = load(write(tmp_path, "task: sst2\ndata: {max_length: 64}\n"), ["data.max_length=32", "training.seed=7"])
    assert (config.data.max_length, config.training["seed"], config.model.pooling) == (32, 7, "mean")


def test_scientific_notation_is_a_float_and_no_is_a_label(tmp_path: Path) -> None:
    text = "task: {kind: classification, labels: [no, yes]}\ntraining: {learning_rate: 1e-5}\n"
    config = load(write(tmp_path, text))
    assert (config.training["learning_rate"], config.spec.labels) == (1e-5, ("no", "yes"))


def test_every_problem_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    text = "task: sst2\ndata:\n  max_lenght: 3\nmodel:\n  pooling: median\ntraining:\n  learning_rat: 1e-5\n"
    found = problems(tmp_path, text)
    assert [":3:" in found[0], "'max_length'" in found[0]] == [True, True]
    assert [":5:" in found[1], "'median'" in found[1]] == [True, True]
    assert [":7:" in found[2], "'learning_rate'" in found[2]] == [True, True]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("learning_rate=0", "more than 0"),
        ("learning_rate=fast", "expected float"),
        ("warmup_steps=-1", "at least 0"),
        ("num_train_epochs=0", "more than 0"),
        ("train_sampling_strategy=batch_rebalance", "group_by_length"),
        ("learning_rate=.nan", "finite"),
        ("metric_for_best_model=eval_loss", "task.primary"),
        ("dataloader_drop_last=true", "every row"),
    ],
)
def test_training_values_are_checked_before_anything_loads(tmp_path: Path, setting: str, expected: str) -> None:
    (found,) = problems(tmp_path, "task: sst2\n", f"training.{setting}")
    assert expected in found
    assert found.startswith("command line:")


def test_training_fields_are_those_of_the_installed_library() -> None:
    from transformers import TrainingArguments

    assert set(arguments.training_fields()) == {field.name for field in fields(TrainingArguments) if field.init}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task: sst2\ntask: cola\n", "duplicate"),
        ("task: !!python/object/apply:os.system [true]\n", "tags"),
        ("a: &a [x]\ntask: *a\n", "anchors"),
        ("- 1\n", "expected keys"),
        ("task: [\n", "not valid YAML"),
        ("task: sst3\n", "unknown task 'sst3'"),
        ("task: sst2\nmodel: {architecture: bi_encoder}\n", "needs a pair"),
        ("task: {kind: regression, labels: [a, b]}\n", "belongs to classification"),
        ("task: {kind: regression, range: [5, 0]}\n", "low < high"),
        ("task: {kind: regression, metrics: [accuracy]}\n", "not for regression"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(tmp_path, text))


def test_a_misspelt_file_name_gets_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "task: sst2\n")
    with pytest.raises(ConfigError, match=r"did you mean .*card\.yaml"):
        load(tmp_path / "crad.yaml")


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    text = "task: {kind: regression, text: [a, b], range: [0, 5]}\ntraining: {learning_rate: 3e-05, seed: 3}\n"
    config = load(write(tmp_path, text))
    assert load(write(tmp_path, dump(config))) == config


def test_schema_knows_every_section_and_training_field() -> None:
    properties = json_schema()["properties"]
    assert {"task", "data", "model", "training", "early_stopping"} <= set(properties)
    assert "learning_rate" in properties["training"]["properties"]


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_every_shipped_card_is_valid(card: Path) -> None:
    assert load(card).spec.name
